"""The page of `run --html`: complete, self-contained, accessible, and safe with hostile tokens."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from pophood.cli import page

WORDS = [" Madrid", "\n", "<script>alert(1)</script>", "\\xE2", "\u202e", "$title", '"><img src=x>', " a"]


def token(sample: int, position: int, word: int, probability: float) -> Any:
    top = tuple((i, WORDS[i], -float(i), probability / (i + 1)) for i in range(len(WORDS)))
    return SimpleNamespace(
        id=word, text=WORDS[word], position=position, sample=sample, logit=-33.25, probability=probability,
        entropy=math.log(8), top=top, seconds=0.1, finish=None,
    )  # fmt: skip


OUTPUTS = [
    [token(s, 5 + i, i, p) for i, p in enumerate((0.9, 0.3, 0.1, 0.03, 1e-7, 0.5, 0.2, 0.01))] for s in (0, 1)
]
FACTS = {"Model": "gpt2 <b>", "Seed": "7"}
TEXT = page.render("The <i>capital\n", OUTPUTS, FACTS, lambda i: WORDS[i])
MARKUP = re.sub(r"<script>.*?</script>", "", TEXT, flags=re.DOTALL)  # without the page's own script
CSS = TEXT.split("<style>")[1].split("</style>")[0]


class Elements(HTMLParser):
    """Collects every start tag with its attributes, and the tags that are still open."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def elements() -> Elements:
    parsed = Elements()
    parsed.feed(TEXT)
    parsed.close()
    assert not parsed.open
    return parsed


def test_every_token_has_its_card_with_probability_entropy_and_top_ten() -> None:
    tags = elements().tags
    links = {a["id"]: a for t, a in tags if t == "a"}
    assert len(links) == 16
    cards = {a["id"] for t, a in tags if t == "div" and a.get("class") == "card"}
    for name, link in links.items():
        assert link["aria-describedby"] in cards
        assert link["href"] == f"#{name}"
        assert "probability" in (link["aria-label"] or "")
    assert TEXT.count("<dt>probability</dt>") == TEXT.count("3.00 bits") == TEXT.count("-33.250") == 16
    assert TEXT.count("<meter ") == 16 * len(WORDS)
    assert TEXT.count("← taken") == 16


def test_nothing_is_fetched_and_nothing_foreign_runs() -> None:
    tags = elements().tags
    data = {"type": "application/json", "id": "tokens"}  # held where the script that draws is built
    own = [t for t, attributes in tags if t in ("script", "style") and attributes != data]
    assert own == ["style", "script"]
    for tag, attributes in tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert not {"src", "style"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] or "" for t, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"https?://|//[a-z]", MARKUP)


def test_a_token_cannot_become_markup_or_turn_the_text_around() -> None:
    for markup in ("<script>alert", "<img", "<i>", "gpt2 <b>"):
        assert markup not in MARKUP
    assert "\u202e" not in TEXT
    assert r"\u202e" in TEXT and "$title" in TEXT


def test_the_title_is_readable() -> None:
    found = re.search("<title>(.*?)</title>", TEXT)
    assert found is not None
    assert found[1] == "gpt2 &lt;b&gt; continues “The &lt;i&gt;capital”"


def test_shades_differ_by_line_as_well_as_by_colour() -> None:
    styles = [re.search(rf"\.s{i} {{[^}}]*text-decoration-style: (\w+)", CSS) for i in range(1, 5)]
    assert len({found[1] for found in styles if found}) == 4


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1])
def test_contrast_is_at_least_that_of_wcag_aa(theme: int) -> None:
    colours = re.findall(
        r"--(\w+): (#[0-9a-f]{6})", CSS
    )  # the first value of a name is the light one, the last the dark one
    names = dict(colours if theme else reversed(colours))
    pairs = [("text", ground) for ground in ("background", "surface", "s0", "s1", "s2", "s3", "s4")]
    pairs += [("muted", "background"), ("muted", "surface"), ("accent", "surface")]
    for text, ground in pairs:
        light, dark = sorted((luminance(names[text]), luminance(names[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
    shades = [luminance(names[f"s{i}"]) for i in range(5)]
    assert shades == sorted(shades, reverse=theme == 0)


def test_a_character_in_pieces_is_shown_where_it_becomes_whole() -> None:
    spelled = ["\\xF0\\x9F", "\\x99\\x82", "\\xE9", "\\x41 typed"]
    tokens = [token(0, i, 0, 0.5) for i in range(4)]
    for i, text in enumerate(("", "🙂", "", "\\x41 typed")):
        tokens[i].id, tokens[i].text = i, text
    text = page.render("", [tokens], {}, lambda i: spelled[i] if i < 4 else "")
    shown = re.findall(r'aria-describedby="\w+">(.*?)</a>', text)
    mark = '<span class="mark">{}</span>'
    assert shown == [mark.format(r"\xF0\x9F"), "🙂", mark.format(r"\xE9"), r"\x41 typed"]
