"""`pophood tune notes.txt`: fine-tune a model on a text, and report the result."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.app import DONE
from pophood.cli.options.shared import ModelChoice, json_option, model_options, output_option, verb
from pophood.cli.options.tune import TuneArgs, tune_options
from pophood.cli.screens.tune import Screen, card_text, data_lines, plan_text, show_examples
from pophood.cli.session import open_model, this_command
from pophood.cli.terminal.console import QUIET, Console
from pophood.cli.terminal.progress import Waiting
from pophood.errors import Cancelled
from pophood.system.programs import announced
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.torch_install import require_torch

if TYPE_CHECKING:
    from pophood.train.report.report_card import Card
    from pophood.train.run.new_model import NewModel
    from pophood.train.run.stopping import Stop
    from pophood.train.tune import Tuning


def _check(
    args: TuneArgs,
    choice: ModelChoice,
    resume: bool,
    overwrite: bool,
    plan: bool,
    showing: bool,
    prompts: tuple[str, ...],
) -> None:
    """Raise UsageError for contradictory options before a model is loaded."""
    if plan and showing:
        raise click.UsageError("--plan shows the cost of a run, --show what it reads: give only one")
    if resume and prompts:
        raise click.UsageError("--resume keeps the run's prompts: leave out --prompt")
    args.check_scratch(choice.name, bool(choice.adapters))
    if not resume:
        args.check_method()
    if resume and overwrite:
        raise click.UsageError("--resume continues a run, --overwrite starts it anew: give one")
    if resume:
        args.check_resume()
    ProcessGroup.from_environment().check_shard(args.shard)
    if not showing:
        require_torch()


def _check_target(out: Path, *, new: bool, overwrite: bool) -> None:
    """Raise BadInput for a folder that a new run cannot have, before a model is downloaded or loaded."""
    from pophood.train.run.folder import RunFolder

    if new:
        RunFolder(out, ProcessGroup.from_environment().join()).check_free(overwrite=overwrite)


@verb()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the result (default: ./NAME-METHOD, ./NAME-scratch).",
)
@output_option("--plan", is_flag=True, help="Print what the run would cost on this machine, and exit.")
@output_option(
    "--show", "showing", is_flag=True, help="Show which tokens of some examples are learned, and exit."
)
@output_option("--resume", is_flag=True, help="Continue a run that was stopped.")
@output_option("--overwrite", is_flag=True, help="Replace the run that is in the folder.")
@output_option(
    "--prompt",
    "prompts",
    multiple=True,
    help="Sample from this text during the run (default: two from the data); repeatable.",
)
@output_option(
    "--lens", is_flag=True, help="Show what each block would say after the prompts as the model learns."
)
@output_option("--tensorboard", is_flag=True, help="Also write an event file for TensorBoard.")
@json_option
@tune_options
@functools.partial(model_options, precision=None)
def tune_command(
    console: Console,
    data: tuple[Path, ...],
    out: Path | None,
    plan: bool,
    showing: bool,
    resume: bool,
    overwrite: bool,
    prompts: tuple[str, ...],
    lens: bool,
    tensorboard: bool,
    as_json: bool,
    args: TuneArgs,
    choice: ModelChoice,
) -> int:
    """Fine-tune a model on your text.

    DATA are text files, folders, JSONL (text, prompt and completion, messages, Alpaca, ShareGPT) or CSV. By
    default a LoRA adapter is trained for five minutes and written to a folder that `pophood run --adapter`
    and PEFT open. Ctrl-C stops early and keeps the weights so far; --resume continues.

    Example: pophood tune notes.txt --minutes 5

    Example: pophood tune chats.jsonl --show

    Example: pophood tune notes.txt --from-scratch gpt2-tiny
    """
    _check(args, choice, resume, overwrite, plan, showing, prompts)
    settings, reading = args.train_settings(), args.data_options()
    from pophood.train.run.stopping import Stop
    from pophood.train.tune import Tuning, default_out

    console, stop = console if ProcessGroup.from_environment().is_rank_zero else Console(QUIET), Stop()
    out = out or Path(default_out(data, args.kind))
    _check_target(out, new=not (showing or resume), overwrite=overwrite or plan)
    scratch = _scratch(console, data, out, args, choice, resume)
    lm = scratch.lm if scratch is not None else open_model(console, choice)
    if showing:
        return show_examples(console, lm, data, settings, reading, as_json)
    with Waiting(console, "reading the data") as waiting:
        tuning = Tuning(
            scratch or lm,
            data,
            out,
            None if resume and "minutes" not in args.settings else settings,
            reading,
            prompts=prompts,
            resume=resume,
            overwrite=overwrite or plan,
            tensorboard=tensorboard and not plan,
            lens=lens,
            should_stop=stop,
            shard=args.shard,
            progress=lambda state: waiting(state.done, state.total),
        )
    _report_data(console, tuning, args.settings.get("method") if resume else None)
    if plan:
        return _plan(console, tuning, as_json)
    with stop:
        return _run(console, tuning, stop, as_json)


def _report_data(console: Console, tuning: Tuning, method: str | None) -> None:
    """Print messages and the report on the data; refuse a `method` that differs from the resumed run's."""
    if method not in (None, tuning.settings.method):
        raise click.UsageError(
            f"the run in {tuning.out} has --method {tuning.settings.method} and keeps it: leave out --method"
        )
    for line in (*tuning.messages, *data_lines(tuning.data.report)):
        console.say(line)


def _scratch(
    console: Console, data: tuple[Path, ...], out: Path, args: TuneArgs, choice: ModelChoice, resume: bool
) -> NewModel | None:
    """Return the new model of a run from scratch, started or resumed; None for a run on an existing model."""
    from pophood.train.run.new_model import new_model_for

    seed = {"seed": args.settings["seed"]} if "seed" in args.settings else {}
    with Waiting(console, "making the vocabulary"):
        scratch = new_model_for(
            data,
            out,
            args.from_scratch,
            resume=resume,
            vocabulary=args.vocabulary,
            data=args.data_options(),
            precision=choice.precision,
            threads=choice.threads,
            context=choice.context,
            **seed,
        )
    if scratch is not None:
        config = scratch.lm.config
        console.say(
            f"{scratch.lm.name}: {config.n_params:,} parameters, a vocabulary of {config.vocab_size:,} tokens"
        )
    return scratch


def _plan(console: Console, tuning: Tuning, as_json: bool) -> int:
    console.say("calibrating: timing a few steps, whose results are dropped")
    _, plan = tuning.calibrate()
    for note in tuning.later_messages:
        console.say(note)
    if not tuning.group.is_rank_zero:
        return DONE
    console.result(plan.as_dict(), plan_text(plan, tuning.settings), as_json=as_json)
    return DONE


def _run(console: Console, tuning: Tuning, stop: Stop, as_json: bool) -> int:
    try:
        with announced("tune"), Screen(console, tuning) as screen:  # `pophood serve` leaves it a thread
            stop.announce = screen.stopping
            for event in tuning:
                screen.show(event)
    except Cancelled as stopped:
        console.say(str(stopped))
        return stop.exit_code
    card = tuning.card
    if card is None:  # with several processes only rank 0 has it
        return stop.exit_code
    console.result(card.as_dict(), f"{card_text(card)}\n{_next(tuning, card)}", as_json=as_json)
    return stop.exit_code


def _next(tuning: Tuning, card: Card) -> str:
    """Return the place of the result, and commands that use it, as text."""
    commands = [f"  {command.line(this_command())}" for command in card.commands]
    place = f"Written to {tuning.out} (report.html, loss.svg, events.jsonl)"
    return "\n".join([place, "Try next:", *commands])
