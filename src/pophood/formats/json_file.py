"""JSON files that come with a model: read within a bound, and strictly, so that a file has one meaning."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from pophood.errors import BadFile, quoted
from pophood.phrases import later, phrase
from pophood.system import map_file

FETCH = later("fetch it again")
MOST_JSON_BYTES = 16 << 20  # of a settings file; published ones stay below 1 MiB


def read_json(path: Path, most_bytes: int = MOST_JSON_BYTES, advice: str = FETCH) -> dict[str, Any]:
    """Read a JSON file that holds one object of at most `most_bytes` bytes; `advice` ends every refusal.

    Raises NotFound without the file, and BadFile for one that is too large, damaged, or not an object.
    """
    with map_file(path) as mapping:
        if len(mapping) > most_bytes:
            size, most = len(mapping), most_bytes
            words = later("{path}: has {size:,} bytes, wanted at most {most:,}: it is damaged; {advice}")
            raise BadFile(phrase(words, path=path, size=size, most=most, advice=phrase(advice)))
        value = parse_json(mapping[:], str(path), advice)
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise BadFile(
            phrase(
                "{path}: holds {kind}, not an object: {advice}", path=path, kind=kind, advice=phrase(advice)
            )
        )
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON file as `read_json` does; {} without the file."""
    return read_json(path) if path.is_file() else {}


def parse_json(text: bytes, what: str, advice: str = FETCH) -> Any:
    """Parse JSON from a hostile file: UTF-8, no name twice in an object, no NaN.

    Raises a one-line BadFile that begins with `what` and ends with `advice`.

    >>> parse_json(b'{"a": [1]}', "config.json")
    {'a': [1]}
    """

    def refuse(english: str, **fields: object) -> NoReturn:
        raise BadFile(f"{what} {phrase(english, **fields)}; {phrase(advice)}") from None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            name = Counter(name for name, _ in pairs).most_common(1)[0][0]
            refuse(later("has the name {name} twice: the file is damaged or forged"), name=quoted(name))
        return result

    def constant(name: str) -> NoReturn:
        refuse(later("holds {name}, which is not JSON: the file is damaged"), name=name)

    if text.startswith(b"version https://git-lfs"):
        raise BadFile(f"{what} is a Git LFS pointer without the content: run git lfs pull, or fetch it again")
    try:
        string = text.decode("utf-8-sig")  # editors on Windows write a byte order mark, which means nothing
    except UnicodeDecodeError as error:
        refuse(later("is not UTF-8 at byte {at:,}: it is damaged"), at=error.start)
    try:
        return json.loads(string, object_pairs_hook=unique, parse_constant=constant)
    except RecursionError:
        refuse(later("is nested too deeply: the file is damaged or forged"))
    except ValueError as error:  # json.JSONDecodeError, or an integer of more than 4,300 digits
        refuse(later("is not JSON ({error}): the file is damaged"), error=error)
