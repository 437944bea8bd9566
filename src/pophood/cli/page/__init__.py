"""The page of `run --html`: what the model thought at every token, in one file that needs no network.

Everything works without JavaScript: pointing at a token, focusing it or following its link shows its card
by CSS alone. The script adds arrow keys, Escape and pinning without touching the history.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from pophood.cli.terminal.console import visible

if TYPE_CHECKING:
    from pophood.generate import Token

# Least probability of each shade, and the words of the legend; below the last one is the fifth shade.
SHADES = (
    (0.5, "50 % and more"),
    (0.2, "20 to 50 %"),
    (0.05, "5 to 20 %"),
    (0.01, "1 to 5 %"),
    (0.0, "under 1 %"),
)


def shade(probability: float) -> int:
    """The shade of a probability, 0 (expected) to 4 (surprising).

    >>> [shade(p) for p in (1.0, 0.5, 0.3, 0.06, 0.01, 0.001)]
    [0, 0, 1, 2, 3, 4]
    """
    return next((i for i, (least, _) in enumerate(SHADES) if probability >= least), len(SHADES) - 1)


def percent(probability: float) -> str:
    """A probability with three significant digits.

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

    `outputs` holds each sample's tokens with their details; `facts` are the lines above the text;
    `token_text` spells a token for people, leading space kept and half characters as bytes.
    """
    parts = files(__package__)
    css, script, page = (parts.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    title = f"{facts.get('Model', 'A model')} continues “{_shorten(' '.join(prompt.split()))}”"
    return Template(page).substitute(
        policy=f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        title=html.escape(visible(title)),
        css=css,
        script=script,
        facts="\n".join(
            f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(visible(v))}</dd></div>"
            for k, v in facts.items()
        ),
        legend="\n".join(
            f'<li><span class="t s{i}">word</span> {words}</li>' for i, (_, words) in enumerate(SHADES)
        ),
        outputs="\n".join(
            _output(number, prompt, tokens, token_text, many=len(outputs) > 1)
            for number, tokens in enumerate(outputs, 1)
        ),
    )


OPENED = "o1t1"  # the token whose card is shown when the page opens: the first one of the first output


def _output(
    number: int, prompt: str, tokens: Sequence[Token], token_text: Callable[[int], str], many: bool
) -> str:
    heading = f"Output {number}" if many else "Output"
    body = "".join(_token(f"o{number}t{i}", token, token_text) for i, token in enumerate(tokens, 1))
    return (
        f'<section aria-labelledby="o{number}">\n<h2 id="o{number}">{heading}</h2>\n'
        f'<div class="text"><span class="prompt">{_inline(prompt)}</span>{body}</div>\n</section>'
    )


def _token(name: str, token: Token, token_text: Callable[[int], str]) -> str:
    spelled = token_text(token.id)
    probability = token.probability if token.probability is not None else math.nan
    label = f"{_spoken(spelled)}, probability {percent(probability)}"
    opened = " pinned" if name == OPENED else ""
    return (
        f'<a class="t s{shade(probability)}{opened}" id="{name}" href="#{name}" draggable="false" '
        f'aria-label="{html.escape(visible(label))}" aria-describedby="{name}c">'
        f"{_piece(token.text, spelled)}</a>"
        f'<div class="card" id="{name}c">{_card(token, token_text)}</div>'
    )


def _card(token: Token, token_text: Callable[[int], str]) -> str:
    rows = "".join(
        _row(rank, id_ == token.id, token_text(id_), p)
        for rank, (id_, _, _, p) in enumerate(token.top or (), 1)
    )
    figures = [("token", str(token.id)), ("position", str(token.position))]
    if token.probability is not None:
        figures.append(("probability", percent(token.probability)))
    if token.entropy is not None:
        figures.append(("entropy", f"{token.entropy / math.log(2):.2f} bits"))
    if token.logit is not None:
        figures.append(("logit", f"{token.logit:.3f}"))
    table = (
        f"<table><caption>The {len(token.top)} most likely here</caption><thead><tr><th>#</th><th>token</th>"
        f'<th colspan="2">probability</th></tr></thead><tbody>{rows}</tbody></table>'
        if token.top
        else ""
    )
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    return f"<p><code>{_visible(token_text(token.id))}</code></p><dl>{listed}</dl>{table}"


def _row(rank: int, taken: bool, spelled: str, probability: float) -> str:
    mark = " ← taken" if taken else ""
    return (
        f"<tr{' class=chosen' if taken else ''}><td>{rank}</td>"
        f'<td><code>{_visible(spelled)}</code><span class="taken">{mark}</span></td>'
        f"<td>{percent(probability)}</td>"
        f'<td><meter aria-hidden="true" min="0" max="1" value="{probability:.6f}"></meter></td></tr>'
    )


def _piece(text: str, spelled: str) -> str:
    """A token inside the text; the last piece of a character shows it, the pieces before only their bytes."""
    if r"\x" in spelled and r"\x" not in text:
        return _inline(text) if text else f'<span class="mark">{html.escape(visible(spelled))}</span>'
    return _inline(spelled)


def _inline(spelled: str) -> str:
    """A token inside the text: line breaks break, and show a mark."""
    return (
        html.escape(visible(spelled, keep="\n\r\t"))
        .replace("\r", "␍")
        .replace("\n", '<span class="mark">⏎</span>\n')
    )


def _visible(spelled: str) -> str:
    """A token by itself: its spaces and line breaks as marks."""
    marks = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
    return html.escape(visible("".join(marks.get(c, c) for c in spelled)))


def _spoken(spelled: str) -> str:
    names = {"": "nothing", " ": "space", "\n": "line break"}
    return names.get(spelled) or " ".join(spelled.split()) or "white space"


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
