"""Texts and conversations to ids, each with whether the model learns to predict it. No files.

The rendered conversation knows which message each of its characters comes from (`text/chat/sourced.py`), and
so where the assistant speaks. Its spans begin where the generation prompt ends (what the template writes
between that and the words is the model's to write) and end with the end token. Where an answer has no
characters of its own in the text, or others' among them, the conversation is rendered turn by turn instead.
Prompt and completion become ids apart wherever a vocabulary allows it: that is how generation meets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

Atom = str | int  # one character, or one special token
_PROBE = "pophood0answer"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids of a document or of a part of one; `trained[i]`: the model learns to predict `ids[i]`."""

    ids: NDArray[np.int64]
    trained: NDArray[np.bool_]
    end_added: bool = False  # the template wrote none after the last answer
    double_start: bool = False
    unwritten: tuple[str, ...] = ()  # of its messages: "system" texts, and keys that the template leaves out


class ItemEncoder:
    """One tokenizer and template with the choices that change ids. Several threads may share it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        *,
        completions_only: bool | None = None,
        joined: bool = False,
        special: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.end = end_id(tokenizer)
        self.template = base_template(tokenizer) if template is None else template
        self._all = completions_only is False
        self._joined, self._special = joined, special
        self._ends = {self.end, *tokenizer.stops}
        self._lead: tuple[Atom, ...] = ()
        self._prompt: tuple[Atom, ...] = ()
        self._probed = False
        self._remembered: dict[tuple[str | int, ...], list[int]] = {}
        self._specials = tokenizer.specials

    def text(self, text: str, *, opens: bool = True, closes: bool = True) -> Encoded:
        """Ids of plain text, or of a stretch in the middle of one: start tokens, text, end token."""
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
            trained[0] = False  # nothing stands before it
        return Encoded(np.array(ids, np.int64), trained, double_start=opens and self._doubled(ids))

    def item(self, item: Item) -> Encoded:
        """Ids of one item; WrongRecord or a PophoodError says why there are none."""
        if item.text is not None:
            return self.text(item.text)
        if item.paired and self._joined:
            *_, prompt, answer = (str(message["content"]) for message in item.messages)
            return self._assembled(
                [*prompt, *answer, self.end], [(len(prompt), len(prompt) + len(answer) + 1)]
            )
        return self.conversation(item.messages, item.weights, item.given)

    def conversation(
        self, messages: Sequence[Message], weights: Sequence[bool | None] = (), given: int = 0
    ) -> Encoded:
        """Ids of a conversation: every answer of the assistant with its end token is learned.

        `weights` (of each message; None: by its role) and `given` (messages that are the prompt) are those of
        `Item`. WrongRecord for a weight that cannot be honoured, and where the template leaves out a text or
        a tool call that an answer may rest on, or is.
        """
        left_out = self._left_out(messages, weights, given)
        text = self.template.sourced(messages, add_generation_prompt=False)
        unwritten = _unwritten(messages, text)
        atoms, owners = self._owned(text)
        spans = self._spans(messages, atoms, owners)
        if spans is None:
            spans = self._turn_by_turn(messages, atoms)
        added = not (spans and spans[-1][1] and atoms[spans[-1][1] - 1] in self._ends)
        if added:
            stop = spans[-1][1] if spans else len(atoms)
            atoms = [*atoms[:stop], self.end]
            spans = [*spans[:-1], (spans[-1][0], stop + 1)] if spans else []
        apart = [span for span, out in zip(spans, left_out, strict=True) if out]
        encoded = self._assembled(atoms, [span for span in spans if span not in apart], added, apart)
        return replace(encoded, unwritten=unwritten)

    def _left_out(
        self, messages: Sequence[Message], weights: Sequence[bool | None], given: int
    ) -> list[bool]:
        """For each answer of the assistant, True where it is left out of what is learned."""
        found: list[bool] = []
        for number, message in enumerate(messages):
            weight = weights[number] if weights else None
            if message["role"] == "assistant":
                found.append(not weight if weight is not None else number < given and not self._all)
            elif weight is not None and weight != self._all:
                asks, here = ("not to", "all text is") if self._all else ("to", "only answers are")
                raise WrongRecord(
                    f"asks {asks} learn message {number + 1}, of the {message['role']}, and {here} learned"
                    " here: take its weight out"
                )
        if all(found):
            raise WrongRecord("has nothing to learn: every answer has the weight 0")
        return found

    def _assembled(
        self,
        atoms: list[Atom],
        spans: list[tuple[int, int]],
        added: bool = False,
        apart: Sequence[tuple[int, int]] = (),
    ) -> Encoded:
        """Ids of atoms of which `spans` are learned, or all but `apart` where everything is."""
        if self._all:
            spans = [(0, len(atoms))]
        edges = sorted({0, len(atoms), *(edge for span in (*spans, *apart) for edge in span)})
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
        for start, end in apart:
            trained[place_of[start] : place_of[end]] = False
        started = self._started(ids)
        trained = np.concatenate((np.zeros(len(started) - len(ids), np.bool_), trained))
        trained[:1] = False
        if not trained.any():
            raise WrongRecord("has nothing to learn: the assistant's words have no tokens")
        return Encoded(np.array(started, np.int64), trained, added, self._doubled(started))

    def _segment(self, parts: tuple[str | int, ...]) -> list[int]:
        """Ids of neighbouring parts; short ones, such as what ends every conversation, are remembered."""
        known = self._remembered.get(parts)
        if known is None:
            known = self.tokenizer.encode_parts(parts)
            if len(parts) == 1 and len(known) <= 2 and len(self._remembered) < 1000:
                self._remembered[parts] = known
        return known

    def _whole(self, atoms: list[Atom], edges: list[int]) -> tuple[list[int], list[int]]:
        """Ids of everything at once, for vocabularies that put spaces in; and where each edge falls in
        them."""
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

    # Where the assistant speaks.

    def _spans(
        self, messages: Sequence[Message], atoms: Sequence[Atom], owners: Sequence[int | None]
    ) -> list[tuple[int, int]] | None:
        """The learned spans, one per answer, by the owners of the atoms; None where they do not tell."""
        self._probe()
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
                return None  # the template writes others' words between, or this answer twice
            close = next((place + 1 for place in reversed(own) if not _blank(atoms[place])), first)
            later = (at[0] for owner, at in places.items() if owner != number and at[0] >= close)
            start = self._begin(atoms, owners, first, last)
            last = self._through_end(atoms, close, min(later, default=len(atoms)))
            spans.append((start, last))
        return spans

    def _begin(self, atoms: Sequence[Atom], owners: Sequence[int | None], opening: int, after: int) -> int:
        """Where the model's part begins: after the generation prompt, or at what leads to the words.

        The prompt counts where the template wrote it, between `after` and `opening`, and where no words of a
        message follow it up to there.
        """
        end = _rfind(atoms, self._prompt, after, opening)
        if end is not None and all(owner is None for owner in owners[end - len(self._prompt) : opening]):
            return end
        start = opening - len(self._lead)
        if not self._prompt and start >= after and tuple(atoms[start:opening]) == self._lead:
            return start
        return opening

    def _turn_by_turn(self, messages: Sequence[Message], whole: list[Atom]) -> list[tuple[int, int]]:
        """The same by rendering up to each answer; WrongRecord where a later turn rewrites an earlier one."""
        spans = []
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
                    f"has an answer in message {number + 1} that the chat template rewrites: what to"
                    " learn of it cannot be told"
                )
            spans.append((len(before), end))
        return spans

    def _through_end(self, atoms: Sequence[Atom], close: int, limit: int) -> int:
        """The place after the first end token from `close` up to `limit`; `close` if there is none."""
        return next((place + 1 for place in range(close, limit) if atoms[place] in self._ends), close)

    def _owned(self, text: str) -> tuple[list[Atom], list[int | None]]:
        """The atoms of a rendered text, and the message that each of them comes from."""
        atoms: list[Atom] = []
        owners: list[int | None] = []
        for part, owner in pieces_of(text, self._specials):
            atoms += [part] if isinstance(part, int) else part
            owners += [owner] * (1 if isinstance(part, int) else len(part))
        return atoms, owners

    def _atoms_of(self, messages: Sequence[Message], prompt: bool = False) -> list[Atom]:
        return self._owned(self.template.sourced(messages, add_generation_prompt=prompt))[0]

    def _probe(self) -> None:
        """What the template writes to prompt an answer, and between that and the answer's words."""
        if self._probed:
            return
        question = [{"role": "user", "content": "Hi"}]
        try:
            bare = self._atoms_of(question)
            prompt = self._atoms_of(question, prompt=True)
            full = self._atoms_of([*question, {"role": "assistant", "content": _PROBE}])
            at = _rfind(full, tuple(_PROBE), 0, len(full))
            if at is not None and full[: len(prompt)] == prompt:
                self._lead = tuple(full[len(prompt) : at - len(_PROBE)])
            if prompt[: len(bare)] == bare:
                self._prompt = tuple(prompt[len(bare) :])
        except PophoodError:
            pass  # it wants messages of another kind; the words themselves are still known
        self._probed = True


def _unwritten(messages: Sequence[Message], text: str) -> tuple[str, ...]:
    """The system texts and the keys that a template leaves out; WrongRecord where it leaves out more."""
    unwritten = []
    for omission in omissions(messages, text):
        if omission.kind == "field":
            unwritten.append(omission.name)
        elif omission.kind == "text" and omission.role in ("system", "developer"):
            unwritten.append(omission.role)
        else:
            raise WrongRecord(f"has what the chat template leaves out: it writes {omission}")
    return tuple(unwritten)


def _blank(atom: Atom) -> bool:
    return isinstance(atom, str) and atom.isspace()


def _rfind(atoms: Sequence[Atom], wanted: tuple[Atom, ...], low: int, high: int) -> int | None:
    """The place after the last occurrence of `wanted` within low..high; None without one."""
    for end in range(high, low + len(wanted) - 1, -1) if wanted else ():
        if tuple(atoms[end - len(wanted) : end]) == wanted:
            return end
    return None


def _joined(atoms: Sequence[Atom]) -> list[str | int]:
    """Parts for `encode_parts`: neighbouring characters put together again."""
    parts: list[str | int] = []
    for special, run in groupby(atoms, lambda atom: isinstance(atom, int)):
        found = list(run)
        parts += found if special else ["".join(map(str, found))]
    return parts
