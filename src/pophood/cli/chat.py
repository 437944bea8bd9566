"""`pophood chat`: talk with a chat model in its own format."""

from __future__ import annotations

import sys

import click

from pophood.cli.app import INTERRUPTED
from pophood.cli.console import Console
from pophood.cli.conversation import Conversation
from pophood.cli.options import ModelChoice, json_option, model_options, option, verb
from pophood.cli.prompt import read_prompt, with_piped
from pophood.cli.sampling_options import Wishes, sampling_options
from pophood.cli.session import open_model
from pophood.errors import BadInput


@verb()
@click.argument("question", required=False)
@option("--system", metavar="TEXT", section="Text", help="What the model is told before the conversation.")
@json_option
@model_options
@sampling_options
def command(
    console: Console,
    question: str | None,
    system: str | None,
    as_json: bool,
    choice: ModelChoice,
    wishes: Wishes,
) -> int:
    """Talk with a chat model.

    With a QUESTION (- reads it from stdin) it answers once; text that is piped to it comes first, then a
    blank line, then the QUESTION. Without, every line of input is a turn; /help lists the commands: /system,
    /reset, /save and others. A message of several lines stands between two lines of three quotes, or has a
    backslash at the end of each line but the last.

    Example: pophood chat "What is the capital of Spain?"

    Example: printf 'Its name is Madrid.\n' | pophood chat "Which city is named in this text?"
    """
    if as_json and question is None:
        raise click.UsageError("--json prints one answer: give a QUESTION (- reads it from stdin)")
    wishes.check()
    asked = None if question is None else read_prompt(question, None)
    lm = open_model(console, choice, chat=True)
    if lm.chat_template is None:
        raise BadInput(
            f"{lm.name} is a completion model: its files have no chat template. Continue a text with "
            f'`pophood run "..."`, or chat with `pophood chat -m smollm2`'
        )
    talk = Conversation(console, lm, wishes, system=system, silent=as_json)
    if asked is not None:
        asked = with_piped(console, asked)
        asked.ids(lm.bundle.tokenizer, console)  # refuses what is not UTF-8
        finished = talk.answer(asked.text)
        if as_json:
            console.json(finished.as_dict(lm, "") | {"messages": talk.messages})
        return INTERRUPTED if finished.interrupted else 0
    return talk.loop(sys.stdin)
