"""Small changes to C++ code that are plausible mistakes: in operators, constants, conditions and calls.

Works on tokens, not on a syntax tree; a change that does not compile is thrown away when it is tried. It
relies on this project's layout: a binary operator has a blank on both sides, a template's bracket and a
pointer's star have not. Left out: comments, texts, preprocessor lines, static_assert, lines that throw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.mutants.mutant import Mutant

TOKEN = re.compile(
    r"""(?P<skip>//[^\n]*|/\*.*?\*/|^[ \t]*\#(?:[^\n\\]|\\\n|\\.)*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)+')
    |(?P<number>(?:0[xX][0-9a-fA-F']+|\d[\d']*(?:\.\d*)?(?:[eE][-+]?\d+)?)[uUlLfF]*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<operator><<=|>>=|<=>|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%<>=!&|^~?:;,.(){}\[\]])""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
BINARY = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "%": "*",
    "&&": "||",
    "||": "&&",
    "+=": "-=",
    "-=": "+=",
    "*=": "/=",
    "/=": "*=",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
}
NAMES = {"true": "false", "false": "true", "min": "max", "max": "min"}
QUIET = ("static_assert", "throw", "using ", "template", "#", "namespace")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + len(self.text)


def tokens_of(source: str) -> list[Token]:
    """Names, numbers and operators, in order."""
    found = []
    for match in TOKEN.finditer(source):
        kind = match.lastgroup
        assert kind is not None
        if kind != "skip":
            found.append(Token(kind, match.group(), match.start()))
    return found


def changed_number(text: str) -> str:
    """One more, or twice as much of a number with a fraction."""
    bare = text.rstrip("uUlLfF") if not text.lower().startswith("0x") else text.rstrip("uUlL")
    suffix = text[len(bare) :]
    if bare.lower().startswith("0x"):
        return hex(int(bare.replace("'", ""), 16) + 1) + suffix
    if any(letter in bare for letter in ".eE"):
        value = float(bare.replace("'", ""))
        return f"{2 * value if value else 1.0!r}{suffix}"
    return f"{int(bare.replace(chr(39), '')) + 1}{suffix}"


def cpp_mutants(file: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a file; some do not compile."""
    tokens = tokens_of(source)
    closing = _pairs(tokens)
    for i, token in enumerate(tokens):
        line = source[source.rfind("\n", 0, token.offset) + 1 :].split("\n", 1)[0].strip()
        if line.startswith(QUIET) or "throw " in line:
            continue

        def change(begin: int, end: int, after: str, kind: str) -> Mutant:
            return Mutant.at(file, source, begin, source[begin:end], after, kind)

        spaced = source[token.offset - 1 : token.offset] == " " and source[token.end : token.end + 1] in " \n"
        if token.kind == "number":
            yield change(token.offset, token.end, changed_number(token.text), "constant")
        elif token.kind == "operator" and token.text in BINARY and spaced:
            yield change(token.offset, token.end, BINARY[token.text], "operator")
        elif token.text in ("++", "--"):
            yield change(token.offset, token.end, "--" if token.text == "++" else "++", "operator")
        elif token.text == "!" and tokens[i + 1].text != "=":
            yield change(token.offset, token.end, "", "operator")
        elif token.kind == "name" and token.text in NAMES:
            yield change(
                token.offset, token.end, NAMES[token.text], "constant" if "e" in token.text else "call"
            )
        elif token.text in ("if", "while") and tokens[i + 1].text == "(":
            end = closing.get(i + 1)
            if end is not None:
                begin, stop = tokens[i + 1].end, tokens[end].offset
                yield change(begin, stop, f"!({source[begin:stop]})", "condition")
        if (
            token.kind == "name"
            and tokens[i - 1].text in (";", "{", "}")
            and (end := _call(tokens, closing, i))
        ):
            yield change(token.offset, tokens[end].offset, "", "call")


def _pairs(tokens: list[Token]) -> dict[int, int]:
    """Index of each opening parenthesis -> index of the closing one."""
    found, opened = {}, []
    for i, token in enumerate(tokens):
        if token.text == "(":
            opened.append(i)
        elif token.text == ")" and opened:
            found[opened.pop()] = i
    return found


def _call(tokens: list[Token], closing: dict[int, int], i: int) -> int | None:
    """The index of the semicolon, if a statement that begins here is one call: `a.b->c(...);`."""
    while i + 2 < len(tokens) and tokens[i].kind == "name":
        after = tokens[i + 1].text
        if after == "(":
            end = closing.get(i + 1)
            return end + 1 if end is not None and tokens[end + 1].text == ";" else None
        i += 3 if after == ":" and tokens[i + 2].text == ":" else 2 if after in (".", "->") else len(tokens)
    return None
