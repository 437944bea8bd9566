"""JSON files that come with a model: read within a bound, and strictly, so that a file has one meaning."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from pophood.errors import BadFile, quoted
from pophood.system import map_file

MOST_JSON_BYTES = 16 << 20  # of a settings file; published ones stay below 1 MiB


def read_json(path: Path, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON file that holds one object of at most `most_bytes` bytes.

    Raises NotFound without the file, and BadFile for one that is too large, damaged, or not an object.
    """
    with map_file(path) as mapping:
        if len(mapping) > most_bytes:
            raise BadFile(f"{path}: has {len(mapping):,} bytes; wanted at most {most_bytes:,}: it is damaged")
        value = parse_json(mapping[:], str(path))
    if not isinstance(value, dict):
        raise BadFile(f"{path}: holds {type(value).__name__}, not an object: fetch it again")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON file as `read_json` does; {} without the file."""
    return read_json(path) if path.is_file() else {}


def parse_json(text: bytes, what: str) -> Any:
    """Parse JSON from a hostile file: UTF-8, no name twice in an object, no NaN.

    Raises a one-line BadFile that begins with `what`.

    >>> parse_json(b'{"a": [1]}', "config.json")
    {'a': [1]}
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            name = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise BadFile(
                f"{what} has the name {quoted(name)} twice: the file is damaged or forged; fetch it again"
            )
        return result

    def constant(name: str) -> NoReturn:
        raise BadFile(f"{what} holds {name}, which is not JSON: the file is damaged; fetch it again")

    if text.startswith(b"version https://git-lfs"):
        raise BadFile(f"{what} is a Git LFS pointer without the content: run git lfs pull, or fetch it again")
    try:
        string = text.decode("utf-8-sig")  # editors on Windows write a byte order mark, which means nothing
    except UnicodeDecodeError as error:
        raise BadFile(f"{what} is not UTF-8 at byte {error.start:,}: it is damaged; fetch it again") from None
    try:
        return json.loads(string, object_pairs_hook=unique, parse_constant=constant)
    except RecursionError:
        raise BadFile(f"{what} is nested too deeply: the file is damaged or forged; fetch it again") from None
    except ValueError as error:  # json.JSONDecodeError, or an integer of more than 4,300 digits
        raise BadFile(f"{what} is not JSON ({error}): the file is damaged; fetch it again") from None
