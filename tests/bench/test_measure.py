"""Benchmarks: what is measured, ceilings computed by hand, interleaved rounds, and files of other runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pophood
from pophood import system
from pophood.bench import measure
from pophood.bench.ceilings import ModelCost
from pophood.bench.measure import Benchmark, benchmark
from pophood.bench.record import FORMAT, read_earlier
from pophood.bench.settings import BenchSettings, Work, plan
from pophood.bench.timing import Timer
from pophood.errors import BadInput, NotFound
from tests.bench.conftest import assert_no_sequence
from tests.tiny import gpt2_config, tiny_config, tiny_folder

SMALL: dict[str, Any] = {"prompt": 8, "tokens": 3, "depth": (2,), "batch": (1, 2), "rounds": 2}


# What is measured -------------------------------------------------------------------------------------


def test_the_plan_of_a_machine_with_eight_threads() -> None:
    found = plan(BenchSettings(), context=8192, available=8)
    assert found.threads == (1, 2, 3, 4, 6, 8) and found.usual == 8 and found.rounds == 3 and found.start
    prefills = [work for work in found.works if work.kind == "prefill"]
    assert [(work.threads, work.tokens) for work in prefills] == [(n, 512) for n in (1, 2, 3, 4, 6, 8)]
    decodes = [work for work in found.works if work.kind == "decode"]
    assert [work.threads for work in decodes[:6]] == [1, 2, 3, 4, 6, 8]
    assert decodes[6:] == [
        Work("decode", 8, 128, 800),
        Work("decode", 8, 128, 16, 4),
        Work("decode", 8, 128, 16, 8),
    ]


def test_the_plan_of_a_small_window_and_of_settings() -> None:
    short = plan(BenchSettings(), context=64, available=1)
    assert [work.name for work in short.works[:2]] == ["prefill of 32", "decode after 16"]
    assert all(work.depth + work.tokens <= 64 for work in short.works)
    least = plan(BenchSettings(), context=2, available=1)
    assert {(work.depth + work.tokens, work.tokens) for work in least.works} == {(1, 1), (2, 1)}
    chosen = plan(BenchSettings(7, 5, (9, 0, 9), (3,), (4, 2), 1, no_start=True), context=14, available=8)
    assert chosen.threads == (2, 4) and chosen.usual == 4 and not chosen.start
    assert chosen.works == (
        Work("prefill", 2, 7),
        Work("decode", 2, 5, 0),
        Work("prefill", 4, 7),
        Work("decode", 4, 5, 0),
        Work("decode", 4, 5, 9),
        Work("decode", 4, 5, 0, 3),
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": 0}, "prompt is 0; wanted at least 1"),
        ({"tokens": -1}, "tokens is -1; wanted at least 1"),
        ({"depth": (16, -1)}, "depth is -1; wanted at least 0"),
        ({"batch": (257,)}, "batch is 257; wanted 1 to 256"),
        ({"threads": (0,)}, "threads is 0; wanted 1 to 1,024"),
        ({"threads": ()}, "threads is an empty list"),
        ({"rounds": 101}, "rounds is 101; wanted 1 to 100"),
        ({"prompt": 257}, "a prompt of 257 tokens exceeds the context window, 256"),
        (
            {"depth": 200, "tokens": 57},
            "200 tokens and 57 generated ones are 257; the context window holds 256",
        ),
        ({"depth": 0, "tokens": 256}, "0 tokens and 256 generated ones are 257"),
        (
            {"speed": 3},
            "no setting is called speed; there are: prompt, tokens, depth, batch, threads, rounds",
        ),
    ],
)
def test_what_a_wrong_setting_says(lm: pophood.LM, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        benchmark(lm, **settings)


# Ceilings ---------------------------------------------------------------------------------------------


def cost_of(config: Any, stored: str, precision: str = "f32", kv: str = "f32") -> ModelCost:
    weights = SimpleNamespace(stored_type=lambda name: stored)
    engine = SimpleNamespace(precision=precision, kv=kv, context=config.n_positions)
    loaded: Any = SimpleNamespace(config=config, bundle=SimpleNamespace(weights=weights), engine=engine)
    return ModelCost.of(loaded)


def test_the_cost_of_gpt2_small() -> None:
    cost = cost_of(gpt2_config("gpt2"), "F32")
    assert cost.inner == 2 * 12 * 12 * 768 * 768, "twelve blocks: q, k, v, out, and two matrices of 4 x 768"
    assert cost.output == 2 * 50_257 * 768
    assert cost.cache == 12 * 2 * 768 * 4
    position_rows = 1024 * 768 * 4
    padding = 15 * 768 * 4  # of the embedding's 50,257 rows to a multiple of 16
    assert cost.weights == 4 * 124_439_808 + padding - position_rows, "positions are looked up"
    assert not cost.eight_bit
    quantised = cost_of(gpt2_config("gpt2"), "F32", "q8", "f16")
    assert quantised.eight_bit and quantised.cache == cost.cache // 2
    assert 0.26 < quantised.weights / cost.weights < 0.27, "34 bytes for 32 weights"


def test_an_embedding_that_is_not_the_output_matrix_is_looked_up() -> None:
    tied, untied = (cost_of(tiny_config("llama", tied_output=tied), "F32") for tied in (True, False))
    assert tied == untied


def test_ceilings_by_hand() -> None:
    cost = ModelCost(weights=1000, cache=10, inner=400, output=100, eight_bit=True)
    decode = Work("decode", 1, tokens=20, depth=90)
    assert cost.ceiling(decode, 8000.0, None) == (8000 / (1000 + 100 * 10), "memory")
    assert cost.ceiling(replace(decode, batch=2), 6000.0, None) == (2 * 6000 / (1000 + 2 * 1000), "memory")
    assert cost.ceiling(decode, 8000.0, 1000.0) == (1000 / 500, "multiplications")
    prefill = Work("prefill", 1, tokens=50)
    assert cost.ceiling(prefill, 8000.0, 8040.0) == (8040 / (400 + 100 / 50), "multiplications")
    in_floats = replace(cost, eight_bit=False)
    assert in_floats.ceiling(prefill, 8000.0, 8040.0) is None, "no rate of 32-bit products is known"
    assert in_floats.ceiling(decode, 8000.0, 1000.0) == (4.0, "memory")
    assert cost.ceiling(decode, None, None) is None


# Rounds -----------------------------------------------------------------------------------------------


def test_a_benchmark_of_a_small_model(lm: pophood.LM) -> None:
    lm.engine.use_threads(2)
    steps: list[measure.BenchStep] = []
    view = benchmark(lm, progress=steps.append, threads=(1, 2), no_start=True, **SMALL)
    record = view.record
    assert record.complete and record.rounds == 2 and record.start is None
    names = [(one.work.name, one.work.threads) for one in record.rates]
    assert names == [
        ("prefill of 8", 1),
        ("decode after 2", 1),
        ("prefill of 8", 2),
        ("decode after 2", 2),
        ("decode of 2 after 2", 2),
    ]
    for one in record.rates:
        assert 0 < one.rate.least <= one.rate.median <= one.rate.most
        assert (one.ceiling is None) == (one.work.kind == "prefill"), "f32 has no rate of multiplications"
        assert one.share is None or one.share > 0
    assert [one.threads for one in record.machine] == [1, 2]
    assert all(one.read_bandwidth and one.multiply_rate for one in record.machine)
    assert [step.done for step in steps] == list(range(steps[0].total))
    assert [step.round for step in steps] == [0] * 3 + [1] * 7 + [2] * 7, "warm up, then rounds"
    assert lm.engine.threads == 2
    assert_no_sequence(lm)


def test_rounds_are_interleaved_and_stop_where_they_are(
    lm: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Work] = []

    def rate(self: Timer, work: Work) -> float:
        done.append(work)
        if len(done) == stop:
            raise KeyboardInterrupt
        return float(len(done))

    monkeypatch.setattr(Timer, "rate", rate)
    stop = 3 + 1
    whole = Benchmark(lm, BenchSettings(threads=(2,), no_start=True, **SMALL))
    with pytest.raises(KeyboardInterrupt):
        list(whole.run())
    assert whole.record().rates == () and len(whole.record().machine) == 1
    done.clear()
    stop = 3 + 3 + 2
    whole = Benchmark(lm, BenchSettings(threads=(2,), no_start=True, **SMALL))
    with pytest.raises(KeyboardInterrupt):
        list(whole.run())
    assert done[3:6] == list(whole.plan.works) and done[6:8] == list(whole.plan.works)[:2]
    assert [work.tokens for work in done[:3]] == [8, 3, 3], "the warm-up is short"
    record = whole.record()
    assert not record.complete
    assert [one.rate.median for one in record.rates] == [(4 + 7) / 2, 5.0, 6.0]
    assert whole.view().notes[1] == "Stopped early: these are the figures so far."
    assert lm.engine.threads == 2


def test_no_process_is_started_where_there_can_be_none(
    lm: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a new process" in [what for what, _ in Benchmark(lm)._jobs()]
    monkeypatch.setattr(system, "available_memory", lambda: 1000)
    whole = Benchmark(lm)
    assert "a new process" not in [what for what, _ in whole._jobs()]
    needed = "No new process was measured, since the model does not fit into memory twice: it needs"
    assert whole.view().notes[1].startswith(needed)
    monkeypatch.setattr(lm, "adapter_places", (("in-memory", 1.0),))
    assert Benchmark(lm).record().remarks == (
        "No new process was measured, since an adapter is not on the disk.",
    )


def test_nothing_measured_is_no_error(lm: pophood.LM) -> None:
    view = Benchmark(lm, BenchSettings(no_start=True)).view()
    assert view.title.endswith("stopped before anything was measured")
    assert view.sentences()[0].startswith("Memory: ")
    assert json.loads(view.to_json())["rates"] == []


def test_other_programs_are_counted(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([100.0, 103.0])
    whole = Benchmark(lm)
    monkeypatch.setattr(system, "others_seconds", lambda: next(seconds))
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: 2.0))
    whole._others_before, whole._began = 100.0, 0.0
    assert [whole.others(), whole.others()] == [0.0, 1.5]
    monkeypatch.setattr(system, "others_seconds", lambda: None)
    assert whole.others() is None


# Files of other runs ----------------------------------------------------------------------------------


def test_a_file_is_read_back(lm: pophood.LM, tmp_path: Path) -> None:
    view = benchmark(lm, threads=1, no_start=True, **SMALL)
    view.save(tmp_path / "before.json")
    earlier = read_earlier(tmp_path / "before.json")
    assert earlier.medians == {one.work: one.rate.median for one in view.record.rates}
    assert earlier.start is None and earlier.differences(view.record.setup) == []
    other = replace(view.record.setup, precision="q8", model="gpt2")
    assert earlier.differences(other) == [
        f"model: {lm.name} there, gpt2 here",
        "precision: f32 there, q8 here",
    ]
    again = benchmark(lm, compare=tmp_path / "before.json", threads=1, no_start=True, **SMALL)
    table = again.tables()["speed"]
    for row, one in zip(table, again.record.rates, strict=True):
        assert row["earlier"] == earlier.medians[one.work]
        assert row["ratio"] == one.rate.median / earlier.medians[one.work]


GOOD: dict[str, Any] = {
    "bench": FORMAT,
    "setup": {},
    "start": None,
    "rates": [{"work": {"kind": "prefill", "threads": 1, "tokens": 8}, "rate": {"median": 5}}],
}


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(json.dumps(GOOD))
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON at line 1"),
        ("[1]", "is not what `pophood bench --json` writes: give such a file"),
        ('{"view": "next"}', "is not what `pophood bench --json` writes: give such a file"),
        (changed(lambda d: d.update(bench=2)), r"has format 2, wanted 1: measure it again"),
        (changed(lambda d: d.pop("rates")), "KeyError 'rates': measure it again"),
        (changed(lambda d: d["rates"][0]["work"].update(speed=1)), "TypeError .*speed"),
        (changed(lambda d: d["rates"][0]["rate"].update(median=0)), "0 is not a positive number"),
        (changed(lambda d: d["rates"][0]["rate"].update(median="x")), "ValueError"),
        (changed(lambda d: d.update(setup=3)), "TypeError"),
    ],
)
def test_a_file_that_is_something_else(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=words):
        read_earlier(path)
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_earlier(path).medians == {Work("prefill", 1, 8): 5.0}
    with pytest.raises(NotFound):
        read_earlier(tmp_path / "none.json")


def test_the_library_loads_a_model_by_its_name(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "small", "llama")
    view = pophood.benchmark(folder, threads=1, rounds=1, prompt=4, tokens=2, depth=1, batch=1, no_start=True)
    assert view.options == {
        "prompt": 4,
        "tokens": 2,
        "depth": (1,),
        "batch": (1,),
        "threads": (1,),
        "rounds": 1,
        "no_start": True,
    }
    assert sys.modules["pophood.bench.measure"].benchmark is pophood.benchmark
