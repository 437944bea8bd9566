"""Chat templates: turn messages into the text or the ids that the model was trained on.

A template is Jinja from the model's files, run in the sandbox of `sandbox.py` with the functions that
transformers provides. A special token counts only where the template writes it; the same characters in a
message stay text. To tell them apart, the rendered text records which of its characters come from a message
(`sourced.py`), invisibly to the template.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.errors import BadFile, BadInput, PophoodError, Unsupported, one_line
from pophood.formats.json_file import optional_json
from pophood.text.chat.messages import (
    REASONING,
    Messages,
    checked_messages,
    encodes_arguments,
    has_parts,
    parsed_arguments,
    renderings,
    sourced,
    sourced_messages,
    writes_parts,
)
from pophood.text.chat.omissions import Omission, omissions
from pophood.text.chat.template_tokens import join_pieces, pieces_of, special_places, spells_specials
from pophood.text.tokenizer import Tokenizer
from pophood.text.vocabulary import any_of

if TYPE_CHECKING:
    from pophood.text.chat.sandbox import ChatEnvironment

MOST_SOURCE = 128 << 10  # characters; the longest published templates have about 30,000
_RESERVED = frozenset({"messages", "add_generation_prompt"})  # set by the conversation
_PROBE = "pophood0system"


class ChatTemplate:
    """One chat template. `ChatTemplate(source).render([{"role": "user", "content": "Hi"}])`."""

    def __init__(
        self, source: str, bos: str = "", eos: str = "", *, names: Mapping[str, str] | None = None
    ) -> None:
        """`bos` and `eos` are the template's bos_token and eos_token; `names` has further named tokens."""
        if len(source) > MOST_SOURCE:
            raise BadFile(
                f"the chat template has {len(source):,} characters; at most {MOST_SOURCE:,} are read"
            )
        self.source = source
        self._names = {"bos_token": bos, "eos_token": eos, **(names or {})}
        self._compiled: tuple[ChatEnvironment, Any] | None = None
        self._lock = threading.Lock()

    def render(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """Render a conversation; with `add_generation_prompt` the text ends where the assistant begins.

        Further keywords (`tools`, `documents`, `enable_thinking`) are passed to the template. Raises
        Unsupported for a template that does something forbidden, BadInput for messages that it refuses, and
        BadFile for one that is broken or exceeds 2 s or 1 MiB.
        """
        return str.__str__(self.sourced(messages, add_generation_prompt=add_generation_prompt, **variables))

    def sourced(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """Render as `render` does, and return a `SourcedText`, which knows the source of every character.

        A list of text parts is passed to the template as a list if the template then writes the text of every
        part, otherwise as one text.
        """
        checked = checked_messages(messages)
        values = {"tools": None, "documents": None} | variables
        values["add_generation_prompt"] = add_generation_prompt
        plain = {
            key: value if key in self._names else sourced(value, (key,)) for key, value in values.items()
        }
        first: BadInput | None = None
        for form in renderings(checked):
            try:
                text = self._written(form, plain)
            except BadInput as error:
                first = first or error
                if isinstance(error, _Refused) and not has_parts(form):
                    break
                continue
            if not has_parts(form) or writes_parts(form, text):
                return text
        raise first or BadInput(
            "the chat template writes lists of text parts as lists: join them to one text"
        )

    def _written(self, messages: Messages, variables: Mapping[str, Any]) -> str:
        """Render messages, with the arguments of calls as objects if the template was made for those."""
        text = self._run(messages, variables)
        if encodes_arguments(messages, text):
            with suppress(BadInput):
                return self._run([parsed_arguments(message) for message in messages], variables)
        return text

    def _run(self, messages: Messages, variables: Mapping[str, Any]) -> str:
        environment, template = self._compile()
        values = {**self._names, **variables, "messages": sourced_messages(messages)}
        with _one_line_errors():
            return environment.run(template, values)

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of the variables that the template reads: messages, tools, enable_thinking and others."""
        with _one_line_errors():
            return _names_read(self.source)

    def check_variables(self, variables: Mapping[str, object]) -> None:
        """Raise BadInput for a variable that the template never reads, or that the conversation sets."""
        for name in variables:
            if name in _RESERVED:
                raise BadInput(f"the template variable {name!r} is set by the conversation: leave it out")
            if name not in self.variables:
                others = sorted(self.variables - _RESERVED - self._names.keys())
                reads = ", ".join(others) or "none"
                raise BadInput(f"the chat template reads no variable {name[:40]!r}; it reads {reads}")

    def end_marks(self) -> tuple[str, ...]:
        """Return the text written after an answer: `("<|im_end|>",)`, or () if there is none."""
        answer = "pophood0answer"
        turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
        try:
            text = self.render(turn, add_generation_prompt=False)
        except PophoodError:
            return ()  # it needs messages of another kind
        tail = text.rpartition(answer)[2].strip() if answer in text else ""
        return (tail,) if tail else ()

    def end_ids(self, specials: Mapping[int, str]) -> dict[int, str]:
        """Return the first special token of the end mark: `{2: "the chat template"}`."""
        ids = {text: id_ for id_, text in specials.items()}
        matches = (match for mark in self.end_marks() for match in any_of(ids).finditer(mark))
        return {ids[match[0]]: "the chat template" for match in [next(matches, None)] if match is not None}

    def _compile(self) -> tuple[ChatEnvironment, Any]:
        with self._lock, _one_line_errors():
            if self._compiled is None:
                self._compiled = _compile(self.source)
            return self._compiled


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation as the model reads it: the text of the template and its ids.

    `left_out` are sentences on what the template does not write, such as the name of a speaker.
    """

    text: str
    ids: list[int]
    left_out: tuple[str, ...] = ()


def chat_prompt(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> ChatPrompt:
    """Return a conversation as the model reads it, with special tokens only where the template wrote them.

    The tokenizer's start tokens are added unless the template wrote them. Raises BadInput if the template
    omits a message or a tool call altogether.
    Example: `chat_prompt(tokenizer, template, [{"role": "user", "content": "<|im_end|>"}]).ids` has the
    user's "<|im_end|>" as ordinary text.
    """
    text = template.sourced(messages, add_generation_prompt=add_generation_prompt, **variables)
    left_out = []
    for omission in omissions(messages, text):
        if omission.kind != "field":
            raise BadInput(f"the chat template writes {omission}: {_way_out(omission)}")
        if omission.name not in REASONING:  # templates drop past reasoning on purpose
            left_out.append(f"the chat template writes {omission}: the model does not see it")
    specials = tokenizer.specials
    plain = str.__str__(text)
    if spells_specials(text, special_places(text, specials), specials):
        ids = tokenizer.encode_parts(join_pieces(pieces_of(text, specials)))
    else:
        ids = tokenizer.encode(plain, parse_special=True, add_start=False)
    start = list(tokenizer.start_ids)
    return ChatPrompt(plain, ids if ids[: len(start)] == start else start + ids, tuple(left_out))


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> list[int]:
    """Return the ids of a conversation, as `chat_prompt`; it warns of what the template leaves out."""
    prompt = chat_prompt(
        tokenizer, template, messages, add_generation_prompt=add_generation_prompt, **variables
    )
    for sentence in prompt.left_out:
        warnings.warn(sentence, stacklevel=3)
    return prompt.ids


def _way_out(omission: Omission) -> str:
    if omission.kind == "call":
        return "remove the call, or use a model whose template supports tools"
    if omission.role in ("system", "developer"):
        return "remove it, or merge it into the first user message (--merge-system)"
    return "remove it"


def takes_system(template: ChatTemplate, **variables: Any) -> bool:
    """Return whether the template writes a system message; False if it refuses one or leaves it out.

    `variables` are passed to the template, as the conversation does (`enable_thinking=False`).
    Example: `takes_system(lm.chat_template)` is False for Gemma 2.
    """
    messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "Hi"}]
    try:
        return _PROBE in template.render(messages, **variables)
    except PophoodError:
        return False


def load_template_folder(
    folder: Path, names: Mapping[str, str], tokenizer_config: Mapping[str, Any] | None = None
) -> ChatTemplate | None:
    """Load the chat template of a folder; None if it has none (a completion model).

    `names` are the tokenizer's named tokens (`Tokenizer.names`); `tokenizer_config` is tokenizer_config.json,
    if it was read already.
    """
    source: object = None
    if (folder / "chat_template.jinja").is_file():
        data = (folder / "chat_template.jinja").read_bytes()[: 4 * MOST_SOURCE + 4]
        try:
            source = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadFile(f"chat_template.jinja is not UTF-8 at byte {error.start:,}") from error
    if source is None:
        source = optional_json(folder / "chat_template.json").get("chat_template")
    if source is None:
        config = (
            optional_json(folder / "tokenizer_config.json") if tokenizer_config is None else tokenizer_config
        )
        source = config.get("chat_template")
    return _template(source, names)


def load_template_gguf(metadata: Mapping[str, object], names: Mapping[str, str]) -> ChatTemplate | None:
    """Load the chat template from a GGUF file's metadata; None if it has none (a completion model)."""
    return _template(metadata.get("tokenizer.chat_template"), names)


def _template(source: object, names: Mapping[str, str]) -> ChatTemplate | None:
    if isinstance(source, list):  # several templates, each with a name
        entries = [entry for entry in source if isinstance(entry, dict)]
        by_name = {str(entry.get("name")): entry.get("template") for entry in entries}
        source = by_name.get("default", next(iter(by_name.values()), None))
    if source is None or source == "":
        return None
    if not isinstance(source, str):
        raise BadFile(f"the chat template is {type(source).__name__}, not text")
    return ChatTemplate(source, names=names)


def _names_read(source: str) -> frozenset[str]:
    """Return the variables that a template reads.

    A variable that the template also sets counts only if the template tests for it first.
    """
    from jinja2 import meta, nodes
    from jinja2.parser import Parser

    environment, _ = _compile(source)
    tree = Parser(environment, source).parse()
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    asked = {
        test.node.name
        for test in tree.find_all((nodes.Test, nodes.Filter))
        if test.name in ("defined", "undefined", "default", "d") and isinstance(test.node, nodes.Name)
    }
    return frozenset(meta.find_undeclared_variables(tree) - environment.globals.keys() - (own - asked))


class _Refused(BadInput):
    """Raised for messages that a template refuses by `raise_exception`."""


class _Refusal(Exception):
    """Raised inside a template by its function `raise_exception`."""


def _compile(source: str) -> tuple[ChatEnvironment, Any]:
    from pophood.text.chat.sandbox import ChatEnvironment

    environment = ChatEnvironment({"raise_exception": _raise, "strftime_now": _strftime_now}, _tojson)
    return environment, environment.from_string(source)


def _raise(message: object) -> None:
    raise _Refusal(str(message))


def _strftime_now(form: str) -> str:
    if len(form) > 100 or re.search(r"%[^A-Za-z%]", form):
        raise ValueError(f"the date format {form[:60]!r} is not understood")
    return datetime.now().strftime(form)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    if (isinstance(indent, int) and indent > 16) or (isinstance(indent, str) and len(indent) > 16):
        raise ValueError("tojson with an indent of more than 16")
    if separators is not None and any(len(text) > 16 for text in separators):
        raise ValueError("tojson with separators of more than 16 characters")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn whatever goes wrong in a part of a template into a one-line error of the right class."""
    from jinja2.exceptions import SecurityError, TemplateAssertionError, TemplateSyntaxError

    from pophood.text.chat.template_budget import LimitReached

    try:
        yield
    except PophoodError:
        raise
    except _Refusal as error:
        raise _Refused(f"the chat template refuses these messages: {one_line(error)}") from error
    except LimitReached as error:
        raise BadFile(f"the chat template was stopped: {one_line(error)}") from error
    except (SecurityError, TemplateAssertionError) as error:
        raise Unsupported(f"the chat template does something forbidden: {one_line(error)}") from error
    except TemplateSyntaxError as error:
        raise BadFile(f"the chat template has an error in line {error.lineno}: {one_line(error)}") from error
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise BadFile(f"the chat template is nested too deeply or calls itself: {one_line(error)}") from error
    except Exception as error:  # a template is a program; anything can go wrong in it
        raise BadInput(f"the chat template cannot render these messages: {one_line(error)}") from error
