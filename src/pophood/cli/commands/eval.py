"""`pophood eval MODEL DATA`: the loss and perplexity of a model on data, computed by the engine."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.app import DONE
from pophood.cli.options.shared import (
    ModelChoice,
    json_option,
    offline_option,
    option,
    threads_option,
    use_adapter_option,
    verb,
    with_options,
)
from pophood.cli.options.tune import DATA_OPTIONS, typed_data
from pophood.cli.screens.tune import data_lines
from pophood.cli.session import open_model
from pophood.cli.terminal.console import Console, facts_of
from pophood.cli.terminal.progress import Waiting
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.model.lm import LM


READING = ("format", "columns", "completions_only", "strict")  # fields of DataOptions


@verb()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@use_adapter_option
@option(
    "--length",
    type=click.IntRange(2),
    section="Data",
    help="Tokens per row (default: 1024, or the context window if it is shorter).",
)
@functools.partial(with_options, options=[DATA_OPTIONS[name] for name in READING])
@threads_option
@json_option
@offline_option
def eval_command(
    console: Console,
    model: str,
    data: tuple[Path, ...],
    adapters: tuple[tuple[str, float], ...],
    length: int | None,
    threads: int | None,
    as_json: bool,
    offline: bool | None,
    **reading: Any,
) -> int:
    """Measure how well a model predicts your text.

    Prints the mean loss in nats per token and its exponential, the perplexity. DATA are files in any format
    that `pophood tune` reads; in prompts and chats, only the answers count. Torch is not needed.

    Example: pophood eval smollm2 notes.txt

    Example: pophood eval smollm2 chats.jsonl --adapter notes-lora
    """
    from pophood.train.data import DataOptions, open_data
    from pophood.train.loop.evaluation import loss_of

    typed = typed_data(reading)
    lm = open_model(
        console, ModelChoice(model, precision="f32", threads=threads, offline=offline, adapters=adapters)
    )
    options = DataOptions(length=_length(length, lm), validation=0, **typed)
    dataset = open_data(data, lm.bundle.tokenizer, lm.chat_template, options)
    for line in data_lines(dataset.report):
        if "validate" not in line and "validation" not in line:
            console.say(line)
    with Waiting(console, "reading") as waiting:
        result = loss_of(lm.engine, dataset.train, progress=waiting)
    facts = {
        "model": lm.name,
        "adapters": [{"name": adapter.name, "scale": scale} for adapter, scale in lm.adapters],
        "data": [str(path) for path in data],
        **facts_of(result, "loss", "perplexity", "tokens", "documents"),
        "bad_lines": dataset.report.bad_count,
    }
    text = f"loss {result.loss:.4f} nats per token, perplexity {result.perplexity:.2f}"
    console.result(facts, text, as_json=as_json)
    if not as_json:
        console.say(f"over {result.tokens:,} tokens of {result.documents:,} documents")
    return DONE


def _length(wanted: int | None, lm: LM) -> int:
    """Return the row length in tokens. Raises BadInput for more than the context window."""
    if wanted is not None and wanted > lm.engine.context:
        raise BadInput(
            f"a length of {wanted:,} exceeds the model's {lm.engine.context:,} positions: lower --length"
        )
    return wanted or min(1024, lm.engine.context)
