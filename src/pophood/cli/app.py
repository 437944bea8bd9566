"""The `pophood` command: runs a subcommand and turns its exceptions into one-line messages and exit codes.

Subcommands are imported only when they are called, so that `pophood --help` is fast.
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from pophood.cli.terminal.console import Console, close_quietly, one_line, prepare_streams
from pophood.errors import BadInput, Cancelled, PophoodError

# Command -> its line in the list of commands. A test checks that it is the first sentence of its own help.
VERBS = {
    "run": "Continue a text, token by token.",
    "chat": "Talk with a chat model.",
    "batch": "Answer a file of prompts, one on each line.",
    "serve": "Serve a model to other programs on this machine.",
    "studio": "Open a page in the browser: chat, look inside, tune.",
    "play": "Guess the next word of a text, against the model.",
    "look": "Look inside a model while it reads a text.",
    "export": "Export a model for other programs, and verify the result.",
    "tune": "Fine-tune a model on your text.",
    "eval": "Measure how well a model predicts your text.",
    "bench": "Measure how fast a model runs on this machine.",
    "pull": "Download a model.",
    "list": "List the models on this machine.",
    "use": "Set the default model, for commands that name none.",
    "show": "Show the facts and figures of a model.",
    "rm": "Delete a model.",
    "doctor": "Check this machine, and suggest what to fix.",
    "demo": "Show in ten seconds what a language model does.",
    "talk": "Take the course: the talk, page by page, live from the model.",
    "kit": "Make a folder that sets up laptops without a network.",
}

# The chat examples' question. The small model answers it correctly, as tests/real/test_smollm2.py checks.
QUESTION = "What is the capital of Japan?"

DONE, FAILED, USAGE_ERROR, INTERRUPTED = 0, 1, 2, 130


class LateGroup(click.Group):
    """A click group whose command NAME is the function `NAME_command` of the module `package`.NAME.

    `verbs` maps a command to its line in the list of commands; a test checks that it is the first sentence
    of the command's own help. `modules` names the modules of commands that share one.
    """

    verbs: Mapping[str, str] = {}
    modules: Mapping[str, str] = {}
    package = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        module = importlib.import_module(f"{self.package}.{self.modules.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in self.verbs:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=list(self.verbs), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))


class Verbs(LateGroup):
    """The group of all `pophood` commands."""

    verbs = VERBS
    modules = dict.fromkeys(("pull", "list", "use", "rm"), "store")
    package = "pophood.cli.commands"

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run a command line and call `sys.exit` with 0, 1, 2 or 130."""
        prepare_streams()
        extra["standalone_mode"] = False
        try:
            result = super().main(args=args, prog_name=prog_name or "pophood", **extra)
            sys.stdout.flush()
        except BaseException as error:
            sys.exit(report(error, list(sys.argv[1:] if args is None else args)))
        sys.exit(result if isinstance(result, int) else DONE)


def report(error: BaseException, args: list[str]) -> int:
    """Print why the command ended as one line on stderr, and return the exit code."""
    code, words = explain(error)
    if code == FAILED and words is None and not isinstance(error, SystemExit | OSError):
        if "-v" in args or "--verbose" in args:
            import traceback

            traceback.print_exception(error)
        kind = f"{type(error).__name__}: {error}"
        words = f"a bug in pophood, please report it: {kind} (-v shows where)"
    if isinstance(error, OSError) and error.filename is None:
        close_quietly()  # stdout itself may have failed, and Python would try to flush it again at exit
    if words and not (isinstance(error, OSError) and error.errno == errno.EPIPE):
        Console().say(f"pophood: {one_line(words)}")
    return code


def explain(error: BaseException) -> tuple[int, str | None]:
    """Return the exit code and the message for an exception that ended a command.

    The message is None for an exception that is not reported, and for a bug in pophood.
    """
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else FAILED if error.code else DONE), None
    if isinstance(error, KeyboardInterrupt | click.Abort | Cancelled):
        return INTERRUPTED, None
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, None
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "pophood"
        return error.exit_code, f"{_sentence(error.format_message())} See `{path} --help`"
    if isinstance(error, PophoodError):
        return (USAGE_ERROR if isinstance(error, BadInput) else FAILED), str(error)
    if isinstance(error, MemoryError):
        return FAILED, "out of memory: close other programs, or use a smaller model or --context"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return FAILED, f"{place}{error.strerror or error}"
    return FAILED, None


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


@click.command(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pophood", message="pophood %(version)s", help="Print the version.")
@click.pass_context
def pophood(ctx: click.Context) -> None:
    """Run a language model on this computer, and look inside it.

    Example: pophood run "The capital of Spain is"
    """
    if ctx.invoked_subcommand is None:
        _welcome(Console())


def _welcome(console: Console) -> None:
    """Print the default model and five commands in at most twelve lines; loads and downloads nothing."""
    from importlib.metadata import version

    from pophood import hub

    choice = hub.default_choice()
    here = f"Model here: {choice.name} ({choice.why})" if choice else "No model here yet; run downloads one."
    examples = {
        "pophood demo": "what a language model does, in ten seconds",
        'pophood run "The capital of Spain is"': "continue a text",
        "pophood chat": "talk with a chat model",
        "pophood show": "facts and figures of the model",
        "pophood doctor": "is this machine ready?",
    }
    console.out(f"pophood {version('pophood')}: run a language model on this computer, and look inside it")
    console.out(f"{here}\n")
    for example, words in examples.items():
        console.out(f"  {example:<39} {words}")
    console.out("\nAll commands: pophood --help")
