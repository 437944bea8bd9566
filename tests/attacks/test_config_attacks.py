"""Hostile config.json and GGUF metadata: named refusals, believable sizes, and nothing in the folder is run.

1,000 mutations of each in `make test`; `POPHOOD_FUZZ=100000` for the record.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.families import config_from_gguf, config_from_hf
from pophood.families.standard import MOST_PARAMETERS
from pophood.formats.json_file import read_json
from pophood.model.bundle import open_bundle, open_weights
from tests.attacks.mutate import JSON_VALUES, Case, Watch, fuzz_count, json_mutations, peak_memory
from tests.families.published import GPT2, LLAMA32, MISTRAL, PUBLISHED, QWEN3
from tests.families.published_later import LATER
from tests.families.test_refusals import METADATA, gguf_tensors
from tests.tiny import FAMILIES, hf_config, tiny_config, tiny_folder

TIMEOUT = 1_800
ROOM = 64 << 20  # bytes that the process may grow by over a whole run
# The largest table of names that a believed configuration can lead to, and a megabyte for the rest.
SLACK = 8 << 20


def believable(config: ModelConfig) -> None:
    """Check that an accepted configuration predicts bounded, positive sizes."""
    shapes = tensor_shapes(config)
    assert 0 < len(shapes) <= 20_000
    assert all(0 < size <= 1 << 28 for shape in shapes.values() for size in shape)
    assert 0 < config.n_params <= MOST_PARAMETERS
    assert config.n_head % config.n_kv_head == 0
    assert np.isfinite(config.norm_eps)
    for block in config.block_attention:
        assert block.window is None or block.window > 0
        for context in (0, 1 << 40):
            if block.rope is None:
                continue
            assert np.isfinite(block.rope.frequencies(config.head_dim, context)).all()
            assert np.isfinite(block.rope.magnitude)


def rewrite(path: Path, data: bytes) -> None:
    """Write a new file under the old name, so mappings of the old one keep their content."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@pytest.mark.timeout(TIMEOUT)
def test_mutated_configurations(tmp_path: Path) -> None:
    documents = [said for said, _ in (*PUBLISHED.values(), *LATER.values())]
    watch, before, path = Watch(slack=SLACK), peak_memory(), tmp_path / "config.json"
    for case in json_mutations(documents, fuzz_count(), "config.json"):
        rewrite(path, case.data)
        watch.attempt(case, lambda: believable(config_from_hf(read_json(path))))
    assert watch.accepted and watch.refused["BadFile"] and watch.refused["Unsupported"]
    assert peak_memory() - before < ROOM


@pytest.mark.timeout(TIMEOUT)
def test_mutated_configurations_of_models_that_are_there(tmp_path: Path) -> None:
    """The weights contradict nearly every mutation; an accepted one describes them exactly."""
    folders = [tiny_folder(tmp_path / family, family, vocab_size=300, tokenizer=False) for family in FAMILIES]
    documents = [json.loads((folder / "config.json").read_text()) for folder in folders]
    watch, before = Watch(factor=64, slack=SLACK), peak_memory()

    def use(folder: Path) -> None:
        opened = open_weights(folder)
        assert opened.weights["embed.token"].shape == (300, 64)
        assert {name: v.shape for name, v in opened.weights.items()} == tensor_shapes(opened.config)

    for i, case in enumerate(json_mutations(documents, fuzz_count() // 4, "config.json beside weights")):
        folder = folders[i % len(folders)]
        rewrite(folder / "config.json", case.data)
        watch.attempt(case, lambda folder=folder: use(folder))  # type: ignore[misc]
    assert watch.accepted and watch.refused["BadFile"] and watch.refused["Unsupported"]
    assert peak_memory() - before < ROOM


GGUF_VALUES: tuple[Any, ...] = (
    *(value for value in JSON_VALUES if not isinstance(value, dict | None)),
    *(
        np.array([], np.int8),
        np.array([1, 2], np.int32),
        np.full(3, np.nan, np.float32),
        np.zeros(10**5, np.uint8),
    ),
    *([np.zeros(2), np.zeros(2)], float("nan"), float("inf"), -(2**63), np.array([True, False])),
)


def gguf_mutations(count: int) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Return metadata with one to three keys changed, removed, renamed or added, and a case to name it."""
    for index in range(count):
        rng = random.Random(f"gguf metadata:{index}")
        metadata, done = dict(METADATA), []
        for _ in range(rng.choice((1, 1, 2, 3))):
            key = rng.choice(sorted(metadata))
            value = metadata.pop(key)
            match rng.randrange(8):
                case 0:
                    done.append(f"no {key}")
                case 1:
                    new = rng.choice(("llama.", "general.", "x.", "split.", "")) + key.partition(".")[2]
                    metadata[new] = value
                    done.append(f"{key} as {new}")
                case _:
                    metadata[key] = rng.choice(GGUF_VALUES)
                    done.append(f"{key} = {str(metadata[key])[:40]}")
        yield Case(f"gguf metadata:{index} {'; '.join(done)}", b"x" * 1000), metadata


@pytest.mark.timeout(TIMEOUT)
def test_mutated_gguf_metadata() -> None:
    tensors, watch = gguf_tensors(), Watch(slack=SLACK)
    for case, metadata in gguf_mutations(fuzz_count()):
        watch.attempt(case, lambda metadata=metadata: believable(config_from_gguf(metadata, tensors)))  # type: ignore[misc]
    assert watch.accepted and watch.refused["BadFile"] and watch.refused["Unsupported"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"3",
        b'"gpt2"',
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1' + b"0" * 5000 + b"}",
        b'{"a": ' + b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"n_layer": 12, "n_layer": 13}',
        b'{"' + b"a" * 100_000 + b'": 1}',
        b'{"model_type": "' + b"gpt2" * 100_000 + b'"}',
        b'{"model_type": "gpt2\\u0000\\u001b[2J"}',
        b'{"model_type": "\\ud800"}',
        b'{"architectures": ' + json.dumps(["x"] * 100_000).encode() + b"}",
        b"{" + b" " * (17 << 20) + b"}",
    ],
)
def test_texts_that_are_no_configuration(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(PophoodError) as error:
        config_from_hf(read_json(path))
    message = str(error.value)
    assert message.isprintable() and len(message) < 600, message


@pytest.mark.parametrize("base", [GPT2, LLAMA32, QWEN3, MISTRAL], ids=lambda said: str(said["model_type"]))
def test_every_size_is_bounded(base: dict[str, Any]) -> None:
    """Each number of a configuration, when huge, is refused or predicts a bounded size."""
    numbers = [key for key, value in base.items() if isinstance(value, int) and not isinstance(value, bool)]
    assert len(numbers) > 5
    for key in numbers:
        for value in (2**16, 10**6, 2**31 - 1, 2**31, 10**9, 2**63, 10**100, -1, -(2**63)):
            try:
                believable(config_from_hf(base | {key: value}))
            except PophoodError as error:
                assert len(str(error)) < 400


def test_all_sizes_at_their_limits_are_refused_by_their_product() -> None:
    huge = {"n_layer": 1024, "n_embd": 131_072, "n_inner": 1_048_576, "vocab_size": 4_194_304, "n_head": 1024}
    with pytest.raises(BadFile, match="parameters, more than the limit"):
        config_from_hf(GPT2 | huge)


# ---- M5: a model is data; nothing in its folder is code ----

CANARY = "import pathlib; pathlib.Path(r'{}').write_text('run')\n"
REMOTE_CODE: list[dict[str, Any]] = [
    {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "configuration_evil.Evil"}},
    {"auto_map": "modeling_evil.Evil"},
    {"auto_map": ["modeling_evil.Evil", None]},
    {"_attn_implementation_internal": "evil/kernel"},
    {"_experts_implementation_internal": "evil/kernel"},
    {"_attn_implementation": "evil/kernel:attention"},
    {"custom_pipelines": {"evil": {"impl": "pipeline_evil.Evil"}}},
    {"trust_remote_code": True},
    {"model_file": "modeling_evil.py"},
    {"model_type": "modeling_evil"},
    {"architectures": ["modeling_evil.Evil"]},
    {"quantization_config": {"quant_method": "evil", "modules_to_not_convert": ["x"]}},
]


@pytest.fixture
def trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Make a model folder full of Python files that leave a mark when imported; return it and the mark."""
    folder, mark = tiny_folder(tmp_path / "model", "llama"), tmp_path / "run"
    names = (
        "modeling_evil",
        "configuration_evil",
        "pipeline_evil",
        "sitecustomize",
        "json",
        "tokenizers",
        "__init__",
    )
    for name in names:
        (folder / f"{name}.py").write_text(CANARY.format(mark))
    monkeypatch.chdir(folder)
    return folder, mark


@pytest.mark.parametrize("keys", REMOTE_CODE, ids=lambda keys: str(*keys))
def test_requests_for_code_are_refused_and_nothing_runs(
    keys: dict[str, Any], trapped: tuple[Path, Path]
) -> None:
    folder, mark = trapped
    said = hf_config(tiny_config("llama")) | keys
    (folder / "config.json").write_text(json.dumps(said))
    before = set(sys.modules)
    with pytest.raises(Unsupported) as error:
        open_bundle(folder)
    assert any(key in str(error.value) for key in keys)
    assert not mark.exists()
    assert not [name for name in set(sys.modules) - before if "evil" in name]


def test_planted_modules_are_not_imported(trapped: tuple[Path, Path]) -> None:
    folder, mark = trapped
    bundle = open_bundle(folder)
    assert bundle.tokenizer.encode("a")
    assert not mark.exists()
    for name, module in list(sys.modules.items()):
        assert not str(getattr(module, "__file__", None) or "").startswith(str(folder)), name
