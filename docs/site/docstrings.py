"""An extension of griffe: examples in docstrings become blocks of code.

A docstring of this package ends with its example, indented. Where nothing else is indented, cleaning the
docstring takes that indentation away, and the example would be set as prose.
"""

from __future__ import annotations

import ast
import re

import griffe


class ExamplesAsCode(griffe.Extension):  # type: ignore[misc] # where griffe is not installed, it is Any
    """Fences the paragraphs of every docstring that are Python."""

    def on_object(self, *, obj: griffe.Object, **others: object) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return a docstring whose paragraphs of Python stand between fences.

    >>> fenced("Load it.\\n\\nlm = load('gpt2')")
    "Load it.\\n\\n```python\\nlm = load('gpt2')\\n```"
    """
    parts = text.split("\n\n")
    return "\n\n".join(f"```python\n{part}\n```" if is_python(part) else part for part in parts)


def is_python(paragraph: str) -> bool:
    """Return True for lines of Python that do something, and for prompts of an interpreter."""
    if paragraph.startswith(">>> "):
        return True
    if not re.search(r"[(=\[]|^from |^import ", paragraph) or paragraph[:1].isspace():
        return False
    try:
        ast.parse(paragraph)
    except SyntaxError:
        return False
    return True
