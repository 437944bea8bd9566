"""Encodes texts and conversations as token ids with a loss mask. No files.

A rendered conversation records the message that each character comes from (`text/chat/sourced.py`), which
tells where the answers are. A learned span begins after the generation prompt, since the model itself has to
write anything between that and the answer, and ends with the end token. If an answer has no characters of its
own in the text, or those of another message among them, the conversation is rendered turn by turn instead.
Prompt and completion are tokenised separately if the vocabulary allows it, as they are during generation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from pophood.errors import PophoodError
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.chat.omissions import omissions
from pophood.text.chat.template_tokens import pieces_of
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.encode.default_template import base_template, end_id
from pophood.train.data.read.layouts import Item, Message, WrongRecord
from pophood.train.settings import DataOptions

Atom = str | int  # one character, or one special token
_PROBE = "pophood0answer"


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of a document or a part of one, with the loss mask."""

    ids: NDArray[np.int64]
    trained: NDArray[np.bool_]  # the loss mask: the model learns to predict ids[i]
    end_added: bool = False  # the template writes no end token after the last answer
    double_start: bool = False
    unwritten: tuple[str, ...] = ()  # left out by the template: "system" for a system text, keys of messages


class ItemEncoder:
    """Encodes items with a tokenizer, a template and the options that change ids. Threads may share one."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None, options: DataOptions | None = None
    ) -> None:
        self.options = options = options or DataOptions()
        self.tokenizer = tokenizer
        self.end = end_id(tokenizer)
        self.template = base_template(tokenizer) if template is None else template
        self._all = options.completions_only is False
        self._joined, self._special = options.joined, options.special
        self._ends = {self.end, *tokenizer.stops}
        self._segments: dict[tuple[str | int, ...], list[int]] = {}  # a cache
        self._specials = tokenizer.specials

    def text(self, text: str, *, opens: bool = True, closes: bool = True) -> EncodedText:
        """Encode plain text: start tokens, text, end token. A part of a text may lack either end."""
        tokenizer = self.tokenizer
        inner = not opens and tokenizer.drops_first_space
        if inner and text.startswith(" "):
            text, inner = text[1:], False  # the encoder puts it back
        ids = tokenizer.encode(text, parse_special=self._special, add_start=False)
        if inner and ids and tokenizer.token_bytes(ids[0]) == b" ":
            del ids[0]
        if opens:
            ids = self._started(ids)
        if closes and not (self._special and ids and ids[-1] in self._ends):
            ids.append(self.end)
        trained = np.ones(len(ids), np.bool_)
        if opens and ids:
            trained[0] = False  # it has no predecessor
        return EncodedText(np.array(ids, np.int64), trained, double_start=opens and self._doubled(ids))

    def item(self, item: Item) -> EncodedText:
        """Encode one item. Raises WrongRecord or another PophoodError if it cannot be encoded."""
        if item.text is not None:
            return self.text(item.text)
        if item.paired and self._joined:
            *_, prompt, answer = (str(message["content"]) for message in item.messages)
            atoms = [*prompt, *answer, self.end]
            return self._assembled(atoms, [(len(prompt), len(atoms))])
        return self.conversation(item.messages, item.weights, item.n_prompt)

    def conversation(
        self, messages: Sequence[Message], weights: Sequence[bool | None] = (), n_prompt: int = 0
    ) -> EncodedText:
        """Encode a conversation. Every answer of the assistant is learned, with its end token.

        `weights` and `n_prompt` are as in `Item`. Raises WrongRecord for a weight that cannot be applied, and
        if the template leaves out an answer, or a text or tool call on which an answer may depend.
        """
        masked = self._masked(messages, weights, n_prompt)
        text = self.template.sourced(messages, add_generation_prompt=False)
        unwritten = tuple(_unwritten(messages, text))
        atoms, owners = self._owned(text)
        spans = self._spans(messages, atoms, owners)
        if spans is None:
            spans = list(self._turn_by_turn(messages, atoms))
        added = not (spans and spans[-1][1] and atoms[spans[-1][1] - 1] in self._ends)
        if added:
            stop = spans[-1][1] if spans else len(atoms)
            atoms = [*atoms[:stop], self.end]
            spans = [*spans[:-1], (spans[-1][0], stop + 1)] if spans else []
        hidden = [span for span, mask in zip(spans, masked, strict=True) if mask]
        encoded = self._assembled(atoms, [span for span in spans if span not in hidden], added, hidden)
        return replace(encoded, unwritten=unwritten)

    def _masked(
        self, messages: Sequence[Message], weights: Sequence[bool | None], n_prompt: int
    ) -> list[bool]:
        """Return for each answer of the assistant whether it is not learned."""
        masked: list[bool] = []
        for number, message in enumerate(messages):
            weight = weights[number] if weights else None
            if message["role"] == "assistant":
                masked.append(not weight if weight is not None else number < n_prompt and not self._all)
            elif weight is not None and weight != self._all:
                mark, rule = ("not learned", "all text is") if self._all else ("learned", "only answers are")
                raise WrongRecord(
                    f"marks message {number + 1}, of the {message['role']}, as {mark}, but {rule} learned"
                    " here: remove its weight"
                )
        if all(masked):
            raise WrongRecord("has nothing to learn: every answer has the weight 0")
        return masked

    def _assembled(
        self,
        atoms: list[Atom],
        spans: list[tuple[int, int]],
        added: bool = False,
        hidden: Sequence[tuple[int, int]] = (),
    ) -> EncodedText:
        """Encode atoms: `spans` are learned; if all text is, everything but `hidden`."""
        if self._all:
            spans = [(0, len(atoms))]
        edges = sorted({0, len(atoms), *(edge for span in (*spans, *hidden) for edge in span)})
        learned = {start: (start, end) for start, end in spans}
        if self.tokenizer.drops_first_space:
            ids, places = self._whole(atoms, edges)
        else:
            ids, places = [], [0]
            for start, end in pairwise(edges):
                ids += self._segment(tuple(_joined(atoms[start:end])))
                places.append(len(ids))
        trained = np.zeros(len(ids), np.bool_)
        place_of = dict(zip(edges, places, strict=True))
        for start, end in learned.values():
            trained[place_of[start] : place_of[end]] = True
        for start, end in hidden:
            trained[place_of[start] : place_of[end]] = False
        started = self._started(ids)
        trained = np.concatenate((np.zeros(len(started) - len(ids), np.bool_), trained))
        trained[:1] = False
        if not trained.any():
            raise WrongRecord("has nothing to learn: the assistant's words have no tokens")
        return EncodedText(np.array(started, np.int64), trained, added, self._doubled(started))

    def _segment(self, parts: tuple[str | int, ...]) -> list[int]:
        """Encode neighbouring parts. Short segments, such as the end of a turn, are cached."""
        ids = self._segments.get(parts)
        if ids is None:
            ids = self.tokenizer.encode_parts(parts)
            if len(parts) == 1 and len(ids) <= 2 and len(self._segments) < 1000:
                self._segments[parts] = ids
        return ids

    def _whole(self, atoms: list[Atom], edges: list[int]) -> tuple[list[int], list[int]]:
        """Encode everything at once, for vocabularies that insert spaces; also return the edges' places."""
        ids = self.tokenizer.encode_parts(_joined(atoms))
        places = [0]
        for edge in edges[1:-1]:
            head = self.tokenizer.encode_parts(_joined(atoms[:edge]))
            same = next((i for i, (a, b) in enumerate(zip(head, ids, strict=False)) if a != b), len(head))
            places.append(min(same, len(ids)))
        return ids, [*places, len(ids)]

    def _started(self, ids: list[int]) -> list[int]:
        start = list(self.tokenizer.start_ids)
        return ids if ids[: len(start)] == start else start + ids

    def _doubled(self, ids: Sequence[int]) -> bool:
        if len(ids) < 2 or ids[0] != ids[1]:
            return False
        bos = self.tokenizer.names.get("bos_token")
        return ids[0] in self.tokenizer.start_ids or self.tokenizer.specials.get(ids[0], "") == bos

    # Finding the answers.

    def _spans(
        self, messages: Sequence[Message], atoms: Sequence[Atom], owners: Sequence[int | None]
    ) -> list[tuple[int, int]] | None:
        """Return the learned span of each answer by the owners of atoms, or None if they are ambiguous."""
        places: dict[int, list[int]] = {}
        for place, owner in enumerate(owners):
            if owner is not None:
                places.setdefault(owner, []).append(place)
        spans = []
        last = 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            own = places.get(number)
            if not own or own[0] < last:
                return None
            first = own[0]
            if any(owner not in (None, number) for owner in owners[first : own[-1]]):
                return None  # the answer contains another message's words, or the template writes it twice
            close = next((place + 1 for place in reversed(own) if not _blank(atoms[place])), first)
            later = (at[0] for owner, at in places.items() if owner != number and at[0] >= close)
            start = self._begin(atoms, owners, first, last)
            last = self._through_end(atoms, close, min(later, default=len(atoms)))
            spans.append((start, last))
        return spans

    def _begin(self, atoms: Sequence[Atom], owners: Sequence[int | None], opening: int, after: int) -> int:
        """Return where the model's part of an answer begins, whose own words begin at `opening`.

        That is after the generation prompt, if the template wrote it between `after` and `opening` and no
        words of a message follow it; otherwise before the template's fixed lead, or at the words.
        """
        prompt, lead = self._opening
        end = _rfind(atoms, prompt, after, opening)
        if end is not None and all(owner is None for owner in owners[end - len(prompt) : opening]):
            return end
        start = opening - len(lead)
        if not prompt and start >= after and tuple(atoms[start:opening]) == lead:
            return start
        return opening

    def _turn_by_turn(self, messages: Sequence[Message], whole: list[Atom]) -> Iterator[tuple[int, int]]:
        """Find the spans by rendering up to each answer; WrongRecord if a later turn rewrites an answer."""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._atoms_of(messages[:number], prompt=True)
            after = self._atoms_of(messages[: number + 1])
            end = self._through_end(after, len(before), len(after))
            if end == len(before):
                end = len(after)
            if after[: len(before)] != before or whole[:end] != after[:end]:
                raise WrongRecord(
                    f"has an answer in message {number + 1} that the chat template rewrites in a later turn:"
                    " the part to learn is unknown"
                )
            yield len(before), end

    def _through_end(self, atoms: Sequence[Atom], close: int, limit: int) -> int:
        """Return the place after the first end token in close..limit; `close` if there is none."""
        return next((place + 1 for place in range(close, limit) if atoms[place] in self._ends), close)

    def _owned(self, text: str) -> tuple[list[Atom], list[int | None]]:
        """Return the atoms of a rendered text, and the number of the message that each comes from."""
        atoms: list[Atom] = []
        owners: list[int | None] = []
        for part, owner in pieces_of(text, self._specials):
            atoms += [part] if isinstance(part, int) else part
            owners += [owner] * (1 if isinstance(part, int) else len(part))
        return atoms, owners

    def _atoms_of(self, messages: Sequence[Message], prompt: bool = False) -> list[Atom]:
        return self._owned(self.template.sourced(messages, add_generation_prompt=prompt))[0]

    @cached_property
    def _opening(self) -> tuple[tuple[Atom, ...], tuple[Atom, ...]]:
        """The template's generation prompt, and the lead that it writes between that and an answer."""
        opening: tuple[Atom, ...] = ()
        lead: tuple[Atom, ...] = ()
        question = [{"role": "user", "content": "Hi"}]
        try:
            bare = self._atoms_of(question)
            prompt = self._atoms_of(question, prompt=True)
            full = self._atoms_of([*question, {"role": "assistant", "content": _PROBE}])
            at = _rfind(full, tuple(_PROBE), 0, len(full))
            if at is not None and full[: len(prompt)] == prompt:
                lead = tuple(full[len(prompt) : at - len(_PROBE)])
            if prompt[: len(bare)] == bare:
                opening = tuple(prompt[len(bare) :])
        except PophoodError:
            pass  # the template wants other messages; spans then begin at the answers' own words
        return opening, lead


def _unwritten(messages: Sequence[Message], text: str) -> Iterator[str]:
    """Yield the system texts and keys that a template leaves out; WrongRecord if it leaves out more."""
    for omission in omissions(messages, text):
        if omission.kind == "field":
            yield omission.name
        elif omission.kind == "text" and omission.role in ("system", "developer"):
            yield omission.role
        else:
            raise WrongRecord(f"has content that the chat template leaves out: it writes {omission}")


def _blank(atom: Atom) -> bool:
    return isinstance(atom, str) and atom.isspace()


def _rfind(atoms: Sequence[Atom], wanted: tuple[Atom, ...], low: int, high: int) -> int | None:
    """Return the place after the last occurrence of `wanted` within low..high, or None."""
    for end in range(high, low + len(wanted) - 1, -1) if wanted else ():
        if tuple(atoms[end - len(wanted) : end]) == wanted:
            return end
    return None


def _joined(atoms: Sequence[Atom]) -> list[str | int]:
    """Return the parts for `encode_parts`: runs of characters as one text each."""
    parts: list[str | int] = []
    for special, run in groupby(atoms, lambda atom: isinstance(atom, int)):
        atoms_of_run = list(run)
        parts += atoms_of_run if special else ["".join(map(str, atoms_of_run))]
    return parts
