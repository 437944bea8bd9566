"""The view of a benchmark: sentences, notes, tables, commands and pictures, from figures that are made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pophood.bench.picture import FURTHEST, grouped
from pophood.bench.record import (
    BenchRecord,
    EarlierRun,
    MachineRate,
    Setup,
    Spread,
    StartCost,
    WorkRate,
    read_earlier,
)
from pophood.bench.settings import Work
from pophood.bench.view import BenchView, rate_text
from pophood.cli.terminal.display import Display
from pophood.cli.terminal.view_screen import lay_out
from pophood.look import figures
from pophood.look.source import ViewSource
from tests.look.pictures import faults

SETUP = Setup(
    "0.1.0", "smollm2", "auto", "f16", "avx2", 8192, 97_000_000, 23_040, "A Chip", 8, 2, default_threads=2
)


def rate(work: Work, median: float, ceiling: float | None = None) -> WorkRate:
    limit = None if ceiling is None else "multiplications" if work.kind == "prefill" else "memory"
    return WorkRate(work, Spread(median, round(0.9 * median, 6), round(1.1 * median, 6)), ceiling, limit)  # type: ignore[arg-type]


PREFILLS = (Work("prefill", 1, 512), Work("prefill", 2, 512))
DECODES = (Work("decode", 1, 128, 16), Work("decode", 2, 128, 16))
DEEP, EIGHT = Work("decode", 2, 128, 800), Work("decode", 2, 128, 16, 8)
RECORD = BenchRecord(
    SETUP,
    rounds=3,
    complete=True,
    rates=(
        rate(PREFILLS[0], 1500.0, 3000.0),
        rate(DECODES[0], 208.0, 400.0),
        rate(PREFILLS[1], 2713.4, 6000.0),
        rate(DECODES[1], 200.0, 500.0),
        rate(DEEP, 98.76),
        rate(EIGHT, 900.0, 1800.0),
    ),
    machine=(MachineRate(1, 40e9, 400e9), MachineRate(2, 48.5e9, 800e9)),
    start=StartCost(Spread(0.5, 0.45, 0.62), 185_000_000),
    others=0.1,
)
EARLIER = EarlierRun(
    "before.json", {"precision": "f32", "adapters": "notes"}, {DECODES[1]: 100.0, DEEP: 197.52}, 0.25
)


def view_of(record: BenchRecord = RECORD, earlier: EarlierRun | None = None, **options: object) -> BenchView:
    return BenchView(ViewSource("smollm2", "auto", "auto"), record, earlier, options=options)


def test_the_sentences() -> None:
    assert view_of().title == "SmolLM2-135M-Instruct generates 200 tokens/s here with 2 threads"
    assert view_of().sentences() == [
        "Prefill of 512 tokens: 2,713 tokens/s (2,442 to 2,985), 45 % of what this machine can multiply.",
        "Decode after 16 tokens: 200 tokens/s (180 to 220), 40 % of what this machine's memory could "
        "deliver.",
        "Decode after 800 tokens: 98.8 tokens/s (88.9 to 109).",
        "Decode of 8 texts together: 900 tokens/s (810 to 990), 4.5 times one sequence.",
        "Best number of threads: 1 to generate, 2 to read a prompt; the default, 2, is within 5 % of that.",
        "Start: 0.50 s (0.45 to 0.62) from a new process to its tenth token; 185.0 MB of memory at most.",
        "Memory: 97.0 MB of weights, 23.0 kB of keys and values per token, 188.7 MB for the whole window of "
        "8,192.",
        "Machine: with 2 threads, memory is read at 48.5 GB/s, and 800 billion 8-bit operations/s are made.",
    ]
    assert view_of().notes == (
        "Medians of 3 rounds, with the range. Computed at auto, keys and values in f16, "
        "with avx2 kernels on A Chip.",
    )
    assert all(sentence in view_of().alt for sentence in view_of().sentences())


def test_the_sentences_beside_an_earlier_run() -> None:
    view = view_of(earlier=EARLIER)
    sentences = view.sentences()
    assert sentences[1].endswith("could deliver; 2.00 times the earlier 100.")
    assert sentences[2].endswith("tokens/s (88.9 to 109); 0.50 times the earlier 198.")
    assert "tenth token; 2.00 times the earlier 0.25 s; 185.0 MB" in sentences[5]
    assert view.notes[1] == "Compared with before.json."
    assert "Different precision: f32 there, auto here." in view.notes
    assert "Different adapters: notes there, none here." in view.notes
    rows = {(row["work"], row["threads"]): row for row in view.tables()["speed"]}
    assert rows["decode after 16", 2]["ratio"] == 2.0
    assert rows["decode after 16", 1]["ratio"] is None, "the earlier run has no such work"


def test_one_round_has_no_range_and_one_number_of_threads_is_not_the_best() -> None:
    single = Spread(5.0, 5.0, 5.0)
    record = replace(RECORD, rounds=1, rates=(WorkRate(DECODES[1], single),), start=None, machine=())
    assert view_of(record).sentences()[0] == "Decode after 16 tokens: 5.00 tokens/s."
    assert view_of(record).sentences()[1].startswith("Memory: ")
    assert view_of(record).notes[0].startswith("Medians of 1 round. Computed")


@pytest.mark.parametrize(
    ("one", "two", "best"), [(100.0, 102.0, 1), (100.0, 104.0, 2), (104.0, 100.0, 1), (100.0, 200.0, 2)]
)
def test_the_best_number_of_threads_is_the_least_that_is_as_fast(one: float, two: float, best: int) -> None:
    record = replace(RECORD, rates=(rate(DECODES[0], one), rate(DECODES[1], two), rate(EIGHT, 9e9)))
    assert view_of(record).best_threads("decode") == best
    assert view_of(record).best_threads("prefill") is None


@pytest.mark.parametrize(
    ("prefills", "decodes", "default", "words"),
    [
        ((100.0, 200.0), (100.0, 105.0), 2, "Best number of threads: 2."),
        (
            (100.0, 200.0),
            (100.0, 96.0),
            2,
            "Best number of threads: 1 to generate, 2 to read a prompt; the default, 2, is within 5 % of "
            "that.",
        ),
        (
            (100.0, 200.0),
            (100.0, 94.0),
            2,
            "Best number of threads: 1 to generate, 2 to read a prompt; the default, 2, is 6 % slower to "
            "generate: `--threads 1` is better here.",
        ),
        (
            (100.0, 200.0),
            (100.0, 125.0),
            1,
            "Best number of threads: 2; the default, 1, is 20 % slower to generate and 50 % slower to read a "
            "prompt: `--threads 2` is better here.",
        ),
        ((100.0, 200.0), (100.0, 125.0), 4, "Best number of threads: 2; the default, 4, was not tried."),
    ],
)
def test_the_default_number_of_threads_is_advised_against_from_5_percent_on(
    prefills: tuple[float, float], decodes: tuple[float, float], default: int, words: str
) -> None:
    rates = [rate(work, one) for work, one in zip((*PREFILLS, *DECODES), (*prefills, *decodes), strict=True)]
    setup = replace(SETUP, default_threads=default)
    assert words in view_of(replace(RECORD, setup=setup, rates=tuple(rates))).sentences()


def test_a_busy_machine_is_told_of() -> None:
    assert len(view_of(replace(RECORD, others=0.25)).notes) == 1
    assert len(view_of(replace(RECORD, others=None)).notes) == 1
    warning = "Other programs used 1.3 of 8 processors meanwhile: close them and measure again before you"
    assert warning in view_of(replace(RECORD, others=1.3)).notes[1]


def test_the_tables_and_the_document(tmp_path: Path) -> None:
    view = view_of()
    assert view.to_csv().splitlines()[:2] == [
        "work,threads,tokens_per_second,least,most,ceiling,share",
        "prefill of 512,1,1500.0,1350.0,1650.0,3000.0,0.5",
    ]
    assert view.tables()["machine"].rows == ((1, 40.0, 400.0), (2, 48.5, 800.0))
    assert view.tables()["start"].rows == ((0.5, 0.45, 0.62, 185_000_000),)
    document = json.loads(view.to_json())
    assert document["bench"] == 1 and document["setup"]["model"] == "smollm2"
    assert document["rates"][3] == {
        "work": {"kind": "decode", "threads": 2, "tokens": 128, "depth": 16, "batch": 1},
        "rate": {"median": 200.0, "least": 180.0, "most": 220.0},
        "ceiling": 500.0,
        "limit": "memory",
        "share": 0.4,
    }
    view.save(tmp_path / "a.json")
    assert read_earlier(tmp_path / "a.json").medians == {one.work: one.rate.median for one in RECORD.rates}


def test_the_screen_has_sentences_and_a_table_that_fits() -> None:
    import sys

    text = lay_out(view_of(earlier=EARLIER), Display(80, "none", unicode=True, stream=sys.stdout))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].startswith("SmolLM2") and text.index("Prefill of 512") < text.index("work  ")
    heading = next(line for line in text.splitlines() if line.startswith("work "))
    assert heading.split() == ["work", "threads", "tokens/s", "least", "most", "share", "earlier", "ratio"]


def test_what_makes_the_view_again() -> None:
    view = BenchView(
        ViewSource("a b", "q8", "auto", adapters=(("notes", 0.5),), context=64),
        replace(RECORD, setup=replace(SETUP, kv="f16")),
        options={"threads": (1, 2), "rounds": 5, "no_start": True},
    )
    assert view.shell_command() == (
        "pophood bench -m 'a b' --precision q8 --kv f16 --context 64 --adapter notes:0.5 --threads 1,2 "
        "--rounds 5 --no-start"
    )
    assert view.python_code().splitlines() == [
        "import pophood",
        "lm = pophood.load('a b', precision=\"q8\", kv=\"f16\", adapters=[('notes', 0.5)], context=64)",
        "view = pophood.benchmark(lm, threads=(1, 2), rounds=5, no_start=True)",
    ]


@pytest.mark.parametrize("number", [0.4, 8.417, 42.0, 99.96, 342.2, 2713.4])
def test_a_rate_has_three_digits(number: float) -> None:
    digits = rate_text(number).replace(",", "").replace(".", "")
    assert len(digits) >= 3 and float(rate_text(number).replace(",", "")) == pytest.approx(number, rel=0.02)


# Pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("earlier", [None, EARLIER], ids=["alone", "compared"])
def test_the_picture_is_legible(theme: str, earlier: EarlierRun | None) -> None:
    figure = figures.draw(view_of(replace(RECORD, others=1.3), earlier), theme)
    assert faults(figure) == []
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(grouped(RECORD.rates))
    numbers = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert numbers == ["1,500, 50 %", "2,713, 45 %", "208, 52 %", "200, 40 %", "98.8", "900, 50 %"]


def test_the_bars_have_the_length_of_their_rates_and_ceilings() -> None:
    far = replace(RECORD, rates=(rate(PREFILLS[0], 100.0, 5000.0), rate(DECODES[0], 50.0, 80.0)))
    figure = figures.draw(view_of(far))
    lengths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]  # type: ignore[attr-defined]
    assert lengths == [[pytest.approx(FURTHEST * 110), 100.0], [80.0, 50.0]]
    captions = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "They end at 10 times the longest rate" in captions
    near = figures.draw(view_of())
    assert "They end at" not in " ".join(text.get_text() for text in near.texts)


def test_a_picture_of_nothing_says_so() -> None:
    figure = figures.draw(view_of(replace(RECORD, rates=(), complete=False)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["Nothing was measured."]
    assert faults(figure) == []


def test_the_page_has_both_themes_and_how_it_was_made(tmp_path: Path) -> None:
    view_of(rounds=5).save(tmp_path / "bench.html")
    page = (tmp_path / "bench.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/svg+xml') == 2
    assert "pophood bench -m smollm2" in page and "--rounds 5" in page
    assert "pophood.benchmark(lm, rounds=5)" in page
