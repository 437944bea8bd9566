"""The grammars of answers that must call functions, or may: in the format of the template, by llguidance.

    forced                        start: calls
    free, with a JSON schema      start: calls | answer
    free, with strict functions   start: text (call text)*

An answer that may call functions, none of them strict, has no grammar: what it has of calls is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pophood.errors import BadInput, PophoodError, one_line, quoted
from pophood.generate import GenerateSettings
from pophood.grammar import Grammar
from pophood.grammar.matching import JSON_FORM
from pophood.openai.errors import ApiError, invalid, of_pophood
from pophood.openai.model import ServedModel
from pophood.openai.tools.formats import ARGS
from pophood.openai.tools.toolset import FunctionTool, Toolset
from pophood.text.tokenizer import Tokenizer

_BETWEEN = {"tagged": "\n", "list": ", ", "named": "", "bare": "; "}
_SPECIAL = r"\.+*?()|[]{}^$/"  # letters that a regular expression of llguidance does not take as they are


def with_tools(settings: GenerateSettings, tools: Toolset, served: ServedModel) -> GenerateSettings:
    """Return the settings of an answer that may, or must, call functions.

    The marks of calls are shown in its text, for the parser. Raises ApiError, which names the function whose
    schema is refused, with llguidance's words.
    """
    marks = (served.tokenizer.id_of(mark) for mark in tools.form.marks)
    shown = (*settings.shown, *(id_ for id_ in marks if id_ in served.tokenizer.specials))
    settings = replace(settings, shown=tuple(dict.fromkeys(shown)))
    answer = settings.grammar
    if tools.forced and answer is not None:
        message = "tool_choice wants a call, and another field says which form the answer has: give one"
        raise invalid(message, "tool_choice")
    if not tools.forced and not _restricts(answer, tools, served):
        return settings
    try:
        grammar = CallGrammar(tools, served.tokenizer).grammar(answer, settings.shown)
        served.compile(grammar)
    except PophoodError as error:
        raise _refused(error, tools.functions, served) from error
    return replace(settings, grammar=grammar)


def _restricts(answer: Grammar | None, tools: Toolset, served: ServedModel) -> bool:
    """Return whether an answer that may call functions has a grammar with calls in it."""
    if answer is not None:
        return answer.kind == "json_schema"
    return tools.strict and _can_find_calls(tools, served)


def _can_find_calls(tools: Toolset, served: ServedModel) -> bool:
    """Return whether a grammar knows where calls begin in free text: at a token, or at the beginning."""
    return tools.form.style == "bare" or served.tokenizer.id_of(tools.form.opens) is not None


def unenforced(tools: Toolset, settings: GenerateSettings, served: ServedModel) -> tuple[str, ...]:
    """Return sentences on what of a request is not enforced."""
    if tools.forced or not tools.strict or settings.grammar is not None or _can_find_calls(tools, served):
        return ()
    mark = quoted(tools.form.opens)
    return (f"strict functions are not enforced: {mark}, which begins a call, is no token of this model",)


class CallGrammar:
    """Writes the grammar of a request in llguidance's notation."""

    def __init__(self, tools: Toolset, tokenizer: Tokenizer) -> None:
        self._tools, self._form, self._tokenizer = tools, tools.form, tokenizer

    def grammar(self, answer: Grammar | None = None, shown: Sequence[int] = ()) -> Grammar:
        """Return the grammar; `answer` is a JSON schema that an answer without calls matches.

        `shown` are special tokens that free text may have. Raises BadInput for one that is too long.
        """
        if self._tools.forced:
            start = ["start: calls"]
        elif answer is not None:
            schema = json.loads(answer.text)
            start = ["start: calls | answer", f"answer: %json {_with_form(schema)}"]
        else:
            start = list(self._free(shown))
        return Grammar.lark("\n".join([*start, *self._calls()]) + "\n")

    def _free(self, shown: Sequence[int]) -> Iterator[str]:
        """Yield the rules of text that has calls in it, or is none."""
        form, several = self._form, self._several
        if form.style == "bare":
            yield "start: free | calls"
            excluded = r'[ \t\r\n]*\{[ \t\r\n]*"name"(?s:.*)'
        else:
            excluded = f"(?s:.*){_expression(form.opens)}(?s:.*)"
            one = {"tagged": "call free"}.get(form.style, "calls")
            yield f"start: free ({one}){'*' if several and form.style == 'tagged' else '?'}"
        marks = {self._tokenizer.id_of(mark) for mark in form.marks}
        yield "free: " + " | ".join(["TEXT", *(f"(<[{id_}]> TEXT)" for id_ in shown if id_ not in marks)])
        yield f"TEXT: /(?s:.*)/ & ~/{excluded}/"

    def _calls(self) -> Iterator[str]:
        """Yield the rules of one call or more, and of each function."""
        form, tools = self._form, self._tools
        calls = f"call ({_text(_BETWEEN[form.style])} call)*" if self._several else "call"
        if form.style == "list":
            calls = f'{self._mark(form.opens)} {_text(form.gap + "[")} {calls} "]"'
        yield f"calls: {calls}"
        yield "call: " + " | ".join(f"call_{n}" for n in range(len(tools.functions)))
        for n, function in enumerate(tools.functions):
            enforced = tools.forced or not tools.strict or function.strict
            yield f"call_{n}: {self._call(function.name, f'args_{n}')}"
            yield f"args_{n}: %json {_with_form(function.parameters if enforced else {'type': 'object'})}"

    @property
    def _several(self) -> bool:
        return self._tools.several and self._form.several

    def _call(self, name: str, arguments: str) -> str:
        form = self._form
        if form.style == "named":
            return f"{self._mark(form.opens)} {_text(name)} {self._mark(ARGS)} {arguments}"
        head = f'{{"name": {json.dumps(name)}, "{form.key}": '
        if form.style != "tagged":
            return f'{_text(head)} {arguments} "}}"'
        opening = f"{self._mark(form.opens)} {_text(form.gap + head)}"
        return f"{opening} {arguments} {_text('}' + form.gap)} {self._mark(form.closes)}"

    def _mark(self, mark: str) -> str:
        """Return a mark as the token that it is in the vocabulary, or as text."""
        id_ = self._tokenizer.id_of(mark)
        return _text(mark) if id_ is None else f"<[{id_}]>"


def _with_form(schema: Any) -> str:
    """Return a schema as text that says how its JSON is written, whatever it says of that itself."""
    data: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {"allOf": [schema]}
    return json.dumps({**data, "x-guidance": JSON_FORM})


def _text(text: str) -> str:
    return json.dumps(text)


def _expression(text: str) -> str:
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in text)


def _refused(error: PophoodError, functions: Sequence[FunctionTool], served: ServedModel) -> ApiError:
    """Return the error of the function whose schema cannot be used, or of all together."""
    if isinstance(error, BadInput):
        for place, function in enumerate(functions):
            try:
                served.compile(Grammar.json_schema(function.parameters))
            except PophoodError as own:
                return invalid(f"tools[{place}] ({function.name}): {one_line(own)}", "tools")
    return of_pophood(error, "tools")
