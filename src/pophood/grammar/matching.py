"""Which tokens a grammar allows next, by llguidance (extra `[grammar]`): the only module that imports it.

    compiled(grammar, tokenizer, size) ─► CompiledGrammar ─► one Constraint per sample ─► masks, forced tokens

llguidance raises nothing while it matches: every step here checks for its error state, and raises. A text is
thus never continued without its grammar.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput, EngineError, Unsupported, one_line
from pophood.grammar.grammar import Grammar
from pophood.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

Mask = NDArray[np.uint32]  # [ceil(V / 32)]: bit i % 32 of word i / 32 is token i
MISSING = (
    "grammars and JSON schemas need llguidance, which is not installed: "
    "`pip install 'pophood[grammar]'` brings it"
)
KEPT = 16  # compiled grammars of one tokenizer
MOST_FORCED = 64  # tokens that are appended in one pass
# JSON is written as `json.dumps` writes it: where blanks may vary, small models write nothing else, and keys
# cannot be forced. Keywords that llguidance does not know are errors, and only one branch of `oneOf` matches.
JSON_FORM: Final[dict[str, Any]] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
    "coerce_one_of": False,
}
# Bounds of a hostile grammar: docs/log.md has what some take within them.
LIMITS: Final[dict[str, Any]] = {
    "max_grammar_size": 100_000,
    "max_lexer_states": 20_000,
    "verbose_errors": False,
}


@dataclass(eq=False)
class GrammarVocabulary:
    """A model's tokens as llguidance knows them, and the grammars that were compiled for them.

    Token `size`, which the model does not have, stands for the end: its bit says that a text is complete.
    Special tokens and the model's stops match no text.
    """

    tokenizer: LLTokenizer
    size: int
    grammars: OrderedDict[Grammar, CompiledGrammar]
    lock: threading.Lock


class CompiledGrammar:
    """A grammar compiled for a vocabulary. Raises BadInput, with llguidance's words, for a wrong one."""

    def __init__(self, vocabulary: GrammarVocabulary, grammar: Grammar) -> None:
        from llguidance import LLMatcher

        self.size = vocabulary.size
        text, limits = _notation(grammar), _limits()
        wrong, messages = LLMatcher.validate_grammar_with_warnings(text, vocabulary.tokenizer, limits=limits)
        if wrong:
            raise _refusal(grammar, messages[0])
        self._fresh = LLMatcher(vocabulary.tokenizer, text, log_level=0, limits=limits)
        self.first, _ = _read_mask(self._fresh, self.size)
        if self._fresh.is_error():
            raise _refusal(grammar, self._fresh.get_error())
        if not self.first.any():
            raise BadInput(f"the {_NAMES[grammar.kind]} allows no text")
        self.complete = self._fresh.is_accepting()

    def matcher(self) -> LLMatcher:
        """Return a matcher that has read nothing."""
        return self._fresh.deep_copy()

    def constraint(self, stops: Collection[int] = ()) -> Constraint:
        """Return the constraint of one sample, whose text may end with these tokens once it is complete."""
        return Constraint(self, stops)


class Constraint:
    """The tokens that one sample may continue with. Raises EngineError when the matcher fails.

    `forced` are the next tokens if there is only one way to go on: they are appended without being chosen
    first. `ended` is true once the text is complete and nothing can follow.
    """

    def __init__(self, grammar: CompiledGrammar, stops: Collection[int] = ()) -> None:
        self._size = grammar.size
        self._matcher = grammar.matcher()
        self._stops = bits(stops, grammar.size)
        self._stop_ids = frozenset(stops)
        self._forced: deque[int] = deque()
        self._closed = False  # nothing follows what the matcher has read
        self._mask = grammar.first | self._stops if grammar.complete else grammar.first

    @property
    def forced(self) -> Sequence[int]:
        return tuple(self._forced)

    @property
    def ended(self) -> bool:
        return self._closed and not self._forced

    @property
    def fed(self) -> Sequence[int]:
        """The forced tokens that the model must read: without the last one if nothing follows it."""
        return self.forced[:-1] if self._closed else self.forced

    def fill(self, rows: NDArray[np.uint32]) -> None:
        """Write the masks of the next tokens, [len(fed) + 1, words]."""
        for row, token in zip(rows, self._forced, strict=False):
            row[:] = 0
            row[token // 32] = 1 << token % 32
        if not self._closed:
            rows[-1] = self._mask

    def take(self, token: int, most: int = MOST_FORCED) -> None:
        """Take the token that was chosen, and find out what may follow; at most `most` tokens are forced."""
        if self._forced:
            if self._forced.popleft() != token:
                raise EngineError(f"token {token} was chosen where the grammar forces another one")
            return
        if token in self._stop_ids and not self._allows_as_text(token):
            return  # it ends the sample, and is no part of the text
        self._consume([token])
        if not self._closed:
            forced = self._matcher.compute_ff_tokens()[: max(min(most, MOST_FORCED), 0)]
            self._check()
            if forced:
                self._consume(forced)
                self._forced.extend(forced)
        if not self._closed:
            mask, complete = _read_mask(self._matcher, self._size)
            self._check()
            self._closed = complete and not mask.any()
            if not complete and not mask.any():
                raise EngineError("the grammar's matcher failed: it allows no token")
            self._mask = mask | self._stops if complete else mask

    def _allows_as_text(self, token: int) -> bool:
        return self._matcher.validate_tokens([token]) == 1

    def _consume(self, tokens: Sequence[int]) -> None:
        self._matcher.consume_tokens(list(tokens))
        self._check()
        self._closed = self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            words = one_line(ValueError(self._matcher.get_error()))
            raise EngineError(f"the grammar's matcher failed: {words}")


_vocabularies: WeakKeyDictionary[Tokenizer, GrammarVocabulary] = WeakKeyDictionary()
_making = threading.Lock()


def compiled(grammar: Grammar, tokenizer: Tokenizer, size: int) -> CompiledGrammar:
    """Return a grammar compiled for a model's tokens, `size` of them; the newest ones are kept.

    Raises BadInput for a wrong grammar, Unsupported without llguidance.
    """
    vocabulary = _vocabulary(tokenizer, size)
    with vocabulary.lock:
        known = vocabulary.grammars.get(grammar)
        if known is not None:
            vocabulary.grammars.move_to_end(grammar)
            return known
    made = CompiledGrammar(vocabulary, grammar)
    with vocabulary.lock:
        vocabulary.grammars[grammar] = made
        while len(vocabulary.grammars) > KEPT:
            vocabulary.grammars.popitem(last=False)
    return made


def bits(ids: Collection[int], size: int) -> Mask:
    """Return the mask of some tokens out of `size`.

    >>> bits([0, 33], 40).tolist()
    [1, 2]
    """
    mask = np.zeros(-(-size // 32), np.uint32)
    for id_ in ids:
        if 0 <= id_ < size:
            mask[id_ // 32] |= np.uint32(1 << id_ % 32)
    return mask


def _read_mask(matcher: LLMatcher, size: int) -> tuple[Mask, bool]:
    """Return the tokens that may follow, and whether the text may end here."""
    mask = np.frombuffer(matcher.compute_bitmask(), np.uint32)[: size // 32 + 1].copy()
    end = np.uint32(1 << size % 32)
    complete = bool(mask[size // 32] & end)
    mask[size // 32] &= ~end
    return mask[: -(-size // 32)], complete


def _vocabulary(tokenizer: Tokenizer, size: int) -> GrammarVocabulary:
    with _making:
        known = _vocabularies.get(tokenizer)
        if known is None or known.size != size:
            known = GrammarVocabulary(_tokens(tokenizer, size), size, OrderedDict(), threading.Lock())
            _vocabularies[tokenizer] = known
        return known


def _tokens(tokenizer: Tokenizer, size: int) -> LLTokenizer:
    """Return the tokens as llguidance wants them: the bytes of each, and how a text is cut into them."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ModuleNotFoundError as error:
        raise Unsupported(MISSING) from error
    return LLTokenizer(TokenizerWrapper(_Told(tokenizer, size)), n_vocab=size + 1, eos_token=[size])


class _Told:
    """A tokenizer in the shape that llguidance reads. It holds no reference to the Tokenizer itself."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        unreadable = {*tokenizer.specials, *tokenizer.stops}
        self.eos_token_id = size
        self.special_token_ids = [*sorted(id_ for id_ in unreadable if id_ < size), size]
        self._encoder, self._piece = tokenizer.encoder, tokenizer.vocabulary.piece
        names = {id_: tokenizer.token_text(id_).encode() for id_ in self.special_token_ids[:-1]}
        self.tokens = [names.get(id_) or self._piece(id_) for id_ in range(size)] + [b"<end>"]
        self._unreadable = unreadable

    def __call__(self, data: bytes) -> list[int]:
        """Return the tokens of a text in the middle of another, the model's own if they spell exactly it."""
        ids = self._encoder.encode(data.decode("utf-8", "replace"))
        spelled = b"".join(map(self._piece, ids)) == data
        if spelled and all(id_ < self.eos_token_id and id_ not in self._unreadable for id_ in ids):
            return ids
        return self._longest(data)

    def _longest(self, data: bytes) -> list[int]:
        """Return the longest token that fits, again and again: for vocabularies that change a text."""
        found, at = [], 0
        while at < len(data):
            ends = range(min(len(data), at + self._most), at, -1)
            end = next((end for end in ends if data[at:end] in self._readable), at + 1)
            if data[at:end] in self._readable:
                found.append(self._readable[data[at:end]])
            at = end
        return found

    @cached_property
    def _readable(self) -> dict[bytes, int]:
        pairs = ((token, id_) for id_, token in enumerate(self.tokens[:-1]) if id_ not in self._unreadable)
        return {token: id_ for token, id_ in pairs if token}

    @cached_property
    def _most(self) -> int:
        return max(map(len, self._readable), default=1)


def _notation(grammar: Grammar) -> str:
    """Return a grammar in llguidance's own notation. Raises BadInput."""
    try:
        return _translated(grammar)
    except Exception as error:  # its converter of GBNF raises Exception itself
        raise _refusal(grammar, str(error) or type(error).__name__) from error


def _translated(grammar: Grammar) -> str:
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if grammar.kind == "json_schema":
        schema = json.loads(grammar.text)
        text = grammar.text if isinstance(schema, dict) else json.dumps({"allOf": [schema]})
        return LLMatcher.grammar_from_json_schema(text, overrides=JSON_FORM)  # type: ignore[arg-type]
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(grammar.text)
    return LLMatcher.grammar_from_lark(gbnf_to_lark(grammar.text))


_NAMES = {"json_schema": "JSON schema", "regex": "regular expression", "gbnf": "grammar", "lark": "grammar"}


def _refusal(grammar: Grammar, message: str) -> BadInput:
    return BadInput(f"the {_NAMES[grammar.kind]} cannot be used: {one_line(ValueError(message))}")


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(**LIMITS)
