"""Keys that matter only beyond a length: windows, which are computed, and what is exact up to there only.

Windows in every block, in some, in none, from folders and GGUF files, beside transformers. Dynamic scaling of
rotary positions, and a window that transformers ignores, limit the length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pophood
from pophood.cli.app import pophood as command
from pophood.config import ModelConfig
from pophood.errors import BadFile, BadInput, ContextOverflow, PophoodError, Unsupported
from pophood.export.job import export_model
from pophood.families import config_from_gguf, config_from_hf
from pophood.formats import open_gguf
from pophood.model.bundle import open_bundle
from pophood.model.engine import Engine
from tests.families.published import LLAMA32, MISTRAL, QWEN3, QWEN25, SMOLLM2
from tests.families.test_refusals import METADATA, gguf_tensors
from tests.tiny import reference, tiny_folder

SLIDING, FULL = "sliding_attention", "full_attention"
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}


# ---- what configurations mean ----


@pytest.mark.parametrize(
    ("said", "positions", "words"),
    [
        (MISTRAL | {"sliding_window": 4096}, 32_768, ""),
        (MISTRAL | {"sliding_window": 32_768}, 32_768, ""),
        (MISTRAL | {"sliding_window": 40_000}, 32_768, ""),
        (SMOLLM2 | {"sliding_window": 4096}, 4096, "sliding_window is 4,096"),
        (QWEN25 | {"sliding_window": 8}, 32_768, ""),  # the switch is off
        (QWEN25 | {"sliding_window": 8, "use_sliding_window": True}, 32_768, ""),
        (QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 24}, 32_768, ""),
        (QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 23}, 32_768, ""),
        (
            QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "layer_types": [FULL] * 24},
            32_768,
            "",  # layer_types wins over max_window_layers
        ),
        (
            QWEN3
            | {"sliding_window": 9, "use_sliding_window": True, "layer_types": [FULL] * 27 + [SLIDING]}
            | {"max_window_layers": 28},
            40_960,
            "",
        ),
        (QWEN3 | {"sliding_window": None, "use_sliding_window": True}, 40_960, ""),
        (SMOLLM2 | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 8192, ""),
        (SMOLLM2 | {"rope_parameters": DYNAMIC | {"rope_theta": 1e5}}, 8192, ""),
        (
            SMOLLM2 | {"rope_scaling": DYNAMIC | {"original_max_position_embeddings": 2048}},
            2048,
            "and transformers from 8,192 on (rope type dynamic)",
        ),
        (SMOLLM2 | {"rope_scaling": DYNAMIC, "sliding_window": 64}, 64, "sliding_window is 64"),
        (SMOLLM2 | {"rope_scaling": DYNAMIC, "sliding_window": 9000}, 8192, ""),
        (LLAMA32, 131_072, ""),
    ],
)
def test_positions_that_are_computed(said: dict[str, Any], positions: int, words: str) -> None:
    config = config_from_hf(said)
    assert config.n_positions == positions
    assert config.named_positions == said["max_position_embeddings"]
    assert bool(config.limit) == bool(words)
    assert words in config.limited_by(positions)
    assert config.limited_by(positions - 1) == ""


@pytest.mark.parametrize(
    ("more", "windows"),
    [
        ({"llama.attention.sliding_window": 64}, (64, 64)),
        (
            {"llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": [True, False]},
            (64, None),
        ),
        (
            {"llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": 2},
            (64, None),
        ),
        ({"llama.attention.sliding_window": 256}, (None, None)),
        ({"llama.attention.sliding_window": 0}, (None, None)),
        ({"llama.attention.sliding_window_pattern": 2}, (None, None)),
    ],
)
def test_windows_of_gguf(more: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    config = config_from_gguf(METADATA | more, gguf_tensors())
    assert (config.n_positions, config.named_positions, config.limit) == (256, 256, None)
    assert tuple(block.window for block in config.block_attention) == windows
    every: dict[tuple[int | None, ...], str]
    every = {(None, None): "llama", (64, 64): "mistral", (64, None): "ministral"}
    assert config.architecture == every[windows], "llama.cpp has one name for the three"


@pytest.mark.parametrize(
    ("said", "windows"),
    [
        (MISTRAL | {"sliding_window": 4096}, [4096] * 32),
        (MISTRAL | {"sliding_window": 40_000}, [None] * 32),
        (QWEN25 | {"sliding_window": 8}, [None] * 24),
        (
            QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 23},
            [None] * 23 + [8],
        ),
        (
            QWEN25
            | {"sliding_window": 8, "use_sliding_window": True, "layer_types": [SLIDING] + [FULL] * 23},
            [8] + [None] * 23,
        ),
    ],
)
def test_windows_of_folders(said: dict[str, Any], windows: list[int | None]) -> None:
    assert [block.window for block in config_from_hf(said).block_attention] == windows


def test_a_mistral_has_its_window_in_every_block_as_in_transformers() -> None:
    with pytest.raises(Unsupported, match=r"layer_types names blocks without a window.*ministral"):
        config_from_hf(MISTRAL | {"sliding_window": 64, "layer_types": [SLIDING] + [FULL] * 31})


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (QWEN25 | {"layer_types": [SLIDING] * 24}, Unsupported, "sliding_window is off"),
        (SMOLLM2 | {"layer_types": [FULL] * 29 + [SLIDING]}, Unsupported, "sliding_window is off"),
        (SMOLLM2 | {"layer_types": [FULL] * 29}, BadFile, "layer_types has 29 entries for 30 blocks"),
        (SMOLLM2 | {"layer_types": [FULL] * 29 + ["chunked_attention"]}, Unsupported, "layer_types"),
        (SMOLLM2 | {"layer_types": [FULL] * 29 + [7]}, Unsupported, "layer_types"),
        (SMOLLM2 | {"sliding_window": 0}, BadFile, "sliding_window is 0"),
        (SMOLLM2 | {"sliding_window": -1}, BadFile, "sliding_window is -1"),
        (SMOLLM2 | {"rope_scaling": {"type": "dynamic"}}, BadFile, "factor"),
        (SMOLLM2 | {"rope_scaling": DYNAMIC | {"low_freq_factor": 2.0}}, Unsupported, "low_freq_factor"),
    ],
)
def test_what_is_still_refused(said: dict[str, Any], kind: type[PophoodError], words: str) -> None:
    with pytest.raises(kind) as caught:
        config_from_hf(said)
    assert words in str(caught.value)


def test_layer_types_need_an_entry_for_each_block_in_transformers_too() -> None:
    from transformers import AutoConfig

    said = {key: value for key, value in QWEN25.items() if key != "model_type"}
    with pytest.raises(Exception, match="layer"):
        AutoConfig.for_model("qwen2", **said | {"layer_types": [FULL] * 5})


# ---- numbers beside transformers ----


def mistral(folder: Path) -> None:
    """Convert a folder of the Llama family to Mistral."""
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = {
        key: value for key, value in said.items() if not key.endswith("_bias") and key != "pretraining_tp"
    }
    said |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")


WINDOWED: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("llama-untied", {"sliding_window": 32}),
    "qwen2, every block": (
        "qwen2",
        {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 0},
    ),
    "qwen2, the second block": (
        "qwen2",
        {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3, by layer_types": (
        "qwen3",
        {"sliding_window": 32, "use_sliding_window": True, "layer_types": [FULL, SLIDING]},
    ),
    "llama, dynamic": (
        "llama",
        {"max_position_embeddings": 32, "rope_parameters": DYNAMIC | {"rope_theta": 500_000.0}},
    ),
    "qwen2, dynamic": (
        "qwen2",
        {"max_position_embeddings": 32, "rope_parameters": DYNAMIC | {"rope_theta": 1e6, "factor": 8.0}},
    ),
}
IDS = [(37 * i * i + 11 * i) % 509 for i in range(40)]


def transformers_logits(folder: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    import torch

    with torch.no_grad():
        logits: np.ndarray[Any, Any] = reference(folder)(torch.tensor([ids])).logits[0].numpy()
    return logits


LIMITED = [case for case in WINDOWED if "dynamic" in case]


@pytest.mark.parametrize("case", LIMITED)
def test_dynamic_scaling_follows_the_window_that_the_engine_is_opened_with(tmp_path: Path, case: str) -> None:
    """transformers follows the length of each text; a text as long as the window has the same base."""
    family, keys = WINDOWED[case]
    folder = tiny_folder(tmp_path / "base", family, ignored=False, keys=keys)
    bundle = open_bundle(folder)
    factor = keys["rope_parameters"]["factor"]
    assert (bundle.config.n_positions, bundle.config.most_positions) == (32, 32 * factor)
    for context in (None, 40, 56):
        length = context or 32
        ids = (IDS * 2)[:length]
        engine = Engine(bundle.config, threads=1, context=context)
        engine.load(bundle.weights)
        sequence = engine.new_sequence()
        ours = engine.logits([(sequence, ids)], rows="all")
        assert np.abs(transformers_logits(folder, ids) - ours).max() < 1e-4, context
        with pytest.raises(ContextOverflow, match=rf"{length + 1} tokens.* {length}"):
            engine.logits([(sequence, IDS[:1])])
        short = transformers_logits(folder, ids[:32])
        assert (np.abs(short - ours[:32]).max() > 1e-3) == (context is not None), "the base changed"
    with pytest.raises(BadInput, match=rf"context must be 1\.\.{int(32 * factor)}, got 1,000"):
        Engine(bundle.config, threads=1, context=1000)
    code, out, err = run("show", folder)
    assert code == 0, err
    assert f"Context length: 32, {int(32 * factor)} with --context" in out
    assert f"dynamic scaling x {factor:g} (a higher base for windows beyond 32 tokens)" in out


@pytest.mark.parametrize("case", [case for case in WINDOWED if case not in LIMITED])
def test_beyond_a_window_the_numbers_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    family, keys = WINDOWED[case]
    folder = tiny_folder(tmp_path / "base", family, ignored=False, keys=keys)
    if case == "mistral":
        mistral(folder)
    bundle = open_bundle(folder)
    engine = Engine(bundle.config, threads=1)
    engine.load(bundle.weights)
    assert engine.context == 256
    ours = engine.logits([(engine.new_sequence(), IDS)], rows="all")
    theirs = transformers_logits(folder, IDS)
    assert np.abs(theirs - ours).max() < 1e-4


@pytest.mark.parametrize("case", WINDOWED)
def test_exports_say_the_same(tmp_path: Path, case: str) -> None:
    family, keys = WINDOWED[case]
    folder = tiny_folder(tmp_path / "base", family, ignored=False, keys=keys)
    if case == "mistral":
        mistral(folder)
    bundle = open_bundle(folder)
    export_model(bundle, tmp_path / "out", threads=1)
    receipt = export_model(bundle, tmp_path / "out.gguf", threads=1)
    assert open_bundle(tmp_path / "out").config == bundle.config
    written = open_bundle(tmp_path / "out.gguf").config
    metadata = open_gguf(tmp_path / "out.gguf").metadata
    kind = metadata["general.architecture"]
    if case in LIMITED:
        assert written.n_positions == 32
        assert metadata[f"{kind}.context_length"] == 32
        assert f"{kind}.attention.sliding_window" not in metadata
        assert receipt.notes == [
            "GGUF cannot express dynamic scaling of rotary positions: the file is for 32 positions"
        ]
    else:
        assert written.rotations() == bundle.config.rotations()
        assert metadata[f"{kind}.context_length"] == 256
        assert metadata[f"{kind}.attention.sliding_window"] == 32
        export_model(open_bundle(tmp_path / "out.gguf"), tmp_path / "back", threads=1)
        back = open_bundle(tmp_path / "back").config
        assert back.rotations() == bundle.config.rotations()


# ---- what a user meets ----


@pytest.fixture
def windowed(tmp_path: Path) -> Path:
    """A Llama whose config.json names a window, which transformers ignores."""
    return tiny_folder(tmp_path / "base", "llama", keys={"sliding_window": 32})


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, [*map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_a_short_prompt_runs_and_the_limit_is_said(windowed: Path) -> None:
    code, out, err = run("run", "Hello", "-m", windowed, "--max-tokens", 5, "--threads", 1)
    assert code == 0, err
    assert "Hello" in out
    assert (
        "computed for up to 32 tokens, since the file names a window beyond that (sliding_window is 32" in err
    )
    code, _, err = run("run", "Hello", "-m", windowed, "--context", 32, "--max-tokens", 5, "--threads", 1)
    assert code == 0, err
    code, _, err = run("run", "Hello", "-m", windowed, "--context", 16, "--max-tokens", 5, "--threads", 1)
    assert (code, "slides" in err) == (0, False)


def test_a_long_prompt_is_refused_with_the_window(windowed: Path) -> None:
    long = "x y z " * 40
    code, out, err = run("run", long, "-m", windowed, "--max-tokens", 5, "--threads", 1)
    assert (code, out) == (2, "")
    assert (
        "32 are computed with this model, since the file names a window beyond that (sliding_window is 32"
        in err
    )
    assert "shorten the text, or choose --truncate" in err
    code, _, err = run("run", long, "-m", windowed, "--truncate", "left", "--max-tokens", 5, "--threads", 1)
    assert code == 0, err
    code, _, err = run("run", "Hello", "-m", windowed, "--context", 64)
    assert (code, "context must be 1..32, got 64: longer ones are not computed, since" in err) == (2, True)


def test_show_says_the_limit(windowed: Path) -> None:
    code, out, err = run("show", windowed)
    assert code == 0, err
    assert "Context length: 32, since the file names a window beyond that (sliding_window is 32" in out
    code, out, _ = run("show", windowed, "--json")
    said = json.loads(out)
    assert (said["context_length"], "sliding_window" in said["context_limit"]) == (32, True)


def test_python_is_told_too(windowed: Path) -> None:
    lm = pophood.load(windowed, threads=1)
    ids = list(range(40))
    for ask in (lm.logits, lm.next, lambda ids: lm.generate(ids, max_tokens=1), lm.trace):
        with pytest.raises(
            ContextOverflow, match=r"since the file names a window beyond that \(sliding_window is 32"
        ):
            ask(ids)
    assert len(lm.logits(ids[:32])) == 32
    tokens = lm.generate(ids[:30], max_tokens=10, temperature=0).tokens
    assert (len(tokens), tokens[-1].finish) == (3, "context")
    with pytest.raises(BadInput, match=r"context must be 1\.\.32, got 64"):
        pophood.load(windowed, context=64)


def test_a_shorter_context_is_the_users_own_choice(windowed: Path) -> None:
    lm = pophood.load(windowed, threads=1, context=16)
    with pytest.raises(ContextOverflow, match="the context window holds 16"):
        lm.logits(list(range(20)))


def test_configs_without_a_limit_have_none() -> None:
    config: ModelConfig = config_from_hf(SMOLLM2)
    assert (config.limit, config.limited_by(8192), config.named_positions) == (None, "", 8192)
