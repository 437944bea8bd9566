"""What a configuration key may say: used, harmless, or refused unless it has one value.

The same rules read `config.json`, its rope section, and GGUF metadata. A key that stands in no table is
refused by name, so nothing is dropped in silence. No family is known here, and no file is opened.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pophood.errors import BadFile, Unsupported

MOST_ENTRIES = 1_024  # of a list in a configuration: one for each block of the largest model believed


@dataclass(frozen=True, slots=True)
class Used:
    """A key that becomes a field; `check` returns the field's value, or raises one of the two errors below.

    JSON null means the same as absence, except where `null` says that it means None.
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
    """A key that cannot change what a forward pass computes, whatever it says."""


Key = Used | Only | Harmless
HARMLESS = Harmless()


class WantedError(ValueError):
    """A value that no well-formed file has; the message is what was wanted."""


class NotComputedError(ValueError):
    """A value that is well-formed and asks for what pophood does not compute; the message is what it does."""


def harmless(*names: str) -> dict[str, Key]:
    """Table entries for keys that change nothing."""
    return dict.fromkeys(names, HARMLESS)


_SHELL_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")
GGUF_PLACE = "GGUF metadata"  # how a place that is no text file begins


def without(key: str, place: str) -> str:
    """How a person gets a file without a key: JSON is edited, GGUF is written anew by ggml's own tool."""
    if not place.startswith(GGUF_PLACE):
        return f"remove {short(key)} from the file"
    if not _SHELL_SAFE.fullmatch(key):  # a hostile file must not put words into a person's shell
        return "take another file of the model"
    return (
        f"`gguf-new-metadata --remove-metadata {key} OLD NEW` (Python package gguf) makes a copy without it"
    )


def read_keys(
    table: Mapping[str, Key], given: Mapping[str, Any], place: str, prefix: str = ""
) -> dict[str, Any]:
    """Fields that `given` sets, by the rules of `table`.

    `place` names the file in messages, and `prefix` is what the file has before every key. Null asks for
    nothing, under a key that is not known too.

    Raises BadFile for a value of the wrong kind or two spellings that disagree, Unsupported for a key
    that is not in the table or asks for something that is not computed.

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
                f"{place}: the key {short(key)} (= {short(value)}) is not known for this architecture and may"
                " change what the model computes: if you know that it does not,"
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
                    f"{place}: {spelled[rule.field]} is {short(fields[rule.field])} and {key} is"
                    f" {short(checked)}; they mean the same thing: {without(prefix + key, place)}"
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


def require(fields: Mapping[str, Any], needed: Iterable[str], table: Mapping[str, Key], place: str) -> None:
    """Raise BadFile naming the keys of all `needed` fields that are absent, as `table` spells them."""
    missing = [field for field in needed if field not in fields]
    if missing:
        keys = {rule.field: key for key, rule in reversed([*table.items()]) if isinstance(rule, Used)}
        names = ", ".join(keys[field] for field in missing)
        raise BadFile(f"{place}: {names} missing: the file is damaged, fetch it again")


def count(most: int, least: int = 1) -> Callable[[object], int]:
    """A check for a whole number from `least` to `most`."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise WantedError(f"a whole number from {least:,} to {most:,}")
        return value

    return check


def real(least: float, most: float) -> Callable[[object], float]:
    """A check for a finite number from `least` to `most`.

    A value that is exactly a float32 (GGUF stores those) becomes the shortest decimal that rounds to it, so
    that 1e-5 means the same number in both kinds of file.
    """

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise WantedError(f"a number from {least:g} to {most:g}")
        single = np.float32(value)
        return float(str(single)) if float(single) == value else float(value)

    return check


def flag(value: object) -> bool:
    """A check for true or false."""
    if not isinstance(value, bool):
        raise WantedError("true or false")
    return value


def section(value: object) -> dict[str, Any]:
    """A check for a table of keys."""
    if not isinstance(value, dict):
        raise WantedError("a table of keys")
    return value


def choice(meanings: Mapping[str, Any]) -> Callable[[object], Any]:
    """A check for one of a few words; another word is well-formed and not computed."""

    def check(value: object) -> Any:
        if not isinstance(value, str):
            raise WantedError("a word")
        if value not in meanings:
            raise NotComputedError(", ".join(meanings))
        return meanings[value]

    return check


def words(known: tuple[str, ...]) -> Callable[[object], tuple[str, ...]]:
    """A check for a list of words (one for each block), all of them known."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > MOST_ENTRIES:
            raise WantedError("a list with one word for each block")
        if any(entry not in known for entry in value):
            raise NotComputedError(f"only {' and '.join(known)}")
        return tuple(value)

    return check


def per_block(rule: Used) -> Used:
    """The rule for a key that GGUF writes as one number or as a list with one for each block."""

    def check(value: object) -> Any:
        if not isinstance(value, list):
            return rule.check(value)
        numbers = {rule.check(entry) for entry in value}
        if len(numbers) != 1:
            raise NotComputedError("blocks that are all alike")
        return numbers.pop()

    return Used(rule.field, check, rule.null)


def plain(value: Any) -> Any:
    """The value with a NumPy array (GGUF's numeric lists) turned into a list; a long one becomes its size."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= MOST_ENTRIES else f"a list of {value.size:,} numbers"
    return value


def short(value: object) -> str:
    """The value as a message shows it: one line, at most some 60 characters, control characters escaped."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 4
_SHORT.maxlevel = 2
