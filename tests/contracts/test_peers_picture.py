"""The picture beside every engine: drawn from figures as the benchmark keeps them, legible and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from docs.pictures import peers
from tests.conftest import ROOT
from tests.look.pictures import drawn_texts, faults

ENGINES = {  # engine, precision: prefill, decode
    ("pophood", "int8"): (3543.2, 334.8),
    ("pophood", "int4"): (4067.0, 487.4),
    ("OpenVINO", "int8"): (4052.6, 121.5),
    ("transformers", "bf16"): (1576.9, 45.2),
}


def record(model: str, scale: float, engines: dict[tuple[str, str], tuple[float, float]]) -> dict[str, Any]:
    """One model's record of `benchmarks/peers.py`, as far as the picture reads it."""
    table = []
    for (engine, precision), rates in engines.items():
        row: dict[str, Any] = {"engine": engine, "precision": precision}
        for work, rate in zip(("prefill", "decode"), rates, strict=True):
            row[work] = {"median": rate * scale, "min": 0.9 * rate * scale, "max": 1.02 * rate * scale}
        table.append(row)
    return {
        "benchmark": f"{model} beside every peer",
        "threads": 2,
        "machine": {
            "processor": "Intel(R) Xeon(R) CPU",
            "isa": "avx512vnni",
            "cores": 2,
            "amx_refused": True,
        },
        "peers": {
            "pophood": "0.1.0",
            "OpenVINO": "2026.4.1.0-3408-ab01d17",
            "transformers": "5.23.0, torch 2.13.0+cpu",
        },
        "table": table,
    }


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    """Two files: one without such figures, one with three models, the last one first."""
    other, path = tmp_path / "a.json", tmp_path / "b.json"
    other.write_text(json.dumps({"outside the forward pass": {"benchmark": "outside the forward pass"}}))
    without = {key: rates for key, rates in ENGINES.items() if key[0] != "OpenVINO"}
    records = [
        record("GPT-2 small's shape", 1.0, without),
        record("Qwen2.5-0.5B's shape", 0.35, ENGINES),
        record("SmolLM2-135M", 1.0, ENGINES),
    ]
    path.write_text(json.dumps({one["benchmark"]: one for one in records}))
    return [other, path]


def test_every_engine_of_two_models_is_drawn_with_its_rate(results: list[Path]) -> None:
    view = peers.read(results)
    figure = view.figure()
    texts = [text.get_text() for text in drawn_texts(figure)]
    for words in ("OpenVINO, 8 bits", "pophood, 4 bits", "transformers, bfloat16"):
        assert texts.count(words) == 4, "once for each model and work"
    assert {"4,053", "3,543", "487", f"{0.35 * 4052.6:,.0f}", f"{0.35 * 45.2:,.0f}"} <= set(texts)
    assert any("SmolLM2-135M" in text for text in texts)
    assert not any("GPT-2" in text for text in texts), "two models are shown"
    first = next(text for text in texts if text.endswith(("bits", "bfloat16")))
    assert first == "pophood, 4 bits", "the fastest is on top"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_labels_neither_overlap_nor_cross_the_edge(results: list[Path], theme: Any) -> None:
    assert faults(peers.read(results).figure(theme)) == []


def test_both_themes_are_written_with_words_and_the_machine(results: list[Path], tmp_path: Path) -> None:
    paths = peers.write(results, tmp_path / "peers")
    assert [path.name for path in paths] == ["peers-light.svg", "peers-dark.svg"]
    light, dark = (ElementTree.parse(path).getroot() for path in paths)
    for root in (light, dark):
        title, description = root[0].text or "", root[1].text or ""
        assert title == "Tokens per second beside every engine: Intel Xeon without AMX, 2 threads each"
        assert (
            "SmolLM2-135M, a prompt of 512 tokens: pophood, 4 bits 4,067, OpenVINO, 8 bits 4,053"
            in description
        )
    assert paths[0].read_bytes() != paths[1].read_bytes()
    notes = " ".join(peers.read(results).notes)
    assert "Intel Xeon without AMX (avx512vnni), 2 cores" in notes
    assert "OpenVINO 2026.4.1.0, transformers 5.23.0, torch 2.13.0" in notes


def test_without_figures_the_picture_is_refused(results: list[Path]) -> None:
    with pytest.raises(SystemExit, match=r"run benchmarks/peers\.py first"):
        peers.read(results[:1])


def test_the_benchmark_names_its_records_and_models_as_the_picture_expects() -> None:
    script = (ROOT / "benchmarks" / "peers.py").read_text(encoding="utf-8")
    models = (ROOT / "benchmarks" / "_peer_models.py").read_text(encoding="utf-8")
    assert f'f"{{model.title}}{peers.NAMED}"' in script
    for model in peers.ORDER:
        assert f'"{model}"' in models
    for work in peers.WORKS:
        assert f'"{work}":' in script
