"""The output layer: last hidden state times W_O = logits; softmax by hand; the greedy choice.

h_T [C] @ W_O [C, V] = logits [V]          probability = e^logit / sum of all e^logit
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pophood.look.arguments import last_row, source_of
from pophood.look.math.unembed import Floats, Unembed, agreement
from pophood.look.source import PROMPT, quoted, quoted_end
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.model.score import check_k
from pophood.phrases import phrase
from pophood.sampling.softmax import log_sum_exp, ranked
from pophood.table import Table


@dataclass(frozen=True)
class Scored:
    """One token: its logit by hand and from the engine, e^(logit - largest), its probability both ways."""

    id: int
    text: str
    logit: float
    engine_logit: float
    exponential: float
    probability: float  # exponential / total
    library: float  # pophood.sampling's


@dataclass(frozen=True, eq=False)
class OutputView(View):
    """The output layer: `hidden` [C] after the final norm, `logits` [V] by hand, `top` likeliest tokens."""

    hidden: Floats
    logits: Floats
    engine_logits: Floats
    top: tuple[Scored, ...]
    total: float  # the sum of all e^(logit - largest)
    tied: bool
    finish: str  # what the model does to the products with W_O, in words; "" for most
    array_names = ("hidden", "logits", "engine_logits")

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of W_O: (768, 50257) for GPT-2 small."""
        return len(self.hidden), len(self.logits)

    @property
    def difference(self) -> float:
        """The largest difference between a logit by hand and the engine's."""
        return float(np.abs(self.logits - self.engine_logits).max())

    @property
    def softmax_difference(self) -> float:
        """The largest difference between a listed probability by hand and the library's."""
        return max(abs(token.probability - token.library) for token in self.top)

    @property
    def greedy(self) -> Scored:
        """The likeliest token, which greedy decoding chooses."""
        return self.top[0]

    @property
    def headline(self) -> str:
        features, vocabulary = self.shape
        return phrase(
            "{features} numbers times W_O ({features} × {vocabulary:,}) give "
            "{vocabulary:,} logits; the largest after {text} is that of {likeliest}",
            features=features,
            vocabulary=vocabulary,
            text=quoted_end(self.source.text),
            likeliest=quoted(self.greedy.text),
        )

    @property
    def alt(self) -> str:
        likeliest = "; ".join(f"{quoted(t.text)} {t.logit:.2f}, {t.probability:.4f}" for t in self.top[:5])
        return phrase(
            "Three steps. The last hidden state of {features} numbers; the logits, as "
            "bars, of the {several} likeliest tokens; their probabilities, as bars. Logit "
            "and probability of the first five: {likeliest}.",
            features=self.shape[0],
            several=len(self.top),
            likeliest=likeliest,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        tied = (
            phrase(
                "W_O is the token embedding again (tied), transposed: a token's logit is the "
                "dot product of the last hidden state with that token's own vector."
            )
            if self.tied
            else phrase("W_O is a matrix of its own (not tied to the token embedding).")
        )
        return (
            tied,
            *([phrase("A logit is that product{finish}.", finish=self.finish)] if self.finish else []),
            phrase(
                "The {vocabulary:,} logits by hand and from the engine differ by at most {difference}.",
                vocabulary=self.shape[1],
                difference=agreement(self.difference),
            ),
            phrase("e^(logit - largest logit) gives the same probabilities as e^logit, and cannot overflow."),
            phrase("The talk's library decodes greedily by default: it takes the largest logit."),
        )

    def tables(self) -> dict[str, Table]:
        """Return `softmax` (one row per token) and `steps` (with shapes and checks)."""
        computed = (
            phrase("e^(logit - largest)"),
            phrase("divided by their sum"),
            phrase("softmax of the library"),
        )
        rows = tuple((t.id, t.text, t.logit, t.exponential, t.probability, t.library) for t in self.top)
        softmax = Table(
            ("token_id", "token_text", "logit", *computed),
            rows,
            bars=computed[1],
            title=phrase(
                "softmax by hand: their sum over all {vocabulary:,} tokens is {total:.4f}",
                vocabulary=self.shape[1],
                total=self.total,
            ),
            decimals={"logit": 2},
        )
        features, vocabulary = self.shape
        steps = (
            (phrase("last hidden state h_T"), f"({features},)"),
            ("W_O", f"({features}, {vocabulary})"),
            (phrase("W_O is the token embedding again"), phrase("yes (tied)") if self.tied else phrase("no")),
            (phrase("logits = h_T W_O{finish}", finish=self.finish), f"({vocabulary},)"),
            (phrase("largest difference from the engine's logits"), f"{self.difference:.1e}"),
            (phrase("largest difference from the library's softmax"), f"{self.softmax_difference:.1e}"),
            (phrase("greedy choice"), f"{self.greedy.id} {self.greedy.text!r}"),
        )
        return {"softmax": softmax, "steps": Table(("step", "value"), steps)}


def output(lm: LM, text: Text = PROMPT, *, k: int = 10) -> OutputView:
    """Compute the logits and the softmax after `text` by hand, and compare them with the engine's.

    `k` tokens are listed. Raises BadInput, ContextOverflow.

        look.output(lm, "The capital of Spain is").difference     # below 1e-3
    """
    check_k(k, lm.config.vocab_size)
    source = source_of(lm, text)
    engine_logits, taps = last_row(lm, source, ["final_norm"])
    hidden = taps["final_norm"][-1]
    unembed = Unembed.of(lm)
    logits = unembed.logits(hidden[None])[0]
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    total = float(exponentials.sum())
    log_mass = log_sum_exp(engine_logits)
    spell = lm.bundle.tokenizer.token_text
    top = tuple(
        Scored(
            id=i,
            text=spell(i),
            logit=float(logits[i]),
            engine_logit=float(engine_logits[i]),
            exponential=float(exponentials[i]),
            probability=float(exponentials[i]) / total,
            library=float(np.exp(engine_logits[i] - log_mass)),
        )
        for i in ranked(engine_logits, k).tolist()
    )
    tied, finish = lm.config.tied_output, unembed.words
    return OutputView(source, hidden, logits, engine_logits, top, total, tied, finish)
