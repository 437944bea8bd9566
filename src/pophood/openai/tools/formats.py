"""The formats in which models write calls of functions, recognised from the text of a chat template.

    tagged   <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>            Hermes, Qwen
    bare     {"name": "add", "parameters": {"a": 1}}, as the whole answer             Llama 3
    list     [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]                    Mistral
    named    [TOOL_CALLS]add[ARGS]{"a": 1}                                            Mistral, since 2025

Formats of other kinds (XML, Python) are not read: a template that has none of these is not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Style = Literal["tagged", "bare", "list", "named"]

# Text of a template that writes its calls in XML, and marks around calls that are none of the four formats.
_XML = re.compile(r"<function=|<parameter=|<arg_key>|<invoke")
_OTHER_MARKS = re.compile(r"[<\[|\uff5c]tool[_\u2581 -]?calls?|functools\[", re.IGNORECASE)
_NAME_KEY = re.compile(r"\{\s*\\?[\"']name\\?[\"']\s*:")


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One format: the marks around a call, and how its parts are written.

    `opens` is the mark before calls, `gap` the white space that templates write after it, `key` the member of
    a call with its arguments. `several` says whether one answer may have more than one call, `short_ids`
    whether ids have 9 letters, as Mistral's templates demand.
    """

    style: Style
    opens: str
    closes: str = ""
    gap: str = ""
    key: str = "arguments"
    several: bool = True
    short_ids: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts of this format that may be special tokens."""
        extra = (ARGS, CALL_ID) if self.style == "named" else ()
        return tuple(mark for mark in (self.opens, self.closes, *extra) if mark)


ARGS, CALL_ID = "[ARGS]", "[CALL_ID]"
FORMATS: Mapping[str, CallFormat] = {
    "hermes": CallFormat("tagged", "<tool_call>", "</tool_call>", "\n"),
    "llama": CallFormat("bare", "<|python_tag|>", key="parameters", several=False),
    "mistral": CallFormat("list", "[TOOL_CALLS]", short_ids=True),
    "mistral spaced": CallFormat("list", "[TOOL_CALLS]", gap=" ", short_ids=True),
    "mistral named": CallFormat("named", "[TOOL_CALLS]", short_ids=True),
}
KNOWN = 'Hermes and Qwen (<tool_call>), Llama 3 ({"name", "parameters"}) and Mistral ([TOOL_CALLS])'


@lru_cache(maxsize=64)
def call_format(source: str) -> CallFormat | None:
    """Return the format of the calls that a chat template writes, or None if it is not recognised.

    >>> call_format('{{ "[TOOL_CALLS] [" ~ calls | tojson }}').gap
    ' '
    """
    if "[TOOL_CALLS]" in source:
        if ARGS in source:
            return FORMATS["mistral named"]
        return FORMATS["mistral spaced" if "[TOOL_CALLS] " in source else "mistral"]
    if "<tool_call>" in source:
        json_calls = "</tool_call>" in source and "arguments" in source and not _XML.search(source)
        return FORMATS["hermes"] if json_calls else None
    if _NAME_KEY.search(source) and "parameters" in source and not _OTHER_MARKS.search(source):
        return FORMATS["llama"]
    return None
