"""`pophood eval MODEL DATA`: the loss and perplexity of a model on data, computed by the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.app import DONE
from pophood.cli.options.shared import (
    ModelChoice,
    adapter_option,
    json_option,
    offline_option,
    option,
    verb,
    with_scale,
)
from pophood.cli.options.tune import columns_of
from pophood.cli.screens.tune import data_lines
from pophood.cli.session import open_model
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.model.lm import LM


@verb()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@adapter_option
@option(
    "--length",
    type=click.IntRange(2),
    metavar="N",
    section="Data",
    help="Positions of a stretch (default: 1024, or the model's).",
)
@option(
    "--completions-only/--everything",
    default=None,
    section="Data",
    help="Count the answers alone (default for prompts and chats), or all text.",
)
@option(
    "--format",
    "layout",
    default="auto",
    metavar="NAME",
    section="Data",
    help="What the records are, as for tune.",
)
@option(
    "--columns",
    metavar="OURS=THEIRS,...",
    section="Data",
    help='Names of fields, as in "prompt=question,completion=answer".',
)
@option("--strict", is_flag=True, section="Data", help="Stop at the first bad line.")
@option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", section="Model", help="Threads to compute with."
)
@json_option
@offline_option
def command(
    console: Console,
    model: str,
    data: tuple[Path, ...],
    adapters: tuple[str, ...],
    length: int | None,
    completions_only: bool | None,
    layout: Any,
    columns: str | None,
    strict: bool,
    threads: int | None,
    as_json: bool,
    offline: bool | None,
) -> int:
    """Measure how well a model predicts your text.

    Prints the mean loss in nats per token and its exponential, the perplexity. DATA are files as `pophood
    tune` reads them; of prompts and chats only the answers count. Needs no torch.

    Example: pophood eval smollm2 notes.txt

    Example: pophood eval smollm2 chats.jsonl --adapter notes-lora
    """
    from pophood.train.data import DataOptions, open_data
    from pophood.train.loop.evaluation import loss_of

    choice = ModelChoice(model, "auto", threads, None, offline, tuple(map(with_scale, adapters)))
    lm = open_model(console, choice)
    options = DataOptions(
        format=layout,
        columns=columns_of(columns) if columns else {},
        length=_length(length, lm),
        completions_only=completions_only,
        validation=0,
        strict=strict,
    )
    opened = open_data(data, lm.bundle.tokenizer, lm.chat_template, options)
    for line in data_lines(opened.report):
        if "validate" not in line and "validation" not in line:
            console.say(line)
    with Waiting(console, "reading") as waiting:
        found = loss_of(lm.engine, opened.train, progress=waiting)
    if as_json:
        console.json(
            {
                "model": lm.name,
                "adapters": [{"name": adapter.name, "scale": scale} for adapter, scale in lm.adapters],
                "data": [str(path) for path in data],
                "loss": found.loss,
                "perplexity": found.perplexity,
                "tokens": found.tokens,
                "documents": found.documents,
                "bad_lines": opened.report.bad_count,
            }
        )
    else:
        console.out(f"loss {found.loss:.4f} nats per token, perplexity {found.perplexity:.2f}")
        console.say(f"over {found.tokens:,} tokens of {found.documents:,} documents")
    return DONE


def _length(wanted: int | None, lm: LM) -> int:
    """Return the row length in tokens. Raises BadInput for more than the context window."""
    if wanted is not None and wanted > lm.engine.context:
        raise BadInput(
            f"a length of {wanted:,} exceeds the model's {lm.engine.context:,} positions: lower --length"
        )
    return wanted or min(1024, lm.engine.context)
