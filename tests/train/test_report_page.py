"""The report as a page in a real browser, its curve at its extremes, headline, and commands in a shell."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest

import pophood
from pophood.cli.app import pophood as program
from pophood.look.figures import has_drawings
from pophood.model.lm import LM
from pophood.train.data import DataOptions
from pophood.train.report.curve import NARROW, beta_of, curve, curve_data, smoothed
from pophood.train.report.measures import Measures
from pophood.train.report.next_commands import NextCommand, next_commands
from pophood.train.report.page import NOTHING, page
from pophood.train.report.report_card import Actual, Card, Change, headline
from pophood.train.run.plan import Plan
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.tune import Tuning
from tests.cli.browser import Page, chromium
from tests.look.test_figures_pages import JUDGE, SERIOUS
from tests.tiny import tiny_folder

SVG = "{http://www.w3.org/2000/svg}"
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


def events(steps: int, every: int) -> list[dict[str, Any]]:
    """A run whose loss falls evenly, with zero-mean noise."""
    found: list[dict[str, Any]] = [{"event": "evaluated", "step": 0, "loss": 4.2}]
    for step in range(1, steps + 1):
        fallen = 4 - 2 * step / steps
        found.append({"event": "step", "step": step, "loss": fallen + (0.3 if step % 2 else -0.3)})
        if step % every == 0:
            found.append({"event": "evaluated", "step": step, "loss": fallen + 0.1})
    return found


def card(
    prompts: tuple[str, ...] = ("Dear diary,",),
    before: tuple[str, ...] = (" old",),
    after: tuple[str, ...] = (" new",),
    **changes: Any,
) -> Card:
    """A card made by hand."""

    def measures(samples: tuple[str, ...]) -> Measures:
        return Measures(3.6, 0.25, samples, 1.0, passages=((3.6, 1),) * 8)

    fields: dict[str, Any] = dict.fromkeys(Plan.__dataclass_fields__, 1)
    plan = Plan(**fields | {"advice": (), "steps": 22})
    made = Card(
        name="notes-lora",
        model="smollm2",
        method="lora",
        data="notes.txt",
        reason="steps",
        step=22,
        prompts=prompts,
        before=measures(before),
        after=measures(after),
        loss_before=math.log(32.6),
        loss_after=math.log(26.6),
        changes=(Change("blocks.0.attn.q", 0.1, 0.01, 2.0),),
        plan=plan,
        actual=Actual(22, 60.0, 1 << 30, 1 << 20),
        warnings=(),
        commands=(NextCommand("Go on", ("pophood", "run", "Dear diary,", "--adapter", "notes-lora")),),
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("before", "after", "steps", "words"),
    [
        (math.log(32.6), math.log(26.6), 22, "Perplexity 32.6 to 26.6 in 22 steps"),
        (math.log(32.6), math.log(26.6), 1, "Perplexity 32.6 to 26.6 in 1 step"),
        (math.log(2048), math.log(9.876), 4321, "Perplexity 2,048 to 9.88 in 4,321 steps"),
        (math.log(26.61), math.log(26.58), 2, "Perplexity stayed at 26.6 in 2 steps"),
        (math.log(26.6), math.log(32.6), 3, "Perplexity rose from 26.6 to 32.6 in 3 steps"),
        (None, None, 3, "Tuned for 3 steps; nothing to validate with, so no perplexity"),
        (3.0, math.nan, 3, "Tuned for 3 steps; the validation loss is not a number"),
    ],
)
def test_the_headline_claims_what_was_measured(
    before: float | None, after: float | None, steps: int, words: str
) -> None:
    assert headline(before, after, steps) == words
    shown = card(loss_before=before, loss_after=after, step=steps)
    assert shown.as_dict()["headline"] == words
    html = page(shown, curve(events(3, 1)), curve(events(3, 1), width=NARROW))
    assert f"<h1>{words}</h1>" in html
    assert f"<title>notes-lora: {words}</title>" in html
    assert ("e to the power of the validation loss" in html) == (before is not None)


def test_weights_that_are_not_the_last_are_explained() -> None:
    assert card().kept == "those after 22 steps, the last"
    assert card(step=7).kept == "those after step 7 of 22: their validation loss was the lowest"
    assert card(step=7).headline.endswith("in 7 steps")


def test_the_mean_is_debiased_and_keeps_up() -> None:
    """Three losses by hand; on a slope the mean lags by at most a twentieth of the run."""
    by_hand = [4.0, (0.9 * 4 + 2) / 1.9, (0.81 * 4 + 0.9 * 2 + 3) / 2.71]
    found = [loss for _, loss in smoothed([(1, 4.0), (2, 2.0), (3, 3.0)], 0.9)]
    assert found == pytest.approx(by_hand)
    for steps in (20, 22, 100, 400, 5_000):
        slope = [(step, float(-step)) for step in range(1, steps + 1)]
        means = smoothed(slope, beta_of(steps))
        assert means[0] == slope[0]
        lag = max(mean - loss for (_, mean), (_, loss) in zip(means, slope, strict=True))
        assert lag <= steps / 20 + 0.15


@pytest.mark.parametrize("width", [880, NARROW])
@pytest.mark.parametrize("steps", [1, 2, 22, 5_000, 100_000])
def test_the_curve_has_a_legend_and_holds_together(steps: int, width: int) -> None:
    given = events(steps, max(1, steps // 10))
    root = ElementTree.fromstring(curve(given, width=width))
    texts = [text.text or "" for text in root.findall(f"{SVG}text")]
    names = ["training loss", "validation loss"]
    if steps > 1:
        names.insert(1, f"exponential mean (β = {beta_of(steps):g}, bias-corrected)")
    assert texts[: len(names)] == names
    assert "nats per token" in texts
    lines = {(line.get("class") or "").split()[0]: line for line in root.findall(f"{SVG}polyline")}
    assert list(lines) == (["steps", "mean", "validation"] if steps > 1 else ["validation"])
    for line in lines.values():
        points = [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
        assert len(points) <= 1502
        assert all(0 <= x <= width and 0 <= y <= 360 for x, y in points)
        assert points[-1][0] == width - 28, "the last step is drawn"
    dots = [dot.get("class") for dot in root.findall(f"{SVG}circle")]
    assert ("steps" in dots) == (steps == 1), "a single step is a dot"
    numbers = [text for text in root.findall(f"{SVG}text") if text.get("text-anchor") == "middle"]
    places = [float(number.get("x") or 0) for number in numbers]
    longest = max(len(number.text or "") for number in numbers)
    assert all(b - a > 6.9 * longest for a, b in pairwise(places)), "numbers stand apart"


HARD = (
    "لماذا السماء زرقاء؟",
    "春は",
    "<b>bold</b> & <script>alert(1)</script>",
    "- a list",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with everything that is hard to lay out."""
    before = (
        "السماء زرقاء لأن\nthe sky",
        "曙。やうやう白くなりゆく" * 12,
        "</pre><script>alert(2)</script>",
        "",
    )
    after = ("الضوء يتشتت" + "\nx" * 25, "夏は夜。", "word " * 2000 + "A" * 3000, "\x1b[31mred\u202e")
    made = card(HARD, before, after, warnings=("a <warning>",))
    path = tmp_path_factory.mktemp("report") / "report.html"
    shown = events(2_000, 200)
    path.write_text(page(made, curve(shown), curve(shown, width=NARROW), curve_data(shown)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_asks_for_nothing(
    report: Path, tab: Page, scheme: str, width: int
) -> None:
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    tab.call("Emulation.setDeviceMetricsOverride", **size)
    tab.events.clear()
    tab.open(report)
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
    assert tab.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert tab.value("document.images[0].currentSrc != document.images[0].src") == (width == 400)
    if has_drawings():
        said = tab.value("document.querySelector('.ph-stage').getAttribute('aria-label')")
        words = "Loss over the steps of the run. Curves of nats per token over step. training loss: "
        assert said.startswith(words)
        assert tab.value("document.querySelector('.picture').offsetHeight") == 0, "drawn in its place"
    tops = tab.value("[...document.querySelectorAll('.pair > div')].map(half => half.offsetTop)")
    assert len(tops) == 2 * len(HARD)
    beside = [before == after for before, after in zip(tops[::2], tops[1::2], strict=True)]
    assert beside == [width == 1280] * len(HARD), "two columns, one below the other where it is narrow"
    tab.value(f"{files('axe_core_python').joinpath('axe.min.js').read_text('utf-8')};0")
    answer = tab.call("Runtime.evaluate", expression=JUDGE, awaitPromise=True, returnByValue=True)
    assert [found for found in json.loads(answer["result"]["value"]) if found[0] in SERIOUS] == []
    complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert [event for event in tab.events if event.get("method") in complaints] == []
    requests = [event for event in tab.events if event.get("method") == "Network.requestWillBeSent"]
    urls = {event["params"]["request"]["url"] for event in requests}
    assert {url for url in urls if not url.startswith("data:")} == {report.as_uri()}


def test_samples_and_commands_are_text(report: Path, tab: Page) -> None:
    tab.events.clear()
    tab.open(report)
    own = "[...document.scripts].filter(one => one.type != 'application/json').length"
    assert tab.value(own) == 1, "the page's own"
    shown = tab.value(
        "[...document.querySelectorAll('.pair > div')].map(half => half.lastElementChild.textContent)"
    )
    assert shown[4] == "</pre><script>alert(2)</script>"
    assert shown[6:] == [NOTHING, "\\x1b[31mred\\u202e"]
    headings = tab.value("[...document.querySelectorAll('h3')].map(heading => heading.textContent)")
    assert headings == [f"Prompt {number}: {text}" for number, text in enumerate(HARD, 1)]
    assert tab.value("getComputedStyle(document.querySelector('.pair pre')).unicodeBidi") == "plaintext"
    clipped = "[...document.querySelectorAll('.pair pre')].map(part => part.scrollHeight > part.clientHeight)"
    assert [number for number, clips in enumerate(tab.value(clipped)) if clips] == [5], "the long one alone"
    command = tab.value("document.getElementById('command1').textContent")
    assert shlex.split(command) == ["pophood", "run", "Dear diary,", "--adapter", "notes-lora"]
    assert tab.value("[...document.querySelectorAll('button')].every(button => !button.hidden)")


# ---- commands ----


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    folder = tmp_path_factory.mktemp("models") / "a llama"
    tiny_folder(folder, "llama")
    return pophood.load(folder, threads=1)


@pytest.fixture
def tuned(lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tuning]:
    """Return a function that prepares a run on notes in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    Path("my notes.txt").write_text(TEXT, encoding="utf-8")

    def begin(out: str = "out", data: str = "my notes.txt", **changes: Any) -> Tuning:
        options = changes.pop("options", {})
        prompts = changes.pop("prompts", ())
        settings = TrainSettings(**{"minutes": 1.0, **changes})
        return Tuning(
            lm, data, out, settings, DataOptions(cache=tmp_path / "cache", **options), prompts=prompts
        )

    return begin


def parsed(line: str) -> dict[str, Any]:
    """Return the values that click parses from a command line, which it refuses if they are wrong."""
    name, *words = shlex.split(line)[1:]
    command = program.get_command(click.Context(program), name)
    assert command is not None, line
    return command.make_context(name, words).params


def lines(commands: Sequence[NextCommand]) -> list[str]:
    return [command.line() for command in commands]


def test_commands_of_an_adapter(tuned: Callable[..., Tuning], lm: LM) -> None:
    found = lines(next_commands(tuned(prompts=["The sun\nsets"]).setup, "steps"))
    llama = shlex.quote(lm.name)
    assert found == [
        "pophood run 'The sun sets' --adapter out",
        f"pophood eval {llama} 'my notes.txt' --adapter out",
        "pophood export out --to out.gguf",
        f"pophood tune 'my notes.txt' -m {llama} --minutes 2 -o out-longer",
    ]
    run, measure, export, tune = map(parsed, found)
    assert (run["text"], run["adapters"]) == ("The sun sets", (("out", 1.0),))
    assert (measure["model"], measure["adapters"]) == (lm.name, (("out", 1.0),))
    assert (export["model"], export["to"]) == ("out", "out.gguf")
    assert (tune["minutes"], tune["model"], str(tune["out"])) == (2, lm.name, "out-longer")


@pytest.mark.parametrize(
    ("reason", "settings", "end"),
    [
        ("stopped", {}, "-o out --resume --minutes 1"),
        ("clock", {"minutes": 2.5}, "-o out --resume --minutes 2.5"),
        ("stopped", {"minutes": None, "steps": 9}, "-o out --resume"),
    ],
)
def test_a_run_that_was_cut_is_gone_on_with(
    tuned: Callable[..., Tuning], reason: str, settings: dict[str, Any], end: str
) -> None:
    last = next_commands(tuned(**settings).setup, reason)[-1]
    assert last.line().endswith(end)
    assert parsed(last.line())["resume"]


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("no better", {}),
        ("steps", {"minutes": None, "steps": 3}),
        ("steps", {"lora": LoraSettings(rank=2)}),
        ("steps", {"options": {"validation": 0.2}}),
    ],
)
def test_a_run_that_a_short_command_does_not_repeat_is_not_offered_again(
    tuned: Callable[..., Tuning], reason: str, settings: dict[str, Any]
) -> None:
    assert [command.words[1] for command in next_commands(tuned(**settings).setup, reason)] == [
        "run",
        "eval",
        "export",
    ]


def test_commands_of_a_whole_model_and_of_odd_names(tuned: Callable[..., Tuning]) -> None:
    whole = lines(next_commands(tuned(method="full", minutes=None, steps=1).setup, "steps"))
    assert whole[1:] == ["pophood eval out 'my notes.txt'", "pophood export out --to out.gguf"]
    assert whole[0].endswith(" -m out")
    Path("-odd.jsonl").write_text('{"q": "What is it?", "a": "A number."}\n' * 30, encoding="utf-8")
    columns = {"columns": {"prompt": "q", "completion": "a"}, "completions_only": False}
    odd = lines(next_commands(tuned("-a:2", "-odd.jsonl", options=columns, prompts=["-x"]).setup, "clock"))
    assert odd[0] == "pophood run --adapter ./-a:2:1 -- -x"
    assert odd[1].endswith(" ./-odd.jsonl --adapter ./-a:2:1 --columns prompt=q,completion=a --everything")
    for line in odd + whole:
        parsed(line)
