"""The stages around the model of a tokenizer.json: which are understood, and what they mean for decoding.

A file's stages reach the `tokenizers` library only if every part of them is in the tables below; anything
else is refused by name. The text that a stage adds is bounded, so that a short text cannot become a long one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pophood.errors import BadFile, Unsupported
from pophood.text.gguf.patterns import canonical
from pophood.text.gguf.pretokenizers import KNOWN_PATTERNS
from pophood.text.vocabulary import SPACE_MARK, Spelling

MOST_ADDED = 16  # characters that one stage may put in place of another
MOST_STAGES = 32

_NORMALIZERS = {
    **{kind: set[str]() for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")},
    "Prepend": {"prepend"},
    "Replace": {"pattern", "content"},
}
_PRE_TOKENIZERS = {
    "ByteLevel": {"add_prefix_space", "trim_offsets", "use_regex"},
    "Split": {"pattern", "behavior", "invert"},
    "Digits": {"individual_digits"},
    "Punctuation": {"behavior"},
    "Metaspace": {"replacement", "prepend_scheme", "split", "add_prefix_space"},
}
_DECODERS = {
    "ByteLevel": {"add_prefix_space", "trim_offsets", "use_regex"},
    "Replace": {"pattern", "content"},
    "ByteFallback": set[str](),
    "Fuse": set[str](),
    "Strip": {"content", "start", "stop"},
    "Metaspace": {"replacement", "prepend_scheme", "split", "add_prefix_space"},
}
_POST_PROCESSORS = {
    "ByteLevel": {"add_prefix_space", "trim_offsets", "use_regex"},  # moves offsets only
    "TemplateProcessing": {"single", "pair", "special_tokens"},
}


@dataclass(frozen=True, slots=True)
class Decoding:
    """The spelling of tokens, and whether decoding drops the first space of a text."""

    spelling: Spelling
    byte_tokens: bool
    drops_first_space: bool


BYTE_LEVEL = Decoding("bytes", byte_tokens=False, drops_first_space=False)


def check_normalizer(stage: object) -> None:
    """Raise Unsupported or BadFile, naming the part, for a normalizer that is not understood."""
    for step in _flat(stage, "normalizer", "normalizers", _NORMALIZERS):
        if step["type"] == "Replace":
            _check_literal(step)
        kind, added = step["type"], str(step.get("content", step.get("prepend", "")))
        if len(added) > MOST_ADDED:
            raise Unsupported(f"the normalizer {kind} adds more than {MOST_ADDED} characters at one place")


def writes_spaces(stage: object) -> bool:
    """Return whether a checked normalizer writes spaces as U+2581."""
    steps = _flat(stage, "normalizer", "normalizers", _NORMALIZERS)
    return any(SPACE_MARK in str(step.get("content", step.get("prepend", ""))) for step in steps)


def check_pre_tokenizer(stage: object) -> bool:
    """Return whether a pre-tokenizer spells bytes; Unsupported or BadFile for one that is not understood."""
    steps = _flat(stage, "pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS)
    for step in steps:
        if step["type"] == "Split":
            pattern = _object(step.get("pattern"), "the pattern of the pre_tokenizer Split")
            regex = pattern.get("Regex")
            if regex is not None and canonical(str(regex)) not in KNOWN_PATTERNS:
                raise Unsupported(
                    f"the tokenizer splits words by a pattern that is not one of the {len(KNOWN_PATTERNS)}"
                    f" known to take time in proportion to the text: {str(regex)[:120]!r}"
                )
            if regex is None:
                _check_literal(step)
        if step["type"] == "Metaspace" and len(str(step.get("replacement", ""))) > MOST_ADDED:
            raise Unsupported("the pre_tokenizer Metaspace writes spaces as a long text")
    return any(step["type"] == "ByteLevel" for step in steps)


def spells_bytes_only(stage: object) -> bool:
    """Return whether a checked pre-tokenizer cuts a text and spells its bytes, and adds nothing."""
    steps = _flat(stage, "pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS)
    types = [step["type"] for step in steps]
    spaces = [step.get("add_prefix_space", True) for step in steps if step["type"] == "ByteLevel"]
    return spaces == [False] and "Metaspace" not in types


def read_decoder(stage: object) -> Decoding:
    """Return how the decoder says that tokens are spelled; a clean-up of spaces is not carried out."""
    steps = _flat(stage, "decoder", "decoders", _DECODERS)
    types = [step["type"] for step in steps]
    if types == ["ByteLevel"]:
        return BYTE_LEVEL
    if "ByteLevel" in types or not steps:
        raise Unsupported(f"the decoder {' + '.join(types) or 'null'} of tokenizer.json is not understood")
    drops = False
    for step in steps:
        if step["type"] == "Replace":
            _check_literal(step)
            text = step["pattern"]["String"]
            if (text, step.get("content")) != (SPACE_MARK, " "):
                raise Unsupported(f"the decoder replaces {text[:20]!r}, not U+2581 by a space")
        if step["type"] == "Strip":
            if (step.get("content"), step.get("stop")) != (" ", 0) or step.get("start") not in (0, 1):
                raise Unsupported("the decoder Strip removes more than one leading space")
            drops |= step["start"] == 1
        if step["type"] == "Metaspace":
            mark, scheme = step.get("replacement"), step.get("prepend_scheme", "always")
            if mark != SPACE_MARK:
                raise Unsupported(f"the decoder Metaspace writes spaces as {str(mark)[:20]!r}")
            drops |= scheme != "never" and step.get("add_prefix_space") is not False
    return Decoding("spaces", byte_tokens="ByteFallback" in types, drops_first_space=drops)


def read_start_ids(stage: object) -> tuple[int, ...]:
    """Return the ids that the post-processor puts before a text.

    Those that it puts after a text are left out: they would end it.
    """
    start: tuple[int, ...] = ()
    for step in _flat(stage, "post_processor", "processors", _POST_PROCESSORS):
        if step["type"] == "TemplateProcessing":
            start += _template_start(step)
    return start


def _template_start(step: dict[str, Any]) -> tuple[int, ...]:
    known = _object(step.get("special_tokens"), "special_tokens of TemplateProcessing")
    ids: list[int] = []
    single = step.get("single")
    for item in single if isinstance(single, list) else [single]:
        item = _object(item, "an item of TemplateProcessing")
        if "Sequence" in item:
            return tuple(ids)
        named = _object(item.get("SpecialToken"), "a SpecialToken of TemplateProcessing").get("id")
        entry = _object(known.get(str(named)), f"the special token {str(named)[:40]!r} of TemplateProcessing")
        token_ids = entry.get("ids")
        if not isinstance(token_ids, list) or not all(type(id_) is int and id_ >= 0 for id_ in token_ids):
            raise BadFile(f"the special token {str(named)[:40]!r} of TemplateProcessing has no ids")
        ids += token_ids
    raise BadFile("TemplateProcessing has no place for the text in `single`")


def _flat(stage: object, what: str, plural: str, known: dict[str, set[str]]) -> list[dict[str, Any]]:
    """Return the steps of a stage with sequences flattened; refuse types and keys that are not in `known`."""
    if stage is None:
        return []
    pending, steps = [stage], list[dict[str, Any]]()
    while pending:
        step = _object(pending.pop(0), f"the {what}")
        kind = step.get("type")
        if kind == "Sequence":
            inner = step.get(plural)
            if not isinstance(inner, list) or len(inner) + len(pending) + len(steps) > MOST_STAGES:
                raise BadFile(f"the {what} Sequence needs a list {plural!r} of at most {MOST_STAGES} steps")
            pending = [*inner, *pending]
            continue
        if not isinstance(kind, str) or kind not in known:
            raise Unsupported(f"the {what} {str(kind)[:60]!r} is not understood; known: {', '.join(known)}")
        keys = known[kind] | {"type"}
        refuse_unknown(step, keys, f"the {what} {kind} of tokenizer.json has an unknown key")
        steps.append(step)
    return steps


def _check_literal(step: dict[str, Any]) -> None:
    """Check that a step looks for a literal text that is not empty; regular expressions are refused."""
    pattern = _object(step.get("pattern"), f"the pattern of {step['type']}")
    if "Regex" in pattern:
        raise Unsupported(
            f"the {step['type']} by the regular expression {str(pattern['Regex'])[:80]!r} is not understood"
        )
    if not isinstance(pattern.get("String"), str) or not pattern["String"]:
        raise BadFile(f"the {step['type']} of tokenizer.json has no text to look for")


def refuse_unknown(given: dict[str, Any], known: set[str], what: str) -> None:
    """Raise Unsupported, with the first key in alphabetical order, for keys that are not `known`."""
    unknown = sorted(given.keys() - known)
    if unknown:
        raise Unsupported(f"{what} {unknown[0][:60]!r}")


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFile(f"{what} in tokenizer.json is {type(value).__name__}, not an object")
    return value
