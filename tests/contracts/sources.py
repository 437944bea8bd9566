"""The tracked files, and the functions of Python and C++ sources with their lengths."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import processes
from tests.conftest import ROOT

CPP_SUFFIXES = {".cpp", ".h", ".inl"}
BLANKED = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)
CONTROL = re.compile(r"\b(?:if|for|while|switch|catch|do|else|return)\b")


@dataclass(frozen=True, slots=True)
class Function:
    """One function: where it starts and how many lines it has, signature included."""

    path: Path
    name: str
    line: int
    lines: int


def tracked_files() -> list[Path]:
    """Every file that git tracks or would add, as paths from the root; sorted."""
    listed = processes.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return sorted({ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def product_files() -> list[Path]:
    """Sources of the package and of the engine."""
    suffixes = CPP_SUFFIXES | {".py"}
    return [
        path
        for path in tracked_files()
        if path.suffix in suffixes and path.relative_to(ROOT).parts[0] in {"src", "native"}
    ]


def functions_of(path: Path, text: str | None = None) -> Iterator[Function]:
    """Every function of a Python or C++ file."""
    source = path.read_text(encoding="utf-8") if text is None else text
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(path, node.name, node.lineno, (node.end_lineno or 0) - node.lineno + 1)
    else:
        yield from _cpp_functions(path, source)


def _cpp_functions(path: Path, source: str) -> Iterator[Function]:
    # No parser: comments and strings are blanked, then braces are matched. A brace opens a function when
    # the text since the last ; { or } ends like a signature; braces inside a function are not looked at.
    text = BLANKED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), source)
    text = re.sub(
        r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.MULTILINE
    )
    start, depth, function_depth = 0, 0, -1
    name, first = "", 0
    for position, character in enumerate(text):
        if character == "{":
            head = text[start:position]
            if function_depth < 0 and is_signature(head):
                function_depth, name = depth, head.split("(")[0].split()[-1]
                first = text.count("\n", 0, start + len(head) - len(head.lstrip())) + 1
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == function_depth:
                last = text.count("\n", 0, position) + 1
                yield Function(path, name, first, last - first + 1)
                function_depth = -1
        if character in "{};":
            start = position + 1


def is_signature(head: str) -> bool:
    """True when the text before a brace is the head of a function rather than of a type or a namespace."""
    words = re.sub(r"\s+", " ", head).strip()
    if "(" not in words or CONTROL.match(words) or words.endswith("="):
        return False
    return re.match(r"^(?:namespace|struct|class|enum|union|extern)\b(?!.*\))", words) is None
