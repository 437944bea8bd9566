"""`pophood look trace`: the arrays of one forward pass, listed or written as .npz."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.commands.look.options import (
    look_model_options,
    text_of,
    text_options,
    view_option,
)
from pophood.cli.options.shared import ModelChoice, json_option, output_option, verb
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput
from pophood.system import atomic_write, check_writable_target

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.table import Table


@verb()
@text_options
@view_option(
    "--taps",
    multiple=True,
    metavar="PATTERN",
    help='The arrays, as in "blocks.*.attn.pattern"; "!*.result" leaves some out; repeatable.',
)
@output_option(
    "--save",
    type=click.Path(path_type=Path),
    help="Run the model, and write the arrays to this .npz file.",
)
@json_option
@look_model_options
def trace_command(
    console: Console,
    choice: ModelChoice,
    text: str | None,
    file: str | None,
    taps: tuple[str, ...],
    save: Path | None,
    as_json: bool,
) -> int:
    """Write the arrays of a forward pass to a file, or list them.

    Without --save nothing is computed: names, axes, shapes and bytes are printed. docs/taps.md describes each
    array. In Python: np.load("trace.npz")["blocks.0.attn.pattern"].

    Example: pophood look trace "The capital of Spain is" --taps "blocks.*.attn.pattern" --save trace.npz
    """
    import numpy as np

    from pophood.cli.session import open_model

    if save is not None and save.suffix.lower() != ".npz":
        raise BadInput(f"{save}: a trace is written as .npz: give a name with that ending")
    if save is not None:
        check_writable_target(save)
    whole = text_of(console, text, file).text
    lm = open_model(console, choice)
    patterns = taps or ("*",)
    table = list_taps(lm, whole, patterns)
    plan = lm.plan_trace(whole, patterns)
    console.say(f"computed at {lm.engine.precision}: {plan.describe()}")
    if save is not None:
        trace = lm.trace(whole, patterns)
        ids = np.asarray(trace.ids, np.int64)
        atomic_write(save, lambda file: np.savez(file, allow_pickle=False, ids=ids, **trace.arrays))
        console.say(f"saved: {save}")
    if as_json:
        console.json(list(table))
    elif save is None:
        from pophood.cli.terminal.display import Display
        from pophood.cli.terminal.view_screen import rows

        console.paint(rows(table, Display.of(sys.stdout)) + "\n")
    return 0


def list_taps(lm: LM, text: str, patterns: tuple[str, ...]) -> Table:
    """Return name, axes, shape and bytes of the arrays that the patterns match; nothing is computed."""
    from pophood.table import Table
    from pophood.taps import PAIR, match_taps

    length = len(lm.tokenize(text))
    rows = []
    for tap in match_taps(lm.config, patterns):
        axes, shape = tap.axes, tap.shape(length, length)
        if axes == PAIR:  # as a trace transposes it
            axes, shape = ("head", "query", "key"), (shape[1], shape[0], shape[2])
        rows.append((tap.name, ", ".join(axes), str(shape), tap.nbytes(length, length)))
    return Table(("name", "axes", "shape", "bytes"), tuple(rows))
