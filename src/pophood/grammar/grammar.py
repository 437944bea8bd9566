"""Grammar: the form that a text must have, as plain data. `matching.py` compiles it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pophood.errors import BadInput, short

Kind = Literal["json_schema", "regex", "gbnf", "lark"]
MOST_CHARACTERS = 1 << 18
MOST_RULES = 500  # of a GBNF grammar, whose translation takes 2 s for so many, and longer with their square
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")  # characters that a regular expression does not take literally


@dataclass(frozen=True, slots=True)
class Grammar:
    """A JSON schema, regular expression, GBNF or Lark grammar that a whole text must match.

    Use the constructors. Raises BadInput for another kind, and for text that is none or too long; mistakes
    inside the text are found when it is compiled for a model, before the first token.

        lm.generate("A cat: ", grammar=Grammar.json_schema({"type": "object", "required": ["name"]}))
    """

    kind: Kind
    text: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise BadInput(f"the grammar is of kind {short(self.kind)}; wanted one of {kinds}")
        if not isinstance(self.text, str):
            raise BadInput(f"the grammar is {short(self.text)}; wanted a text")
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"the grammar has half a character at {error.start:,}") from error
        if len(self.text) > MOST_CHARACTERS:
            raise BadInput(
                f"the grammar has {len(self.text):,} characters; wanted at most {MOST_CHARACTERS:,}"
            )
        if self.kind == "gbnf" and (rules := self.text.count("::=")) > MOST_RULES:
            raise BadInput(f"the grammar has {rules:,} rules; wanted at most {MOST_RULES}")

    @classmethod
    def json_object(cls) -> Grammar:
        """Return the grammar of any JSON object."""
        return cls("json_schema", '{"type": "object"}')

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str) -> Grammar:
        """Return the grammar of JSON that matches a schema, given as data or as text.

        Properties come in the order of the schema.
        """
        try:
            data = json.loads(schema, parse_constant=_refused) if isinstance(schema, str) else schema
            if not isinstance(data, Mapping | bool):
                raise BadInput(f"the JSON schema is {short(data)}; wanted an object, true or false")
            return cls("json_schema", json.dumps(data, allow_nan=False))
        except (ValueError, TypeError, RecursionError) as error:
            raise BadInput(f"the JSON schema is no JSON: {error}") from error

    @classmethod
    def regex(cls, expression: str) -> Grammar:
        r"""Return the grammar of a regular expression, in Rust's syntax: no look-around, no back references.

        Example: `Grammar.regex(r"\d{4}-\d\d-\d\d")`.
        """
        return cls("regex", expression)

    @classmethod
    def choice(cls, texts: Sequence[Any]) -> Grammar:
        """Return the grammar of one of several texts.

        >>> Grammar.choice(["yes", "no."]).text
        'yes|no\\\\.'
        """
        if isinstance(texts, str) or not texts or not all(isinstance(one, str) and one for one in texts):
            raise BadInput("a choice needs texts of one character or more each")
        return cls("regex", "|".join(_SPECIAL.sub(r"\\\g<0>", text) for text in texts))

    @classmethod
    def of_text(cls, text: Any) -> Grammar:
        """Return a grammar in GBNF if the text has its sign `::=`, else in Lark's notation."""
        return cls("gbnf" if isinstance(text, str) and "::=" in text else "lark", text)

    @classmethod
    def gbnf(cls, text: str) -> Grammar:
        """Return a grammar in GBNF, the notation of llama.cpp; it begins at the rule `root`."""
        return cls("gbnf", text)

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Return a grammar in the notation of Lark, as llguidance reads it; it begins at the rule `start`."""
        return cls("lark", text)


def _refused(name: str) -> None:
    raise ValueError(f"it has {name}, which JSON does not")
