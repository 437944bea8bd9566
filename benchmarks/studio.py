"""The studio's page in a browser: its start, its answers beside `LM.stream`, a click on a token, its frames.

Chromium without a screen or a graphics processor, on the processors that the model computes with. Bars:
- answers: 200 tokens of Qwen2.5-0.5B's shape at Q8_0, from the press on the button to the end, at least 0.95
  of the tokens/s of `LM.stream` in a hidden tab, 0.85 in sight;
- clicks: from a click on one of 200 tokens until its ten likeliest and its lens are painted, GPT-2 small's
  shape at Q8_0, at most 150 ms;
- frames: the 99th percentile of the time between frames, a conversation of 4,000 tokens, with and without
  colours, and a map of 200 x 200 weights are scrolled, at most 50 ms;
- crash: the model's process is killed in the middle of an answer of Qwen2.5-0.5B's shape: from the kill until
  the next token is in the page, at most 5 s;
- start: from the server's answer until the page can be written in, with an empty cache, at most 1 s.
Run: python benchmarks/studio.py [--parts answers clicks] [--rounds 5] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from _amx import add_no_amx
from _models import KEPT, gpt2_gguf, quantised_gguf, qwen_gguf
from _studio import desk
from _timing import Work, interleaved, judged, paired_ratio, report, summary

import pophood

STEPS, LONG, SIDE = 200, 4000, 200  # tokens of an answer, of a conversation, of a map's side
APART = 12  # tokens between two clicks
LINE = 12  # tokens of a line of the long conversation
SETTINGS = {"temperature": 0.8, "top_k": 40}  # the page's own, unless a person changes them


class Texts:
    """Beginnings of answers, another one each time: nothing is cached."""

    def __init__(self) -> None:
        self._turn = 0

    def next(self) -> str:
        """A text of about 20 tokens."""
        self._turn += 1
        return f"{self._turn} boats went down the river that morning, and none of them was seen again by"


def answers(rounds: int, threads: int) -> None:
    """Compare tokens/s of a whole answer: in this program, in a hidden tab, in a tab in sight."""
    path = quantised_gguf(qwen_gguf(), "Q8_0")
    lm, texts = pophood.load(path, threads=threads, context=512), Texts()

    def streamed() -> float:
        began = time.perf_counter()
        tokens = sum(1 for _ in lm.stream(texts.next(), max_tokens=STEPS, **SETTINGS))
        return tokens / (time.perf_counter() - began)

    with desk(path, threads) as page:

        def answered(hidden: bool) -> float:
            page.write(texts.next())
            page.hide(hidden)
            milliseconds, tokens = page.answered()
            page.hide(False)
            assert tokens == STEPS, tokens
            return 1000 * tokens / milliseconds

        works: dict[str, Work] = {
            "LM.stream": streamed,
            "tab hidden": lambda: answered(True),
            "tab in sight": lambda: answered(False),
        }
        figures = interleaved(works, rounds)
    bars = {
        "Qwen2.5-0.5B Q8_0, studio in a hidden tab / LM.stream": judged(
            paired_ratio(figures, "tab hidden", "LM.stream"), 0.95, 0.98
        ),
        "Qwen2.5-0.5B Q8_0, studio in sight / LM.stream": judged(
            paired_ratio(figures, "tab in sight", "LM.stream"), 0.85, 0.95
        ),
    }
    report("the studio's answers", "tokens/s", figures, bars=bars, threads=threads)


def clicks(rounds: int, threads: int) -> None:
    """Time clicks on tokens of one answer, each on another one; a round is a click on every twelfth."""
    figures: dict[str, list[float]] = {"median": [], "slowest": []}
    with desk(gpt2_gguf("Q8_0"), threads) as page:
        page.write(Texts().next())
        page.answered()
        page.opened(STEPS - 1)  # the code of the panel is compiled
        for start in range(rounds):
            taken = [page.opened(index) for index in range(start, STEPS, APART)]
            figures["median"].append(float(np.median(taken)))
            figures["slowest"].append(max(taken))
    bars = {
        "GPT-2 small Q8_0, ms from a click to the ten likeliest and the lens": judged(
            summary(figures["slowest"]), 150, 100, most=True
        )
    }
    report(
        "a click on a token", "ms", figures, bars=bars, threads=threads, clicks=len(range(0, STEPS, APART))
    )


def frames(rounds: int, threads: int) -> None:
    """Scroll what is long, while the model has nothing to do."""
    figures: dict[str, list[float]] = {}

    def scrolled(what: str, selector: str, part: str) -> None:
        for _ in range(rounds):
            figures.setdefault(what, []).append(float(np.percentile(page.frames(selector, part), 99)))

    with desk(gpt2_gguf("Q8_0"), threads) as page:
        page.show(conversation(LONG))
        scrolled("conversation", ".turns", ".turn.assistant")
        page.tab.key("c", 67, "c")
        page.tab.until("document.querySelector('.tokens.coloured')")
        scrolled("conversation, coloured", ".turns", ".turn.assistant")
        page.look("attention", words(pophood.load(gpt2_gguf("Q8_0"), threads=threads), SIDE))
        page.tab.page.mouse("mouseMoved", ".answers canvas")
        page.pictured("#main", (0, 120, 240), KEPT)
        scrolled("map", "#main", ".answers canvas")
    bars = {
        f"99 % of frames, ms, scrolling: {what}": judged(summary(gaps), 50, 34, most=True)
        for what, gaps in figures.items()
    }
    report("frames of the studio", "ms, 99th percentile", figures, bars=bars, threads=threads)


def conversation(length: int) -> list[dict[str, object]]:
    """The turns of a question and a long answer, with the ten likeliest of every token."""
    top = [[n, f" w{n}", -1.0 - n] for n in range(10)]
    tokens = [
        {"id": n % 7, "text": "end.\n" if n % LINE == LINE - 1 else f" word{n % 9}", "logprob": -n % 5 - 0.1}
        | {"entropy": n % 6, "top": top}
        for n in range(length)
    ]
    text = "".join(str(token["text"]) for token in tokens)
    return [
        {"id": "question", "parent": None, "role": "user", "text": "Write"},
        {
            "id": "answer",
            "parent": "question",
            "role": "assistant",
            "text": text,
            "tokens": tokens,
            "prompt": [1],
        },
    ]


def words(lm: pophood.LM, length: int) -> str:
    """A text of so many tokens."""
    text = ""
    while len(lm.bundle.tokenizer.encode(text)) < length:
        text += " a" if text else "a"
    return text


def start(rounds: int, threads: int) -> None:
    """Load the page with an empty cache."""
    with desk(gpt2_gguf("Q8_0"), threads) as page:
        figures = {"usable": [page.started() for _ in range(rounds)]}
    bars = {
        "ms from the server's answer until the page is usable": judged(
            summary(figures["usable"]), 1000, 500, most=True
        )
    }
    report("the studio's start", "ms", figures, bars=bars, threads=threads)


def crash(rounds: int, threads: int) -> None:
    """Kill the model's process in the middle of an answer."""
    texts, figures = Texts(), []
    with desk(quantised_gguf(qwen_gguf(), "Q8_0"), threads) as page:
        for _ in range(rounds):
            page.write(texts.next())
            figures.append(page.crashed())
    bars = {
        "Qwen2.5-0.5B Q8_0, ms from the end of the model's process until its answer goes on": judged(
            summary(figures), 5000, 2500, most=True
        )
    }
    report("a crash in the studio", "ms", {"gone on": figures}, bars=bars, threads=threads)


PARTS: dict[str, Callable[[int, int], None]] = {
    "answers": answers,
    "clicks": clicks,
    "crash": crash,
    "frames": frames,
    "start": start,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts that are asked for, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args(arguments)
    for part in options.parts:
        PARTS[part](options.rounds, options.threads)


if __name__ == "__main__":
    main()
