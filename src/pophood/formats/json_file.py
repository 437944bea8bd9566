"""JSON files that hold one object, bounded and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pophood.errors import BadFile
from pophood.formats.safetensors import parse_json
from pophood.system import map_file

MOST_JSON_BYTES = 16 << 20  # of a config.json; published ones stay below 1 MiB


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object, of at most 16 MiB; raises NotHere without it, BadFile for damage."""
    with map_file(path) as mapping:
        if len(mapping) > MOST_JSON_BYTES:
            raise BadFile(
                f"{path}: has {len(mapping):,} bytes; wanted at most {MOST_JSON_BYTES:,}: it is damaged"
            )
        value = parse_json(mapping[:], str(path))
    if not isinstance(value, dict):
        raise BadFile(f"{path}: holds a {type(value).__name__}; wanted an object: fetch it again")
    return value
