"""Rules for configuration keys: each is used, harmless, or refused unless it has a certain value.

The same rules read `config.json`, its rope section, and GGUF metadata. A key that is in no table is refused
by name, so nothing is dropped silently. No family is known here, and no file is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pophood.errors import BadFile, Unsupported, short

MOST_ENTRIES = 1_024  # of a list in a configuration; as many as the most blocks that are accepted


@dataclass(frozen=True, slots=True)
class Used:
    """A key that becomes a field; `check` returns the field's value, or raises one of the two errors below.

    JSON null is the same as an absent key, unless `null` is set: then it means None.
    """

    field: str
    check: Callable[[object], Any]
    null: bool = False


@dataclass(frozen=True, slots=True)
class Only:
    """A key that is refused unless it is null or one of `values`; `why` says what it would change."""

    values: tuple[object, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Harmless:
    """A key that cannot change the result of a forward pass, whatever its value."""


Key = Used | Only | Harmless
Table = Mapping[str, Key]
HARMLESS = Harmless()


class WantedError(ValueError):
    """Raised for a value that is not well-formed; the message is what was wanted."""


class NotComputedError(ValueError):
    """Raised for a well-formed value that pophood does not compute; the message is what it does compute."""


def harmless(*names: str) -> dict[str, Key]:
    """Return table entries for keys that change nothing."""
    return dict.fromkeys(names, HARMLESS)


def only(values: tuple[object, ...], why: str, *names: str) -> dict[str, Key]:
    """Return table entries for keys that are refused unless they have one of these values."""
    return dict.fromkeys(names, Only(values, why))


_SHELL_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")
GGUF_PLACE = "GGUF metadata"  # begins the name of every place that is not a text file


def without(key: str, place: str) -> str:
    """Describe how to get a file without a key: edit JSON, or copy a GGUF file with ggml's own tool."""
    if not place.startswith(GGUF_PLACE):
        return f"remove {short(key)} from the file"
    if not _SHELL_SAFE.fullmatch(key):  # text from a hostile file must not end up in the user's shell
        return "use another file of the model"
    return (
        f"`gguf-new-metadata --remove-metadata {key} OLD NEW` (Python package gguf) makes a copy without it"
    )


def read_keys(table: Table, given: Mapping[str, Any], place: str, prefix: str = "") -> dict[str, Any]:
    """Return the fields that the keys in `given` set, by the rules of `table`.

    `place` names the file in messages; `prefix` precedes every key in the file. Null asks for nothing, even
    under an unknown key.

    Raises BadFile for a value of the wrong type or two spellings that disagree, Unsupported for a key that is
    not in the table or asks for something that is not computed.

    >>> read_keys({"n_layer": Used("blocks", count(9)), "use_cache": HARMLESS}, {"n_layer": 2}, "config.json")
    {'blocks': 2}
    """
    fields: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in given.items():
        rule = table.get(key)
        if rule is None:
            if value is None:
                continue
            raise Unsupported(
                f"{place}: the key {short(key)} (= {short(value)}) is unknown for this architecture and may"
                " change the model's results: if you know that it does not,"
                f" {without(prefix + key, place)}"
            )
        if isinstance(rule, Only):
            if not (value is None or plain(value) in rule.values):
                allowed = " or ".join(short(v) for v in rule.values) or "models without it"
                raise Unsupported(
                    f"{place}: {key} is {short(value)}; pophood computes only {allowed}: {rule.why}"
                )
        elif isinstance(rule, Used):
            if value is None:
                if rule.null:
                    fields.setdefault(rule.field, None)
                continue
            checked = _checked(rule, key, plain(value), place)
            if fields.get(rule.field, checked) not in (checked, None):
                raise BadFile(
                    f"{place}: {spelled[rule.field]} is {short(fields[rule.field])} but {key} is"
                    f" {short(checked)}, although they mean the same: {without(prefix + key, place)}"
                )
            fields[rule.field], spelled[rule.field] = checked, key
    return fields


def _checked(rule: Used, key: str, value: object, place: str) -> Any:
    try:
        return rule.check(value)
    except WantedError as wanted:
        raise BadFile(f"{place}: {key} is {short(value)}; wanted {wanted}") from None
    except NotComputedError as computed:
        raise Unsupported(f"{place}: {key} is {short(value)}; pophood computes {computed}") from None


def require(fields: Mapping[str, Any], needed: Iterable[str], table: Table, place: str) -> None:
    """Raise BadFile for `needed` fields that are absent, naming their keys as `table` spells them."""
    missing = [field for field in needed if field not in fields]
    if missing:
        keys = {rule.field: key for key, rule in reversed([*table.items()]) if isinstance(rule, Used)}
        names = ", ".join(keys[field] for field in missing)
        raise BadFile(f"{place}: {names} missing: the file is damaged; fetch it again")


def count(most: int, least: int = 1) -> Callable[[object], int]:
    """Return a check for a whole number from `least` to `most`."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise WantedError(f"a whole number from {least:,} to {most:,}")
        return value

    return check


def real(least: float, most: float) -> Callable[[object], float]:
    """Return a check for a finite number from `least` to `most`.

    A value that is exactly a float32 (as GGUF stores them) becomes the shortest decimal that rounds to it, so
    that 1e-5 is the same number in both kinds of file.
    """

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise WantedError(f"a number from {least:g} to {most:g}")
        single = np.float32(value)
        return float(str(single)) if float(single) == value else float(value)

    return check


def flag(value: object) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise WantedError("true or false")
    return value


def section(value: object) -> dict[str, Any]:
    """Check for a table of keys."""
    if not isinstance(value, dict):
        raise WantedError("a table of keys")
    return value


def choice(meanings: Mapping[str, Any]) -> Callable[[object], Any]:
    """Return a check for one of a few words; any other word is well-formed but not computed."""

    def check(value: object) -> Any:
        if not isinstance(value, str):
            raise WantedError("a word")
        if value not in meanings:
            raise NotComputedError(", ".join(meanings))
        return meanings[value]

    return check


def words(known: tuple[str, ...]) -> Callable[[object], tuple[str, ...]]:
    """Return a check for a list of known words, one per block."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > MOST_ENTRIES:
            raise WantedError("a list with one word for each block")
        if any(entry not in known for entry in value):
            raise NotComputedError(f"only {' and '.join(known)}")
        return tuple(value)

    return check


def per_block(rule: Used) -> Used:
    """Return the rule for a key that GGUF writes as one number or as a list with one number per block."""

    def check(value: object) -> Any:
        if not isinstance(value, list):
            return rule.check(value)
        numbers = {rule.check(entry) for entry in value}
        if len(numbers) != 1:
            raise NotComputedError("blocks that are all alike")
        return numbers.pop()

    return Used(rule.field, check, rule.null)


def switches(value: object) -> tuple[bool, ...] | None:
    """Return a list of true and false, or 1 and 0, as a tuple; None for anything else.

    >>> switches([1, False]), switches([2]), switches(1)
    ((True, False), None, None)
    """
    if not isinstance(value, list) or len(value) > MOST_ENTRIES:
        return None
    return (
        tuple(map(bool, value)) if all(type(one) in (bool, int) and one in (0, 1) for one in value) else None
    )


def plain(value: Any) -> Any:
    """Convert a NumPy array (GGUF's numeric lists) to a list, or to a description if it is long."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= MOST_ENTRIES else f"a list of {value.size:,} numbers"
    return value
