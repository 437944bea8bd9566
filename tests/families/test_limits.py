"""Keys that matter only beyond a length: the model is exact up to there, and refused beyond.

Sliding windows (in every block, in some, in none) and dynamic scaling of rotary positions, from folders and
GGUF files, beside transformers.
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
from tests.tiny import reference, tiny_folder, tiny_gguf

SLIDING, FULL = "sliding_attention", "full_attention"
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}


# ---- what configurations mean ----


@pytest.mark.parametrize(
    ("said", "positions", "words"),
    [
        (
            MISTRAL | {"sliding_window": 4096},
            4096,
            "sliding_window is 4,096, and the model's files name 32,768",
        ),
        (MISTRAL | {"sliding_window": 32_768}, 32_768, ""),
        (MISTRAL | {"sliding_window": 40_000}, 32_768, ""),
        (SMOLLM2 | {"sliding_window": 4096}, 4096, "sliding_window is 4,096"),
        (QWEN25 | {"sliding_window": 8}, 32_768, ""),  # the switch is off
        (QWEN25 | {"sliding_window": 8, "use_sliding_window": True}, 8, "sliding_window is 8"),
        (QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 24}, 32_768, ""),
        (QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 23}, 8, "is 8"),
        (
            QWEN25 | {"sliding_window": 8, "use_sliding_window": True, "layer_types": [FULL] * 24},
            32_768,
            "",  # layer_types wins over max_window_layers
        ),
        (
            QWEN3
            | {"sliding_window": 9, "use_sliding_window": True, "layer_types": [FULL] * 27 + [SLIDING]}
            | {"max_window_layers": 28},
            9,
            "sliding_window is 9",
        ),
        (QWEN3 | {"sliding_window": None, "use_sliding_window": True}, 40_960, ""),
        (SMOLLM2 | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 8192, "rescaled beyond that (rope"),
        (SMOLLM2 | {"rope_parameters": DYNAMIC | {"rope_theta": 1e5}}, 8192, "type dynamic, factor 2"),
        (
            SMOLLM2 | {"rope_scaling": DYNAMIC | {"original_max_position_embeddings": 2048}},
            2048,
            "type dynamic",
        ),
        (SMOLLM2 | {"rope_scaling": DYNAMIC, "sliding_window": 64}, 64, "sliding_window is 64"),
        (SMOLLM2 | {"rope_scaling": DYNAMIC, "sliding_window": 9000}, 8192, "type dynamic"),
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
    ("more", "positions"),
    [
        ({"llama.attention.sliding_window": 64}, 64),
        ({"llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": [True, False]}, 64),
        ({"llama.attention.sliding_window": 256}, 256),
        ({"llama.attention.sliding_window": 0}, 256),
        ({"llama.attention.sliding_window_pattern": 2}, 256),
    ],
)
def test_positions_that_are_computed_of_gguf(more: dict[str, Any], positions: int) -> None:
    config = config_from_gguf(METADATA | more, gguf_tensors())
    assert (config.n_positions, config.named_positions) == (positions, 256)


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


@pytest.mark.parametrize("case", WINDOWED)
def test_up_to_the_limit_the_numbers_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    family, keys = WINDOWED[case]
    folder = tiny_folder(tmp_path / "base", family, ignored=False, keys=keys)
    if case == "mistral":
        mistral(folder)
    bundle = open_bundle(folder)
    engine = Engine(bundle.config, threads=1)
    engine.load(bundle.weights)
    assert engine.context == 32
    sequence = engine.new_sequence()
    ours = engine.logits([(sequence, IDS[:32])], rows="all")
    theirs = transformers_logits(folder, IDS)
    assert np.abs(transformers_logits(folder, IDS[:32]) - ours).max() < 1e-4
    with pytest.raises(ContextOverflow, match=r"33 tokens; 32 are computed with this model, since "):
        engine.logits([(sequence, IDS[32:33])])
    # Beyond the limit the results differ; otherwise there would be no reason to refuse.
    assert bundle.config.rope is not None
    plain: dict[str, Any] = {"max_position_embeddings": 256}
    if "rope_parameters" in keys:
        plain["rope_parameters"] = {"rope_type": "default", "rope_theta": bundle.config.rope.theta}
    if "sliding_window" in keys:
        plain["sliding_window"] = 256
    other = tiny_folder(tmp_path / "plain", family, ignored=False, keys=keys | plain)
    if case == "mistral":
        mistral(other)
    unlimited = transformers_logits(other, IDS)
    assert np.abs(unlimited - theirs)[39].max() > 1e-3


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
    assert written.n_positions == 32
    metadata = open_gguf(tmp_path / "out.gguf").metadata
    kind = metadata["general.architecture"]
    if "dynamic" in case:
        assert metadata[f"{kind}.context_length"] == 32
        assert f"{kind}.attention.sliding_window" not in metadata
        assert receipt.notes == [
            "GGUF cannot express dynamic scaling of rotary positions: the file is for 32 positions"
        ]
    else:
        assert metadata[f"{kind}.context_length"] == 256
        assert metadata[f"{kind}.attention.sliding_window"] == 32
        export_model(open_bundle(tmp_path / "out.gguf"), tmp_path / "back", threads=1)
        back = open_bundle(tmp_path / "back").config
        assert (back.n_positions, back.named_positions) == (32, 256)


# ---- what a user meets ----


@pytest.fixture(params=["folder", "gguf"])
def windowed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        return tiny_folder(tmp_path / "base", "llama", keys={"sliding_window": 32})
    return tiny_gguf(tmp_path / "base.gguf", "llama", keys={"llama.attention.sliding_window": 32})


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, [*map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_a_short_prompt_runs_and_the_limit_is_said(windowed: Path) -> None:
    code, out, err = run("run", "Hello", "-m", windowed, "--max-tokens", 5, "--threads", 1)
    assert code == 0, err
    assert "Hello" in out
    assert (
        "computed for up to 32 tokens, since attention slides beyond that (sliding_window is 32, and" in err
    )
    code, _, err = run("run", "Hello", "-m", windowed, "--context", 32, "--max-tokens", 5, "--threads", 1)
    assert code == 0, err
    code, _, err = run("run", "Hello", "-m", windowed, "--context", 16, "--max-tokens", 5, "--threads", 1)
    assert (code, "slides" in err) == (0, False)


def test_a_long_prompt_is_refused_with_the_window(windowed: Path) -> None:
    long = "x y z " * 40
    code, out, err = run("run", long, "-m", windowed, "--max-tokens", 5, "--threads", 1)
    assert (code, out) == (2, "")
    assert "32 are computed with this model, since attention slides beyond that (sliding_window is 32" in err
    assert "shorten the text, or choose --truncate" in err
    code, _, err = run("run", long, "-m", windowed, "--truncate", "left", "--max-tokens", 5, "--threads", 1)
    assert code == 0, err
    code, _, err = run("run", "Hello", "-m", windowed, "--context", 64)
    assert (code, "context must be 1..32, got 64: longer ones are not computed, since" in err) == (2, True)


def test_show_says_the_limit(windowed: Path) -> None:
    code, out, err = run("show", windowed)
    assert code == 0, err
    assert "Context length: 32, since attention slides beyond that (sliding_window is 32" in out
    code, out, _ = run("show", windowed, "--json")
    said = json.loads(out)
    assert (said["context_length"], "sliding_window" in said["context_limit"]) == (32, True)


def test_python_is_told_too(windowed: Path) -> None:
    lm = pophood.load(windowed, threads=1)
    ids = list(range(40))
    for ask in (lm.logits, lm.next, lambda ids: lm.generate(ids, max_tokens=1), lm.trace):
        with pytest.raises(
            ContextOverflow, match=r"since attention slides beyond that \(sliding_window is 32"
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
