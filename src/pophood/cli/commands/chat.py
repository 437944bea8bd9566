"""`pophood chat`: a conversation with a chat model, in the model's own chat format."""

from __future__ import annotations

import sys

import click

from pophood.cli.app import INTERRUPTED
from pophood.cli.options.grammar import grammar_options
from pophood.cli.options.prompt import read_prompt, template_arg_option, template_variables, with_piped
from pophood.cli.options.sampling import SamplingArgs, sampling_options
from pophood.cli.options.shared import ModelChoice, json_option, model_options, text_option, verb
from pophood.cli.screens.conversation import Conversation
from pophood.cli.session import open_model
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput


@verb()
@click.argument("question", required=False)
@text_option("--system", help="System text, which the model reads before the conversation.")
@text_option(
    "--merge-system",
    is_flag=True,
    help="Put the system text into the first message, for chat templates that take none.",
)
@text_option(
    "--no-loop-guard",
    is_flag=True,
    help="At a terminal, let an answer continue even if its last 200 tokens only repeat a shorter span.",
)
@template_arg_option
@json_option
@model_options
@sampling_options
@grammar_options
def chat_command(
    console: Console,
    question: str | None,
    system: str | None,
    merge_system: bool,
    no_loop_guard: bool,
    template_args: tuple[str, ...],
    as_json: bool,
    choice: ModelChoice,
    sampling: SamplingArgs,
) -> int:
    """Talk with a chat model.

    With a QUESTION (- reads it from stdin), the model answers once; piped text goes before the QUESTION,
    separated by a blank line. Without one, every line of input is a turn, and /help lists the commands:
    /system, /reset, /save and others. To write several lines, put them between two lines of three quotes, or
    end each line but the last with a backslash.

    Example: pophood chat "What is the capital of Japan?" --greedy

    Example: echo "Its name is Madrid." | pophood chat "Which city is named in this text?"

    Example: pophood chat "Why is the sky blue?" -m MODEL --template-arg enable_thinking=false
    """
    if as_json and question is None:
        raise click.UsageError("--json prints one answer: give a QUESTION (- reads it from stdin)")
    if question is not None:
        _refuse_idle(system, merge_system, no_loop_guard)
    sampling.check()
    variables = template_variables(template_args)
    prompt = None if question is None else read_prompt(question, None)
    lm = open_model(console, choice, chat=True)
    if lm.chat_template is None:
        raise BadInput(
            f"{lm.name} is a completion model: its files have no chat template. Continue a text with "
            f'`pophood run "..."`, or chat with `pophood chat -m smollm2`'
        )
    lm.chat_template.check_variables(variables)
    talk = Conversation(console, lm, sampling, system, merge_system, not no_loop_guard, as_json, variables)
    if prompt is not None:
        prompt = with_piped(console, prompt)
        prompt.ids(lm.bundle.tokenizer, console)  # raises for input that is not UTF-8
        finished = talk.answer(prompt.text)
        if as_json:
            console.json(finished.as_dict(lm, "") | {"messages": talk.messages})
        return INTERRUPTED if finished.interrupted else 0
    return talk.loop(sys.stdin)


def _refuse_idle(system: str | None, merge_system: bool, no_loop_guard: bool) -> None:
    """Raise UsageError for options that have no effect on a single question."""
    if merge_system and system is None:
        raise click.UsageError("--merge-system says where the system text goes: add --system TEXT")
    if no_loop_guard:
        raise click.UsageError(
            "--no-loop-guard is for conversations at a terminal; a single answer is never stopped for loops"
        )
