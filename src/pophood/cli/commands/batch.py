"""`pophood batch prompts.jsonl -o answers.jsonl`: answer a file of requests, line by line."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.app import DONE, FAILED, INTERRUPTED
from pophood.cli.options.sampling import SamplingArgs, sampling_options
from pophood.cli.options.shared import (
    ModelChoice,
    json_option,
    model_options,
    network_option,
    output_option,
    text_option,
    verb,
)
from pophood.cli.screens.batch import BatchScreen, defaults_of
from pophood.cli.session import open_model
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.batch.answering import Answering
    from pophood.batch.answers import AnswerFile, AnswerStream
    from pophood.batch.cluster.driver import RayAnswering
    from pophood.batch.custom_ids import CustomIds
    from pophood.batch.facts import BatchFacts
    from pophood.batch.lines import LineSource
    from pophood.batch.model import BatchModel, LineDefaults
    from pophood.model.lm import LM

STDOUT = "-"


@verb()
@click.argument("requests", metavar="FILE")
@output_option("-o", "--output", required=True, metavar="FILE", help="Write the answers here (- is stdout).")
@output_option("--overwrite", is_flag=True, help="Start anew, whatever answers the file has.")
@output_option(
    "--together",
    type=click.IntRange(1, 256),
    default=16,
    help="Texts that are written at a time; no answer depends on it.",
)
@text_option(
    "--alias", "aliases", multiple=True, metavar="NAME", help="Answer lines for this model too; repeatable."
)
@network_option(
    "--ray",
    metavar="ADDRESS",
    help="Let the machines of a Ray cluster answer: auto, HOST:PORT, or local (a cluster of this machine).",
)
@json_option
@model_options
@sampling_options
def batch_command(
    console: Console,
    requests: str,
    output: str,
    overwrite: bool,
    together: int,
    aliases: tuple[str, ...],
    ray: str | None,
    as_json: bool,
    choice: ModelChoice,
    sampling: SamplingArgs,
) -> int:
    """Answer a file of prompts, one on each line.

    Every line of FILE (- is stdin) is a JSON object with `prompt`, `messages`, or `text` and `"score": true`,
    and perhaps an `id` and settings of its own; or a line of OpenAI's batches. Answers have the order of the
    lines. A run that was stopped, by whatever, goes on where it was with the same command. The exit code is 1
    if some line could not be answered.

    Example: pophood batch prompts.jsonl -o answers.jsonl -m smollm2 --max-tokens 50
    """
    from pophood.batch.answers import AnswerFile, AnswerStream
    from pophood.batch.cluster.nodes import require_ray
    from pophood.batch.lines import LineSource, count_lines, open_lines
    from pophood.batch.model import BatchModel
    from pophood.system import check_writable_target

    if as_json and output == STDOUT:
        raise click.UsageError("--json prints a summary on stdout, where -o - writes the answers: give one")
    sampling.check()
    if output != STDOUT:
        if Path(output).exists() and Path(requests).exists() and Path(output).samefile(requests):
            raise BadInput(f"{output}: is the file of requests; name another for the answers")
        check_writable_target(output)
    with ExitStack() as stack:
        file, origin = open_lines(requests)
        source = LineSource(stack.enter_context(file), origin)
        if ray is not None:
            require_ray()
        lm = open_model(console, choice, weights=ray is None)
        answers = AnswerStream() if output == STDOUT else AnswerFile(Path(output), overwrite=overwrite)
        stack.push(answers)
        if ray is not None:  # it prints what happens to its processes there; `answers` has the stream itself
            stack.enter_context(redirect_stdout(StringIO()))
        defaults = _defaults(sampling, lm, answers.earlier)
        model = BatchModel(lm, defaults, aliases=aliases)
        ids, say = answers.custom_ids, console.say
        answering = _answering(model, ray, choice, together, ids, say)
        stack.push(answering)
        screen = BatchScreen(console, origin, output, count_lines(requests))
        if isinstance(answers, AnswerFile):
            answers.begin(model.facts(), source)
            screen.resumed(answers)
        interrupted = _answer(screen, answering, source, answers)
    if as_json:
        console.json(screen.as_dict(lm, defaults, interrupted=interrupted))
    console.say(screen.summary(interrupted=interrupted))
    if interrupted:
        return INTERRUPTED
    return FAILED if screen.failed else DONE


def _defaults(sampling: SamplingArgs, lm: LM, earlier: BatchFacts | None) -> LineDefaults:
    """Return the settings of lines that name none; a run that goes on keeps its seed and its time."""
    defaults = defaults_of(sampling, lm, int(time.time()))
    if earlier is None:
        return defaults
    seed = earlier.seed if sampling.limits.get("seed") is None else defaults.seed
    return replace(defaults, seed=seed, created=earlier.created)


def _answering(
    model: BatchModel,
    ray: str | None,
    choice: ModelChoice,
    together: int,
    ids: CustomIds | None,
    say: Callable[[str], object],
) -> Answering | RayAnswering:
    """Return what answers the lines: this process, or the machines of a cluster."""
    if ray is not None:
        from pophood.batch.cluster.driver import RayAnswering
        from pophood.batch.cluster.nodes import RayModel

        place = RayModel.of(model.lm, choice.precision, choice.kv)
        return RayAnswering(ray, place, model, threads=choice.threads, together=together, ids=ids, say=say)
    from pophood.batch.answering import Answering

    return Answering(model, together=together, ids=ids)


def _answer(
    screen: BatchScreen,
    answering: Answering | RayAnswering,
    source: LineSource,
    answers: AnswerFile | AnswerStream,
) -> bool:
    """Answer all lines that are left, and return whether Ctrl-C ended that."""
    from pophood.errors import Cancelled

    try:
        with screen:
            for record in answering.records(source, screen.update):
                answers.write(record)
                screen.written(record)
    except (KeyboardInterrupt, Cancelled):
        return True
    return False
