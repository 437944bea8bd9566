"""The page of `run --html`: every token with its probability, entropy and alternatives, in one file.

The page works without JavaScript: pointing at a token, focusing it or following its link shows its card by
CSS alone. The script adds arrow keys, Escape and pinning, and leaves the browser's history alone. The script
of studio/pages/run.ts, where built, colours the tokens by surprisal or entropy and draws both as curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pophood.cli.terminal.console import visible
from pophood.web import built_script, json_block, render_page

if TYPE_CHECKING:
    from pophood.generate import Token

# The lowest probability of each shade, and its text in the legend.
SHADES = (
    (0.5, "50 % and more"),
    (0.2, "20 to 50 %"),
    (0.05, "5 to 20 %"),
    (0.01, "1 to 5 %"),
    (0.0, "under 1 %"),
)


def shade(probability: float) -> int:
    """Return the shade of a probability, 0 (expected) to 4 (surprising).

    >>> [shade(p) for p in (1.0, 0.5, 0.3, 0.06, 0.01, 0.001)]
    [0, 0, 1, 2, 3, 4]
    """
    return next((i for i, (least, _) in enumerate(SHADES) if probability >= least), len(SHADES) - 1)


def percent(probability: float) -> str:
    """Return a probability as a percentage with three significant digits.

    >>> [percent(p) for p in (1.0, 0.2134, 0.0213, 0.000021, 1e-9)]
    ['100 %', '21.3 %', '2.13 %', '0.0021 %', '< 0.0001 %']
    """
    value = 100 * probability
    if value < 0.0001:
        return "< 0.0001 %" if value > 0 else "0 %"
    digits = max(0, min(4, 2 - math.floor(math.log10(value))))
    return f"{value:.{digits}f} %"


def render(
    prompt: str,
    outputs: Sequence[Sequence[Token]],
    facts: Mapping[str, str],
    token_text: Callable[[int], str],
) -> str:
    """Return the whole page as text.

    `outputs` holds each sample's tokens with their details, and `facts` the lines above the text.
    `token_text` returns a token's text for display, its leading space kept, incomplete characters as bytes.
    """
    title = f"{facts.get('Model', 'A model')} continues “{_shorten(' '.join(prompt.split()))}”"
    drawn = built_script("run") is not None
    return render_page(
        __package__,
        title=visible(title),
        images="",
        drawn="run" if drawn else None,
        data=json_block([[_numbers(token) for token in tokens] for tokens in outputs]) if drawn else "",
        facts={name: visible(value) for name, value in facts.items()},
        prompt=_inline(prompt),
        shades=SHADES,
        outputs=[[_token(token, token_text) for token in tokens] for tokens in outputs],
    )


def _token(token: Token, token_text: Callable[[int], str]) -> dict[str, Any]:
    """Return the values of one token that the template shows in the text and on the token's card."""
    spelled = token_text(token.id)
    probability = token.probability if token.probability is not None else math.nan
    figures = [("token", str(token.id)), ("position", str(token.position))]
    if token.probability is not None:
        figures.append(("probability", percent(token.probability)))
    if token.entropy is not None:
        figures.append(("entropy", f"{token.entropy / math.log(2):.2f} bits"))
    figures.append(("logit", f"{token.logit:.3f}"))
    return {
        "shade": shade(probability),
        "label": visible(f"{_spoken(spelled)}, probability {percent(probability)}"),
        "piece": _piece(token.text, spelled),
        "shown": _marked(spelled),
        "figures": figures,
        "top": [
            {
                "taken": id_ == token.id,
                "shown": _marked(token_text(id_)),
                "percent": percent(p),
                "probability": p,
            }
            for id_, _, _, p in token.top or ()
        ],
    }


def _numbers(token: Token) -> dict[str, Any]:
    """Return a token as the script that draws takes it; entropy in bits."""
    bits = None if token.entropy is None else token.entropy / math.log(2)
    return {"text": token.text, "id": token.id, "probability": token.probability, "entropy": bits}


def _piece(text: str, spelled: str) -> dict[str, Any]:
    """Return a token as part of the text; a character split over several tokens is shown at the last one."""
    part = r"\x" in spelled and r"\x" not in text  # this token holds only part of a character
    return {"text": _inline(text if part and text else spelled), "mark": part and not text}


def _inline(text: str) -> str:
    """Return text for use inside the running text, where the template marks line breaks."""
    return visible(text, keep="\n\r\t").replace("\r", "␍")


def _marked(spelled: str) -> str:
    """Return a token on its own, with marks for its spaces and line breaks."""
    marks = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
    return visible("".join(marks.get(c, c) for c in spelled))


def _spoken(spelled: str) -> str:
    names = {"": "nothing", " ": "space", "\n": "line break"}
    return names.get(spelled) or " ".join(spelled.split()) or "white space"


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
