"""ServedModel: what the HTTP side knows of the model. There is no engine here, and nothing that computes.

Prompts are made and checked with it before the worker sees a request.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pophood.errors import BadInput
from pophood.generate.choose import END_OF_TEXT
from pophood.generate.decoder import KvBlocks
from pophood.grammar import Grammar
from pophood.grammar.matching import compiled
from pophood.sampling import SamplingSettings, breakers_of
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.chat.thoughts import thought_tags
from pophood.text.tokenizer import Tokenizer, check_whole

AdapterPair = tuple[str, float]  # name and scale
MOST_SAMPLES = 16  # of one prompt, computed side by side


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter that requests can name; a chat template of its own replaces the model's."""

    name: str
    template: ChatTemplate | None = None


@dataclass(eq=False)
class ServedModel:
    """One loaded model.

    `window` is the number of tokens that a prompt and its answer may have together, guaranteed to every
    request; `trained_window` the one that the model's files name; `blocks` of keys and values are there for
    all requests together (None: no bound), counted as in `kv`. `layers`, `heads`, `architecture` and
    `weight_bytes` are the model's, if known. `adapters` can be named by requests, `usual_adapters` are used
    by those that name none. `sampling` holds the settings of requests that give none. `fingerprint` tells
    apart computations that may differ in a bit.
    """

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate | None
    window: int
    vocab_size: int
    fingerprint: str
    aliases: tuple[str, ...] = ()
    adapters: Mapping[str, ServedAdapter] = field(default_factory=dict)
    usual_adapters: tuple[AdapterPair, ...] = ()
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    most_samples: int = MOST_SAMPLES
    trained_window: int | None = None
    blocks: int | None = None
    kv: KvBlocks = field(default_factory=KvBlocks)
    parameters: int | None = None
    layers: int | None = None
    heads: int | None = None
    architecture: str = "unknown"
    weight_bytes: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    def answers_to(self, name: str | None) -> bool:
        """Return whether a request for this model name is for this model; one without a name is."""
        return name is None or name == self.name or name in self.aliases

    def template_of(self, adapters: Sequence[AdapterPair]) -> ChatTemplate | None:
        """Return the chat template for these adapters: that of the last one that has its own."""
        own = [self.adapters[name].template for name, _ in adapters]
        return next((template for template in reversed(own) if template is not None), self.template)

    # ---- text ----

    def compile(self, grammar: Grammar) -> None:
        """Compile a grammar for the model's tokens. Raises BadInput for a wrong one."""
        compiled(grammar, self.tokenizer, self.vocab_size)

    def encode(self, text: str, *, parse_special: bool = True, add_start: bool = True) -> list[int]:
        """Return the ids of a prompt; an empty one is the model's start token.

        Raises BadInput for half a character, and for an empty prompt if the model has no start token.
        """
        ids = self.tokenizer.encode(text, parse_special=parse_special, add_start=add_start)
        return ids or [self._start()]

    def _start(self) -> int:
        start = self.tokenizer.id_of(END_OF_TEXT)
        if start is None:
            raise BadInput("the prompt is empty and this model has no token to start from; give it some text")
        return start

    @cached_property
    def shown(self) -> tuple[int, ...]:
        """The special tokens that are shown in the answers of a chat: the tags around a thought."""
        return tuple(thought_tags(self.tokenizer.specials))

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        return tuple(sorted(id_ for id_ in self.tokenizer.stops if id_ < self.vocab_size))

    @cached_property
    def end_token(self) -> str:
        """The text of the token that ends a document or a turn; "" if the model has none."""
        specials = self.tokenizer.specials
        ends = (specials[id_] for id_ in self.stop_ids if id_ in specials)
        return self.tokenizer.names.get("eos_token") or next(ends, "")

    def warm_up(self) -> None:
        """Do what a first request would wait for: compile the template, find the stops, make encoders."""
        _ = self.stop_ids, self.shown, self.end_token
        for parse_special in (True, False):
            self.tokenizer.encode("a", parse_special=parse_special)

    def breakers(self, strings: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return the token sequences at which DRY starts anew; the newest 32 lists of strings are kept.

        Raises BadInput for half a character.
        """
        key = tuple(strings)
        for string in key:
            check_whole(string)
        if key not in self._breakers:
            words = [self.tokenizer.token_bytes(id_) for id_ in range(self.tokenizer.vocab_size)]
            found = breakers_of(key, words, lambda text: self.tokenizer.encode(text, add_start=False))
            while len(self._breakers) >= 32:
                self._breakers.pop(next(iter(self._breakers)))
            self._breakers[key] = found
        return self._breakers[key]

    @cached_property
    def _breakers(self) -> dict[tuple[str, ...], tuple[tuple[int, ...], ...]]:
        return {}


def fingerprint(version: str, weights: str, precision: str, isa: str) -> str:
    """Return `system_fingerprint`: same version, weights, precision and kernels give the same bits.

    `weights` is a hash of the model's file or anything else that tells weights apart.

    >>> fingerprint("0.1.0", "b179c952", "auto", "avx2")
    'pophood-0.1.0-6d06bde7-auto-avx2'
    """
    short = hashlib.sha256(weights.encode()).hexdigest()[:8]
    return f"pophood-{version}-{short}-{precision}-{isa}"
