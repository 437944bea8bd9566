"""Hostile values for every configuration key of the families beyond GPT-2, Llama 3 and the Qwens.

Each case sets one key of one family, in turn, and sometimes changes a second place: 5,000 of each kind in
`make test`, 100,000 in `make test-full`. The tensors of an accepted configuration fit or are refused by name.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest

from pophood.config import ModelConfig, tensor_shapes
from pophood.export.gguf.gguf_model import architecture_keys
from pophood.families import FAMILIES, config_from_gguf, config_from_hf, gguf_family, locate
from pophood.families.naming import file_tensors, rotary_tensors
from pophood.families.rope import _TABLE_KEYS as ROPE_KEYS
from pophood.families.standard import GENERIC_HF_KEYS
from pophood.formats.tensors import Tensor
from tests.attacks.mutate import JSON_VALUES, Case, Watch, key_count, peak_memory
from tests.attacks.test_config_attacks import GGUF_VALUES, ROOM, SLACK, TIMEOUT, believable
from tests.families.published_later import LATER
from tests.made_families import IN_GGUF, MADE

TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope", "su", "mrope", "ntk", 7, None)
NEAR = (0.5, 1.5, 3, 6, 16, 64, 1e-3, 1e4, 1e6, -16, "gelu", "silu", "gelu_pytorch_tanh", [0.5, 2.0])
LISTS: tuple[Any, ...] = (
    "full_attention",
    "sliding_attention",
    "global",
    "local",
    0,
    1,
    2,
    1.0,
    "x",
    None,
    {},
)
DOCUMENTS = [*MADE.values(), *(said for said, _ in LATER.values())]


def rope_table(rng: random.Random) -> dict[str, Any]:
    """Return a table of rotary settings with some keys of any type of scaling."""
    table: dict[str, Any] = {"rope_type": rng.choice(TYPES)}
    for key in rng.sample(sorted(ROPE_KEYS), rng.randrange(4)):
        table[key] = rng.choice((*NEAR, *JSON_VALUES, [1.0] * 6, [1.0] * rng.randrange(40)))
    return table


def value_of(rng: random.Random, blocks: int) -> Any:
    """Return a value that some key has, or that none should have."""
    match rng.randrange(5):
        case 0:
            return rope_table(rng)
        case 1:
            return {
                "full_attention": rope_table(rng),
                "sliding_attention": rng.choice((rope_table(rng), None)),
            }
        case 2:
            one = [rng.choice(LISTS) for _ in range(rng.choice((1, 2, blocks)))]
            return (one * blocks)[: blocks + rng.choice((0, 0, 0, 1, -1))]
        case 3:
            return rng.choice(NEAR)
        case _:
            return rng.choice(JSON_VALUES)


def hf_keys() -> list[tuple[dict[str, Any], str]]:
    """Return each document with each key that its family reads beyond the generic ones."""
    pairs = []
    for said in DOCUMENTS:
        said = said.get("text_config", said)
        family = FAMILIES[said["model_type"]]
        pairs += [(said, key) for key in sorted({*family.hf_keys} - {*GENERIC_HF_KEYS})]
    return pairs


def hf_cases(count: int) -> Iterator[tuple[Case, str, dict[str, Any]]]:
    pairs = hf_keys()
    for index in range(count):
        rng = random.Random(f"family keys:{index}")
        said, key = pairs[index % len(pairs)]
        blocks = int(said.get("num_hidden_layers", said.get("num_layers", 4)))
        changed = said | {key: value_of(rng, blocks)}
        if rng.random() < 0.3:
            changed[rng.choice(sorted(changed))] = value_of(rng, blocks)
        label = f"family keys:{index} {said['model_type']} {key} = {str(changed[key])[:60]}"
        yield Case(label, b"x" * 4000), key, changed


def tensors_of(config: ModelConfig, file_format: Literal["safetensors", "gguf"]) -> dict[str, Tensor]:
    """Return the tensors of a model in one kind of file, all ones; they share one piece of memory."""
    shapes = {one.name: one.shape for one in file_tensors(config, file_format)}
    ones = np.ones(max(int(np.prod(shape)) for shape in shapes.values()), np.float32).view(np.uint8)
    tensors = {
        name: Tensor(name, "F32", shape, ones[: 4 * int(np.prod(shape))]) for name, shape in shapes.items()
    }
    if file_format == "gguf":
        for name, values in rotary_tensors(config).items():
            tensors[name] = Tensor(name, "F32", values.shape, values.view(np.uint8))
    return tensors


@pytest.mark.timeout(TIMEOUT)
def test_every_key_of_a_folder() -> None:
    there = {
        name: (FAMILIES[said["model_type"]], tensors_of(config_from_hf(said), "safetensors"))
        for name, said in MADE.items()
    }
    watch, before, tried = Watch(slack=SLACK), peak_memory(), Counter[str]()

    def use(said: dict[str, Any]) -> None:
        config = config_from_hf(said)
        believable(config)
        for name, (family, tensors) in there.items():
            if family.name == config.architecture and config.n_params < 1_000_000:
                located = locate(family, config, "safetensors", tensors)
                assert set(located) == set(tensor_shapes(config)), name

    for case, key, said in hf_cases(key_count()):
        tried[key] += 1
        watch.attempt(case, lambda said=said: use(said))  # type: ignore[misc]
    assert watch.accepted > key_count() // 50
    assert watch.refused["BadFile"] and watch.refused["Unsupported"]
    assert min(tried.values()) > key_count() // 1_000
    assert peak_memory() - before < ROOM


@pytest.mark.timeout(TIMEOUT)
def test_every_key_of_a_gguf_file() -> None:
    files = []
    for name in IN_GGUF:
        config = config_from_hf(MADE[name])
        family = gguf_family(config)
        prefix = f"{family.gguf_name}."
        metadata = {"general.architecture": family.gguf_name, **architecture_keys(config)}
        written = config_from_gguf(metadata, tensors_of(config, "gguf"))
        assert written.rotations() == config.rotations(), name
        files += [(prefix + key, metadata, tensors_of(config, "gguf")) for key in sorted(family.gguf_keys)]
    watch = Watch(slack=SLACK)
    for index in range(key_count()):
        rng = random.Random(f"family keys in gguf:{index}")
        key, metadata, tensors = files[index % len(files)]
        blocks = 4
        changed = metadata | {
            key: rng.choice((*GGUF_VALUES, *NEAR, *TYPES, np.array([16] * blocks, np.uint32)))
        }
        if rng.random() < 0.3:
            changed[rng.choice(sorted(changed))] = rng.choice((*GGUF_VALUES, *NEAR))
        case = Case(f"family keys in gguf:{index} {key} = {str(changed.get(key))[:60]}", b"x" * 4000)
        watch.attempt(
            case,
            lambda changed=changed, tensors=tensors: believable(config_from_gguf(changed, tensors)),  # type: ignore[misc]
        )
    assert watch.accepted > key_count() // 50
    assert watch.refused["BadFile"] and watch.refused["Unsupported"]
