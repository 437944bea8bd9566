"""Tokens: how the model's tokenizer splits a text, and how several texts or languages compare."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pophood.errors import BadInput
from pophood.look.blocks import Block, Lines
from pophood.look.source import PROMPT, ViewSource, is_text, model_title
from pophood.look.view import View
from pophood.look.words import SENTENCES, count_words
from pophood.model.lm import LM, Text
from pophood.phrases import phrase
from pophood.table import Table, count

BOXES_WIDTH = 76  # columns of a terminal


@dataclass(frozen=True, slots=True)
class Cut:
    """One text and its tokens."""

    label: str  # a language, or the number of the text
    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    start: int  # number of start tokens that the tokenizer put before the text

    @property
    def count(self) -> int:
        """The number of tokens without the start tokens."""
        return len(self.ids) - self.start

    @property
    def per_character(self) -> float:
        """Tokens per Unicode character."""
        return self.count / len(self.text)

    @property
    def per_word(self) -> float | None:
        """Tokens per word between spaces; None for a script without spaces, or if there is no word."""
        words = count_words(self.text)
        return self.count / words if words else None


@dataclass(frozen=True)
class TokensView(View):
    """One text or several, split into tokens."""

    cuts: tuple[Cut, ...]
    languages: bool

    @property
    def headline(self) -> str:
        model = model_title(self.source.model)
        if self.languages:
            return phrase(
                "One sentence in {cuts} languages, split by the tokenizer of {model}",
                cuts=len(self.cuts),
                model=model,
            )
        if len(self.cuts) > 1:
            return phrase("{texts} in tokens of {model}", texts=count(len(self.cuts), "text"), model=model)
        return phrase(
            "{quoted} in {tokens} of {model}",
            quoted=_quoted(self.cuts[0].text),
            tokens=count(len(self.cuts[0].ids), "token"),
            model=model,
        )

    @property
    def alt(self) -> str:
        texts = []
        for cut in self.cuts:
            pairs = [f"{token!r} {id_}" for token, id_ in zip(cut.tokens, cut.ids, strict=True)]
            more = phrase(" and {pairs} more", pairs=len(pairs) - 40) if len(pairs) > 40 else ""
            label = f"{phrase(cut.label)}: " if len(self.cuts) > 1 else ""
            texts.append(f"{label}{count(len(pairs), 'token')}: {', '.join(pairs[:40])}{more}")
        return phrase("Coloured boxes, one for each token, with its id. {texts}.", texts=". ".join(texts))

    @property
    def notes(self) -> tuple[str, ...]:
        notes = []
        if any(cut.start for cut in self.cuts):
            notes.append(
                phrase("The tokenizer puts a start token before every text; the ratios leave it out.")
            )
        if self.languages:
            notes.append(
                phrase(
                    "The same sentence takes more tokens in a language that was rare in the text "
                    "from which the vocabulary was made. Japanese writes no spaces, so it has no "
                    "tokens per word."
                )
            )
        if any("\\x" in token for cut in self.cuts for token in cut.tokens):
            notes.append(phrase("\\xE2 is one byte of a character that takes more than one token."))
        return tuple(notes)

    def tables(self) -> dict[str, Table]:
        """Return `tokens` and `comparison`; for several texts, `comparison` comes first."""
        if len(self.cuts) == 1:
            return {"tokens": _token_table(self.cuts[0]), "comparison": self._comparison()}
        rows = tuple((phrase(cut.label), *row) for cut in self.cuts for row in _token_table(cut).rows)
        all_tokens = Table((self._label, "position", "token_id", "token_text"), rows)
        return {"comparison": self._comparison(), "tokens": all_tokens}

    def picture(self) -> tuple[Block, ...]:
        boxes = tuple(
            Lines(
                f"{phrase(cut.label)}: {count(cut.count, 'token')}" if len(self.cuts) > 1 else self.title,
                token_boxes(cut.ids, cut.tokens),
                token_boxes(cut.ids, cut.tokens, ascii_only=True),
            )
            for cut in self.cuts
        )
        return (*boxes, next(iter(self.tables().values())))

    def _comparison(self) -> Table:
        sizes = [(len(cut.text), count_words(cut.text), len(cut.text.encode())) for cut in self.cuts]
        rows = tuple(
            (phrase(cut.label), *size, cut.count, cut.per_character, cut.per_word)
            for cut, size in zip(self.cuts, sizes, strict=True)
        )
        ratios = ("tokens_per_character", "tokens_per_word")
        columns = (self._label, "characters", "words", "bytes", "tokens", *ratios)
        return Table(columns, rows, decimals=dict.fromkeys(ratios, 2))

    @property
    def _label(self) -> str:
        return "language" if self.languages else "number"


def tokens(lm: LM, text: Text | Sequence[str] = PROMPT, *, languages: bool = False) -> TokensView:
    """Show how the tokenizer splits a text, or several; `languages` compares one sentence in five languages.

    print(look.tokens(lm, "The capital of Spain is").tables()["tokens"])
    look.tokens(lm, ["color", "colour"]).tables()["comparison"]
    look.tokens(lm, languages=True).figure()

    Raises BadInput for no text, for an empty one, and for a text together with `languages`.
    """
    if languages and text != PROMPT:
        raise BadInput("languages compares one sentence of its own: leave the text out")
    if languages:
        labelled: list[tuple[str, Text]] = list(SENTENCES.items())
    elif not isinstance(text, str) and not len(text):
        raise BadInput("there is no text: give at least one")
    else:
        texts: list[Text] = [text] if is_text(text) else list(text)  # type: ignore[arg-type, list-item]
        labelled = [(str(number), one) for number, one in enumerate(texts, 1)]
    cuts = tuple(_cut(lm, label, one) for label, one in labelled)
    return TokensView(ViewSource.of(lm, labelled[0][1] if len(cuts) == 1 else None), cuts, languages)


def _cut(lm: LM, label: str, text: Text) -> Cut:
    if not len(text):
        raise BadInput(f"text {label} is empty: give at least one character")
    source = ViewSource.of(lm, text)
    return Cut(label, source.text, source.ids, source.tokens, len(lm.bundle.tokenizer.start_ids))


def _token_table(cut: Cut) -> Table:
    rows = zip(range(len(cut.ids)), cut.ids, cut.tokens, strict=True)
    return Table(("position", "token_id", "token_text"), tuple(rows))


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= 60 else f'"{line[:57]}…"'


def token_boxes(ids: Sequence[int], tokens: Sequence[str], *, ascii_only: bool = False) -> str:
    """Draw tokens in boxes with their ids below, in rows that fit a terminal; spaces stay spaces.

    >>> print(token_boxes([464, 3139, 286], ["The", " capital", " of"]))
    │The│ capital│ of│
    │464│3139    │286│
    """
    edge = "|" if ascii_only else "│"
    rows: list[tuple[str, str]] = []
    above, below = edge, edge
    for id_, token in zip(ids, tokens, strict=True):
        text, number = _shown(token, ascii_only), str(id_)
        wide = max(_columns(text), len(number))
        if len(below) > 1 and len(below) + wide + 1 > BOXES_WIDTH:
            rows.append((above, below))
            above, below = edge, edge
        above += text + " " * (wide - _columns(text)) + edge
        below += number.ljust(wide) + edge
    return "\n\n".join(f"{texts}\n{numbers}" for texts, numbers in [*rows, (above, below)])


def _shown(token: str, ascii_only: bool) -> str:
    """Escape control and combining characters, whose width is zero or unknown, and others if ASCII only."""

    def escaped(character: str) -> bool:
        kind = unicodedata.category(character)
        return kind[0] in "CM" or kind in ("Zl", "Zp") or (ascii_only and not character.isascii())

    return "".join(c.encode("unicode_escape").decode() if escaped(c) else c for c in token)


def _columns(text: str) -> int:
    """Return the number of terminal columns of a text: two for a wide East Asian character."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
