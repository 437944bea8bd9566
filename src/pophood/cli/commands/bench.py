"""`pophood bench [MODEL]`: how fast a model runs on this machine, beside what the machine could deliver."""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.bench.settings import BenchSettings
from pophood.cli.app import DONE, INTERRUPTED
from pophood.cli.commands.look.options import OUTPUT_OPTIONS, Destinations, hand_out
from pophood.cli.options.from_settings import setting_options, typed_settings
from pophood.cli.options.shared import ModelChoice, model_options, option, output_option, verb, with_options
from pophood.cli.screens.bench import StepScreen
from pophood.cli.session import open_model
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.errors import BadInput
from pophood.plaintext import read_text

if TYPE_CHECKING:
    from pophood.bench.measure import Benchmark
    from pophood.model.lm import LM

SECTION = "Measurement"
OUTPUTS = (  # those of `look`, without arrays
    output_option(
        "--save",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Write .svg, .png, .html, .csv or .json, by the ending; repeatable.",
    ),
    *OUTPUT_OPTIONS[1:],
)
# The letters of llama.cpp's llama-bench, whose -b is something else.
SHORT = {"prompt": "-p", "tokens": "-n", "depth": "-d", "threads": "-t", "rounds": "-r"}
MEASURING = setting_options(BenchSettings, SECTION, short=SHORT)


@verb()
@click.argument("name", required=False, metavar="[MODEL]")
@functools.partial(with_options, options=list(MEASURING.values()))
@option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    section=SECTION,
    help="Show the ratios to an earlier run, which --json or --save FILE.json wrote.",
)
@option(
    "--quality",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    section=SECTION,
    help="Compare the predictions along a text with --against, instead of timing.",
)
@option(
    "--against",
    metavar="PRECISION|MODEL",
    section=SECTION,
    help="With --quality: the same model at another precision, or another one at f32 (default: f32).",
)
@functools.partial(with_options, options=OUTPUTS)
@functools.partial(model_options, threads=False)
def bench_command(
    console: Console,
    name: str | None,
    choice: ModelChoice,
    compare: Path | None,
    quality: Path | None,
    against: str | None,
    **options: Any,
) -> int:
    """Measure how fast a model runs on this machine.

    Prints the tokens per second of reading a prompt and of generating, for several numbers of threads,
    depths and sequences, each with its range and its share of what this machine's memory or multipliers
    could deliver; and the time and memory of a new process. Ctrl-C ends it with the figures so far.

    Example: pophood bench smollm2

    Example: pophood bench smollm2 --threads 1,2 --rounds 5 --save bench.svg

    Example: pophood bench smollm2 --json > before.json

    Example: pophood bench smollm2 --compare before.json

    With --quality it measures instead how far the predictions of a file or precision are from f32's:
    KL divergence, flipped tokens and perplexity along a text.

    Example: pophood bench smollm2 --quality notes.txt --precision q8
    """
    if name is not None and choice.name is not None and name != choice.name:
        raise click.UsageError(f"two models: {name} and -m {choice.name}; give one")
    choice = replace(choice, name=name or choice.name)
    if quality is not None:
        _check_quality_options(options, compare)
        return _quality(console, choice, quality, against or "f32", options)
    if against is not None:
        raise click.UsageError("--against belongs to --quality FILE: give a text to compare along")
    settings = BenchSettings(**typed_settings(BenchSettings, options))
    to = Destinations(**{one.name: options.pop(one.name) for one in fields(Destinations)})
    to.check()
    if arrays := [path for path in to.save if path.suffix.lower() == ".npz"]:
        raise BadInput(f"{arrays[0]}: a benchmark has tables, no arrays: save it as .csv or .json")
    earlier = None
    if compare is not None:
        from pophood.bench.record import read_earlier

        earlier = read_earlier(compare)
    lm = open_model(console, choice)
    from pophood.bench.measure import Benchmark

    benchmark = Benchmark(lm, settings, earlier)
    finished = _run(console, benchmark)
    view = benchmark.view()
    hand_out(console, view, to, text=True)
    if to.as_json or to.as_csv:
        for note in view.notes[1:]:
            console.say(note)
    return DONE if finished else INTERRUPTED


def _run(console: Console, benchmark: Benchmark) -> bool:
    """Do all steps and return True, or False after Ctrl-C."""
    warned = False
    try:
        with StepScreen(console) as screen:
            for step in benchmark.run():
                if step.round == 1 and not warned:
                    warned = True
                    _warn(console, benchmark)
                screen.show(step)
    except KeyboardInterrupt:
        console.say("stopped; the figures so far:")
        return False
    return True


def _warn(console: Console, benchmark: Benchmark) -> None:
    """Say at once that other programs are busy, so that nobody waits for figures that are of no use."""
    from pophood.bench.view import BUSY

    others = benchmark.others()
    if others is not None and others > BUSY:
        console.say(f"other programs are busy ({others:.1f} processors): these figures will be low")


# ---- --quality ----


def _check_quality_options(options: dict[str, Any], compare: Path | None) -> None:
    """Refuse what belongs to timing, before a model is loaded."""
    timing = {one: options.get(one) for one in ("prompt", "depth", "batch", "rounds", "no_start")}
    timing |= {"compare": compare, "save": options["save"], "open": options["open_it"]}
    timing |= {"csv": options["as_csv"], "theme": options["theme"] != "light"}
    if wrong := next((one for one, value in timing.items() if value), None):
        raise click.UsageError(f"--{wrong.replace('_', '-')} is for timing: leave it out beside --quality")
    if len(options["threads"] or ()) > 1:
        raise click.UsageError("--quality takes one number of threads, and no result depends on it")


def _quality(console: Console, choice: ModelChoice, path: Path, against: str, options: dict[str, Any]) -> int:
    """Compare a model's predictions along a text, and print the figures."""
    text, wanted, threads = read_text(path), options["tokens"], options["threads"]
    if wanted is not None and wanted < 2:
        raise BadInput(f"tokens is {wanted:,}; wanted at least 2, since a prediction needs two")
    lm = open_model(console, replace(choice, threads=threads[0] if threads else None))
    other = _other(console, lm, choice, against)
    from pophood.bench.quality import TOKENS, Comparison

    ids = lm.tokenize(text)
    if other.tokenize(text) != ids:
        raise BadInput(
            f"{lm.name} and {other.name} make different tokens of {path}: only models with the same "
            "vocabulary can be compared"
        )
    comparison = Comparison(lm, other, ids[: wanted or TOKENS])
    finished = True
    try:
        with StepScreen(console) as screen:
            for step in comparison.run():
                screen.show(step)
    except KeyboardInterrupt:
        console.say("stopped; the figures so far:")
        finished = False
    found = comparison.quality()
    this, that = found.this, found.other
    title = f"{this.model} at {this.precision} beside "
    title += that.precision if this.model == that.model else f"{that.model} at {that.precision}"
    title += f", over {found.positions:,} positions of {path}"
    facts = {"text": str(path), **found.as_dict()}
    console.result(facts, "\n".join([title, "", *found.sentences()]), as_json=options["as_json"])
    return DONE if finished else INTERRUPTED


def _other(console: Console, lm: LM, choice: ModelChoice, against: str) -> LM:
    """Return the model to compare with: the same at a precision, or another one at f32."""
    from pophood.model.memory import PRECISIONS

    if against not in PRECISIONS:
        return open_model(console, replace(choice, name=against, precision="f32", kv="auto", adapters=()))
    with Waiting(console, f"loading {lm.name} at {against}") as waiting:
        other = lm.at(against, waiting)
    if (other.engine.precision, other.engine.kv) == (lm.engine.precision, lm.engine.kv):
        raise BadInput(
            f"{lm.name} is computed at {lm.engine.precision} either way: choose a --precision, or another "
            "model or precision with --against"
        )
    return other
