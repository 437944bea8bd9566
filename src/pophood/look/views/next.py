"""The next token: the talk's top-10 table from the raw logits, and the effect of each sampling setting."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pophood.look.arguments import last_row, source_of
from pophood.look.source import PROMPT, quoted, quoted_end
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.model.score import check_k, top_table
from pophood.phrases import phrase
from pophood.sampling.softmax import Floats, measures, ranked, weights
from pophood.sampling.steps import chain
from pophood.sampling_settings import SamplingSettings
from pophood.table import Table, count

OFF = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
LISTED = 40  # tokens that a page can show
EXAMPLES = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05}  # shown if no setting is given


@dataclass(frozen=True)
class SettingEffect:
    """The effect of one setting: the listed tokens' probabilities (0: removed), and the tokens left."""

    setting: str  # "temperature 0.8"
    probabilities: tuple[float, ...]
    tokens: int
    kept: float  # raw probability of the tokens that are left
    entropy: float  # bits

    @property
    def choices(self) -> float:
        """The number of equally likely tokens with the same entropy: "like choosing among N"."""
        return float(2.0**self.entropy)


@dataclass(frozen=True, eq=False)
class NextView(View):
    """The likeliest next tokens; `left[0]` is the model's own distribution, the others are settings."""

    top: Table
    left: tuple[SettingEffect, ...]
    logits: Floats
    asked: bool  # whether the caller gave the settings; otherwise they are examples
    listed: tuple[tuple[int, str, float], ...]  # id, text and logit of the likeliest, more than in `top`
    array_names = ("logits",)  # [V]

    @property
    def headline(self) -> str:
        first = self.top[0]
        likeliest = quoted(str(first["token_text"]))
        return phrase(
            "After {text}, {model} expects {likeliest} with probability {probability:.4f}",
            text=quoted_end(self.source.text),
            model=self.source.model,
            likeliest=likeliest,
            probability=first["probability"],
        )

    @property
    def alt(self) -> str:
        likeliest = "; ".join(
            f"{quoted(str(row['token_text']))} {row['probability']:.4f}" for row in list(self.top)[:5]
        )
        settings = "; ".join(
            phrase("{setting} leaves {tokens:,}", setting=one.setting, tokens=one.tokens)
            for one in self.left[1:]
        )
        raw = self.left[0]
        return phrase(
            "Bars of the {several} likeliest next tokens. The first five: {likeliest}. The "
            "entropy is {entropy:.2f} bits, like choosing among {choices:,.1f} tokens. "
            "Beside them, smaller, the same bars under sampling settings: of {tokens} "
            "{settings}.",
            several=len(self.top),
            likeliest=likeliest,
            entropy=raw.entropy,
            choices=raw.choices,
            tokens=count(raw.tokens, "token"),
            settings=settings,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        raw = self.left[0]
        source = (
            phrase("The table shows the raw logits: no temperature, no filter."),
            phrase(
                "Entropy {entropy:.2f} bits: like choosing among {choices:,.1f} equally likely tokens.",
                entropy=raw.entropy,
                choices=raw.choices,
            ),
        )
        if not self.asked:
            which = phrase(
                "The settings are examples, each applied alone; `together` is the default of "
                "`run` (temperature 0.8, top_k 40)."
            )
        elif len(self.left) == 2:
            which = phrase("The setting is applied alone: every other step of sampling is off.")
        else:
            which = phrase(
                "Each setting is applied alone; `together` is the chain of `run` with all of them."
            )
        return (*source, which)

    def tables(self) -> dict[str, Table]:
        """Return `top` (the talk's table), `settings` (entropy of each) and `probabilities` (under each)."""
        head = ("token_id", "token_text", *(one.setting for one in self.left))
        tokens = zip(self.top.column("token_id"), self.top.column("token_text"), strict=True)
        rows = tuple(
            (id_, text, *(one.probabilities[i] for one in self.left)) for i, (id_, text) in enumerate(tokens)
        )
        settings = tuple((one.setting, one.tokens, one.kept, one.entropy, one.choices) for one in self.left)
        return {
            "top": self.top,
            "settings": Table(
                ("setting", "tokens_left", "raw_probability_kept", "entropy_bits", "like_choosing_among"),
                settings,
                title=phrase("what each setting leaves"),
                decimals={"entropy_bits": 2, "like_choosing_among": 1},
            ),
            "probabilities": Table(
                head, rows, title=phrase("probability under each setting (0: cannot be drawn)")
            ),
        }


def next(  # noqa: A001
    lm: LM,
    text: Text = PROMPT,
    *,
    k: int = 10,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> NextView:
    """List the k likeliest tokens after `text`, and the effect of temperature, top-k, top-p and min-p.

    Without any of the four, common values are shown as examples. The filters are those of sampling itself.
    Raises BadInput, ContextOverflow.

        look.next(lm, "The capital of Spain is", temperature=0.7, top_p=0.9)
    """
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    asked = {name: value for name, value in given.items() if value is not None}
    chains = settings_of(asked)
    check_k(k, lm.config.vocab_size)
    source = source_of(lm, text)
    row, _ = last_row(lm, source)
    top = top_table(row, k, lm.bundle.tokenizer.token_text)
    ids = ranked(row, k)
    left = tuple(_effect(name, row, settings, ids) for name, settings in chains.items())
    spell = lm.bundle.tokenizer.token_text
    listed = ranked(row, min(max(k, LISTED), len(row))).tolist()
    more = tuple((id_, spell(id_), float(row[id_])) for id_ in listed)
    return NextView(source, top, left, row, bool(asked), more)


def settings_of(asked: dict[str, float]) -> dict[str, SamplingSettings]:
    """Return settings by name: raw logits, each value alone, then all together. BadInput for a bad value.

    >>> list(settings_of({"top_k": 5}))
    ['raw', 'top_k 5']
    """
    chains = {phrase("raw"): OFF}
    for name, value in (asked or EXAMPLES).items():
        chains[f"{name} {value:g}"] = replace(OFF, **{name: value})  # type: ignore[arg-type]
    if len(asked) != 1:
        chains[phrase("together")] = replace(OFF, **asked) if asked else SamplingSettings()  # type: ignore[arg-type]
    return chains


def _effect(setting: str, row: Floats, settings: SamplingSettings, ids: NDArray[np.intp]) -> SettingEffect:
    """Apply the sampling chain of these settings to a row of logits [V]."""
    raw = weights(row)
    raw /= raw.sum(dtype=np.float64)
    if settings.greedy:
        survivors, probabilities = ids[:1], np.ones(1, np.float32)
        entropy = 0.0
    else:
        candidates = chain(settings).candidates(row, ())
        survivors = np.arange(len(row)) if candidates.ids is None else candidates.ids
        probabilities = weights(candidates.logits)
        probabilities /= probabilities.sum(dtype=np.float64)
        entropy = measures(candidates.logits)[1] / math.log(2)
    whole = np.zeros(len(row), np.float32)
    whole[survivors] = probabilities
    return SettingEffect(
        setting=setting,
        probabilities=tuple(whole[ids].tolist()),
        tokens=len(survivors),
        kept=float(raw[survivors].sum(dtype=np.float64)),
        entropy=entropy,
    )
