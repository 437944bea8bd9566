"""A conversation at a terminal or through a pipe: its history, commands and turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pophood.cli.app import DONE, FAILED, INTERRUPTED
from pophood.cli.screens.generation import (
    WINDOW,
    LoopGuard,
    RunResult,
    adapter_facts,
    generate,
    settings_of,
)
from pophood.cli.terminal.answers import Reader
from pophood.cli.terminal.console import Console, typing_kept
from pophood.cli.terminal.outputs import Outputs, completion
from pophood.cli.terminal.tables import count
from pophood.errors import BadInput, ContextOverflow, PophoodError
from pophood.text.chat.thoughts import opened_thought

if TYPE_CHECKING:
    from pophood.cli.options.sampling import SamplingArgs
    from pophood.model.lm import LM

HELP = """\
/system TEXT   tell the model something before the conversation; /system alone clears it
/show          the conversation so far, with the system text
/reset         forget the conversation, keep the system text
/save FILE     write the conversation: .json for programs, any other name as text
/help          this list
/exit          leave (Ctrl-D does too); Ctrl-C stops an answer, or clears a line; twice it leaves
//...          a message that begins with one slash
\"\"\"            begins and ends a message of several lines; a line ending in \\ goes on in the next"""


@dataclass
class Conversation:
    """A conversation with one model: the messages so far, and the commands that act on them."""

    console: Console
    lm: LM
    sampling: SamplingArgs
    system_text: InitVar[str | None]
    merge_system: bool  # the system text goes before the first user message
    loop_guard: bool  # at a terminal, stop an answer that goes in circles
    silent: bool  # do not print the answers
    template: Mapping[str, Any]  # variables of the chat template
    messages: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self, system_text: str | None) -> None:
        self._reader: Reader | None = None
        self._opened = ""  # the opening tag of a thought with which the prompt ends
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/system": self.system,
            "/show": self.show,
            "/reset": self.reset,
            "/save": self.save,
            "/help": lambda _: self.console.out(HELP),
        }
        if system_text is not None:
            self._set_system(system_text)

    def answer(self, question: str) -> RunResult:
        """Send one message and show the answer. The part of an interrupted answer joins the history."""
        self.messages.append({"role": "user", "content": question})
        outputs = None
        try:
            settings = settings_of(self.sampling, self.lm)
            run = self.lm.chat(self._for_template(), template=self.template, **settings)
            prompt = self.lm.detokenize(run.prompt_ids, special=True)
            self.console.detail(f"as the model reads it:\n{prompt}")
            self._opened = prompt[prompt.rindex(tag) :] if (tag := opened_thought(prompt)) else ""
            outputs = Outputs(self.console, self._opened, 1, silent=self.silent)
            with typing_kept(sys.stdin):
                finished = generate(self.console, run, outputs, self._guard())
        except BaseException:
            if outputs is None or not outputs.count:
                self.messages.pop()
            else:
                self._remember(outputs)
            raise
        self._remember(outputs)
        used = len(finished.prompt_ids) + finished.count
        window = f"{used:,} of {count(self.lm.engine.context, 'token')} of context"
        self.console.say(f"[{finished.summary()}; {window}]")
        if finished.loop is not None:
            self.console.say(
                f"stopped: the last {WINDOW} tokens only repeat the same {count(finished.loop, 'token')} "
                "(chat --no-loop-guard lets answers continue)"
            )
        return finished

    def _for_template(self) -> list[dict[str, str]]:
        """Return the messages in the form that goes to the template."""
        if not self.merge_system:
            return self.messages
        from pophood.text.chat.messages import merge_system

        return merge_system(self.messages)

    def _guard(self) -> LoopGuard | None:
        """Return a loop guard at a terminal only: a program may want repetitive text."""
        watched = self.loop_guard and self._reader is not None and self._reader.interactive
        return LoopGuard() if watched else None

    def _remember(self, outputs: Outputs) -> None:
        answer = self._opened + completion(outputs.tokens[0])
        self.messages.append({"role": "assistant", "content": answer})

    def loop(self, stream: TextIO) -> int:
        """Take turns until the input ends. Return the exit code: FAILED if a turn failed in a pipe."""
        read = self._reader = Reader(stream, self.console)
        failed = leaving = False
        while True:
            try:
                message = read.message()
            except KeyboardInterrupt:
                self.console.out()
                empty = not read.half_typed
                if not read.interactive or (leaving and empty):
                    return INTERRUPTED
                if empty:
                    self.console.say(self._how_to_leave())
                leaving = empty
                continue
            leaving = False
            if message is None or message.strip() in ("/exit", "/quit", "/bye"):
                return FAILED if failed and not read.interactive else DONE
            try:
                finished = self._turn(message)
            except KeyboardInterrupt:  # before the first token
                self.console.say("stopped; that message is forgotten")
                finished = None
                if not read.interactive:
                    return INTERRUPTED
            except PophoodError as error:  # an error must not lose the conversation so far
                self.console.say(f"pophood: {_in_a_chat(error)}")
                failed = True
                continue
            if finished is not None and finished.interrupted and not read.interactive:
                return INTERRUPTED

    def _how_to_leave(self) -> str:
        unsaved = "; /save FILE writes the conversation first" if self.messages else ""
        return f"Ctrl-C again leaves, as Ctrl-D and /exit do{unsaved}"

    def _turn(self, message: str) -> RunResult | None:
        if message.startswith("//"):
            message = message[1:]
        elif message.startswith("/"):
            name, _, rest = message.partition(" ")
            if name not in self._commands:
                raise BadInput(f"{name} is not a command: /help lists them; // begins a message with a slash")
            self._commands[name](rest.strip())
            return None
        return self.answer(message) if message.strip() else None

    # ---- commands ----

    def system(self, text: str) -> None:
        """Set the system text, or clear it."""
        if text:
            self._set_system(text)
            self.console.say("the system text applies from the next message on")
            return
        before = self._take_system()
        self.console.say(
            "there is no system text: the default of the model's template applies"
            if before is None
            else f"the system text is cleared; it was: {before}"
        )

    def _take_system(self) -> str | None:
        """Remove the system text from the messages and return it; None if there is none."""
        there = bool(self.messages) and self.messages[0]["role"] == "system"
        return self.messages.pop(0)["content"] if there else None

    def _set_system(self, text: str) -> None:
        if not self.merge_system and _leaves_out_system(self.lm, self.template):
            raise BadInput(
                f"the chat template of {self.lm.name} takes no system text, so it is not used: "
                "--merge-system puts it before the first user message"
            )
        self._take_system()
        self.messages.insert(0, {"role": "system", "content": text})

    def show(self, _: str) -> None:
        """Print the conversation."""
        self.console.out(self._as_text() or "(nothing yet)")

    def reset(self, _: str) -> None:
        """Forget everything but the system text."""
        self.messages = [message for message in self.messages[:1] if message["role"] == "system"]
        self.console.say("forgotten; the next message begins a new conversation")

    def save(self, name: str) -> None:
        """Write the conversation to a file. Replacing a file that it did not write needs confirmation."""
        from pophood.system import atomic_write, check_writable_target

        if not name:
            raise BadInput("/save wants a file name, as in /save talk.json")
        path = Path(name).expanduser()
        check_writable_target(path)
        if path.exists() and path not in self._saved and not self._may_replace(path):
            self.console.say(f"{path} is kept; the conversation is not saved")
            return
        if path.suffix == ".json":
            facts = {"model": self.lm.name, "adapters": adapter_facts(self.lm), "messages": self.messages}
            content = json.dumps(facts, indent=2)
        else:
            content = self._as_text()
        try:
            atomic_write(path, (content + "\n").encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise PophoodError(f"{path}: cannot be written ({error.strerror}): name another place") from None
        self._saved.add(path)
        self.console.say(f"saved {count(len(self.messages), 'message')} to {path}")

    def _may_replace(self, path: Path) -> bool:
        if self._reader is None or not self._reader.interactive:
            raise BadInput(f"{path} exists already: choose another name")
        answer = self._reader.ask(f"{path} exists already. Overwrite it? [y/N] ")
        return (answer or "").strip().lower() in ("y", "yes")

    def _as_text(self) -> str:
        return "\n\n".join(f"{m['role']}:\n{m['content']}" for m in self.messages)


def _leaves_out_system(lm: LM, variables: Mapping[str, Any]) -> bool:
    """Return True if the model's template accepts a user message but no system message."""
    from pophood.text.chat.chat_template import takes_system

    template = lm.chat_template
    if template is None or takes_system(template, **variables):
        return False
    with suppress(PophoodError):
        template.render([{"role": "user", "content": "Hi"}], **variables)
        return True
    return False


def _in_a_chat(error: PophoodError) -> str:
    """Return a one-line error message, with the advice that applies in a conversation."""
    if isinstance(error, ContextOverflow):
        counts = f"{error.got:,} tokens, and the context window holds {error.limit:,}"
        since = f", since {error.why}" if error.why else ""
        return f"the conversation has {counts}{since}: /reset starts a new one"
    return str(error)
