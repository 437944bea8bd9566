"""A conversation at a terminal or through a pipe: its history, its commands, its turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pophood.cli.app import DONE, INTERRUPTED
from pophood.cli.console import Console
from pophood.cli.generation import Finished, generate, settings_of
from pophood.cli.outputs import Outputs, completion
from pophood.errors import BadInput, ContextOverflow
from pophood.plaintext import LineReader

if TYPE_CHECKING:
    from pophood.cli.sampling_options import Wishes
    from pophood.lm import LM

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'

HELP = """\
/system TEXT   tell the model something before the conversation (/system alone shows it)
/reset         forget the conversation, keep the system text
/save FILE     write the conversation: .json for programs, any other name as text
/help          this list
/exit          leave (Ctrl-D does too); Ctrl-C stops an answer
//...          a message that begins with one slash
\"\"\"            begins and ends a message of several lines; a line ending in \\ goes on in the next"""


class Conversation:
    """Messages so far, and what can be done with them."""

    def __init__(
        self, console: Console, lm: LM, wishes: Wishes, *, system: str | None = None, silent: bool = False
    ) -> None:
        self.messages: list[dict[str, str]] = []
        self._console = console
        self._lm = lm
        self._wishes = wishes
        self._silent = silent
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/system": self.system,
            "/reset": self.reset,
            "/save": self.save,
            "/help": lambda _: self._console.out(HELP),
        }
        if system is not None:
            self._set_system(system)

    def answer(self, question: str) -> Finished:
        """Send one message and show the answer, which joins the history as far as it came."""
        self.messages.append({"role": "user", "content": question})
        outputs = None
        try:
            run = self._lm.chat(self.messages, **settings_of(self._wishes, self._lm))
            self._console.detail(
                f"as the model reads it:\n{self._lm.detokenize(run.prompt_ids, special=True)}"
            )
            outputs = Outputs(self._console, "", 1, silent=self._silent)
            finished = generate(self._console, run, outputs)
        except BaseException:
            if outputs is None or not outputs.count:
                self.messages.pop()
            raise
        self.messages.append({"role": "assistant", "content": completion(finished.outputs[0])})
        used = len(finished.prompt_ids) + finished.count
        window = f"{used:,} of {self._lm.engine.context:,} tokens of context"
        self._console.say(f"[{finished.summary()}; {window}]")
        return finished

    def loop(self, stream: TextIO) -> int:
        """Take turns until the input ends; the exit code."""
        read = Reader(stream, self._console)
        while True:
            try:
                message = read.message()
            except KeyboardInterrupt:
                self._console.out()
                return INTERRUPTED
            if message is None or message.strip() in ("/exit", "/quit", "/bye"):
                return DONE
            try:
                finished = self._turn(message)
            except KeyboardInterrupt:  # before the first token
                self._console.say("stopped; that message is forgotten")
                finished = None
                if not read.interactive:
                    return INTERRUPTED
            except ContextOverflow as error:
                counts = f"{error.got:,} tokens, and the context window holds {error.limit:,}"
                since = f", since {error.why}" if error.why else ""
                self._console.say(f"pophood: the conversation has {counts}{since}: /reset begins anew")
                continue
            except BadInput as error:
                self._console.say(f"pophood: {error}")
                continue
            if finished is not None and finished.interrupted and not read.interactive:
                return INTERRUPTED

    def _turn(self, message: str) -> Finished | None:
        if message.startswith("//"):
            message = message[1:]
        elif message.startswith("/"):
            name, _, rest = message.partition(" ")
            if name not in self._commands:
                raise BadInput(f"{name} is no command: /help lists them; // begins a message with a slash")
            self._commands[name](rest.strip())
            return None
        return self.answer(message) if message.strip() else None

    def system(self, text: str) -> None:
        """Set the system text, or show it."""
        if text:
            self._set_system(text)
            self._console.say("the system text holds from the next message on")
        else:
            first = self.messages[:1]
            shown = first[0]["content"] if first and first[0]["role"] == "system" else None
            self._console.out(shown or "(none: what the model's template puts there holds)")

    def _set_system(self, text: str) -> None:
        if self.messages and self.messages[0]["role"] == "system":
            self.messages.pop(0)
        self.messages.insert(0, {"role": "system", "content": text})

    def reset(self, _: str) -> None:
        """Forget everything but the system text."""
        self.messages = [message for message in self.messages[:1] if message["role"] == "system"]
        self._console.say("forgotten; the next message begins a new conversation")

    def save(self, name: str) -> None:
        """Write the conversation to a file, never over a file that this conversation did not write."""
        from pophood.system import atomic_write, check_writable_target

        if not name:
            raise BadInput("/save wants a file name, as in /save talk.json")
        path = Path(name).expanduser()
        check_writable_target(path)
        if path.exists() and path not in self._saved:
            raise BadInput(f"{path} exists already: choose another name")
        if path.suffix == ".json":
            content = json.dumps({"model": self._lm.name, "messages": self.messages}, indent=2)
        else:
            content = "\n\n".join(f"{m['role']}:\n{m['content']}" for m in self.messages)
        atomic_write(path, (content + "\n").encode("utf-8", "backslashreplace"))
        self._saved.add(path)
        self._console.say(f"saved {len(self.messages)} messages to {path}")


class Reader:
    """Messages from a terminal (with a prompt and line editing) or from a pipe (a line each, no prompt)."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        self.interactive = stream.isatty()
        self._stream = stream
        self._lines = LineReader(stream.buffer)
        self._console = console
        if self.interactive:
            with suppress(ImportError):  # Windows has its own line editing
                import readline  # noqa: F401

            console.say("/help lists commands, Ctrl-D leaves")

    def message(self) -> str | None:
        """The next message, its lines joined; None at the end of the input."""
        line = self._line(PROMPT)
        if line is None:
            return None
        if line.lstrip().startswith(QUOTES):
            return self._quoted(line.lstrip()[len(QUOTES) :])
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            more = self._line(MORE)
            if more is None:
                break
            lines.append(more)
        return "\n".join(lines)

    def _quoted(self, first: str) -> str:
        lines = []
        line: str | None = first
        while line is not None:
            head, end, _ = line.partition(QUOTES)
            lines.append(head)
            if end:
                break
            line = self._line(MORE)
        return "\n".join(lines).strip("\n")

    def _line(self, prompt: str) -> str | None:
        if self.interactive and self._stream is sys.stdin and sys.stdout.isatty():
            try:
                return input(prompt)
            except EOFError:
                self._console.out()
                return None
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        # UTF-8, whatever the console speaks; other bytes become surrogates, which the tokenizer refuses.
        return self._lines.line("surrogateescape")
