"""Canonical tensors: equal from a folder and from GGUF, none left over, views instead of copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.config import Rope, tensor_shapes
from pophood.errors import BadFile, BadInput, Unsupported
from pophood.families import config_from_gguf, locate
from pophood.families.family import split_block, unpermute_rope_rows
from pophood.formats import Tensor
from pophood.model.bundle import Weights, open_weights
from tests.tiny import FAMILIES, Values, reference, tiny_config, tiny_folder, tiny_gguf

SMALL: dict[str, Any] = {"vocab_size": 300}


def weights_of(path: Path) -> Weights:
    return open_weights(path).weights


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folder_and_gguf_give_the_values_that_were_written(family: str, dtype: str, tmp_path: Path) -> None:
    config, size = tiny_config(family, **SMALL), {"dtype": dtype, **SMALL}
    folder = open_weights(tiny_folder(tmp_path / "folder", family, spelling="old", prefix=False, **size))
    gguf = open_weights(tiny_gguf(tmp_path / "m.gguf", family, duplicate_output=True, **size))
    assert folder.config == config
    assert without_rope(gguf.config) == without_rope(config)
    if config.rope is not None:
        assert gguf.config.rope is not None
        tables = [rope.frequencies(config.head_dim).tobytes() for rope in (config.rope, gguf.config.rope)]
        assert tables[0] == tables[1]
    values = Values(config, dtype=dtype)
    for weights in (folder.weights, gguf.weights):
        assert list(weights) == list(tensor_shapes(config))
        for name, shape in tensor_shapes(config).items():
            assert weights[name].dtype == np.float32 and weights[name].shape == shape
            assert weights[name].tobytes() == values(name).tobytes(), name
            assert not weights[name].flags.writeable
    assert sum(folder.weights.precisions.values()) == config.n_params * (4 if dtype == "F32" else 2)


def without_rope(config: Any) -> Any:
    return replace(config, rope=None)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_quantised_gguf_holds_what_the_rounded_folder_holds(family: str, kind: str, tmp_path: Path) -> None:
    size = {"quantised": kind, **SMALL}
    folder = weights_of(tiny_folder(tmp_path / "folder", family, **size))
    gguf = weights_of(tiny_gguf(tmp_path / "m.gguf", family, **size))
    for name in folder:
        assert gguf[name].tobytes() == folder[name].tobytes(), name
        assert gguf.stored(name)[0] == "F32"
        assert gguf.stored_type(name) == (kind if gguf[name].ndim == 2 else "F32")


@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_names_are_what_transformers_has(family: str, tmp_path: Path) -> None:
    model = reference(tiny_folder(tmp_path / "folder", family, **SMALL))
    gguf = weights_of(tiny_gguf(tmp_path / "m.gguf", family, **SMALL))
    state = model.state_dict()
    assert len(state) > 20
    for name, values in state.items():
        for spelled in (name, name.removeprefix("transformer.").removeprefix("model.")):
            assert spelled in gguf
            assert np.array_equal(gguf[spelled], values.numpy()), name


def test_shards_are_one_model(tmp_path: Path) -> None:
    one = weights_of(tiny_folder(tmp_path / "one", "qwen2"))
    many = weights_of(tiny_folder(tmp_path / "many", "qwen2", shards=3))
    assert all(one[name].tobytes() == many[name].tobytes() for name in one)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"qkv_bias": True, "attn_out_bias": True, "mlp_bias": True}),
        ("qwen3", {"qkv_bias": True, "attn_out_bias": True}),
        ("llama-untied", {"rope": Rope(10_000.0, "linear", 4.0), "head_dim": 24}),
        ("gpt2", {"tied_output": False, "n_inner": 100, **SMALL}),
    ],
)
def test_rarer_shapes(family: str, fields: dict[str, Any], tmp_path: Path) -> None:
    folder = open_weights(tiny_folder(tmp_path / "folder", family, **fields))
    gguf = open_weights(tiny_gguf(tmp_path / "m.gguf", family, **fields))
    assert folder.config == tiny_config(family, **fields)
    assert without_rope(gguf.config) == without_rope(folder.config)
    assert all(gguf.weights[name].tobytes() == folder.weights[name].tobytes() for name in folder.weights)
    state = reference(tmp_path / "folder").state_dict()
    assert all(np.array_equal(folder.weights[name], values.numpy()) for name, values in state.items())


# ---- views ----


def is_view(values: NDArray[Any], file_bytes: NDArray[Any]) -> bool:
    return np.shares_memory(values, file_bytes)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stored_copies_nothing_but_permuted_rows(family: str, dtype: str, tmp_path: Path) -> None:
    for path in (
        tiny_folder(tmp_path / "folder", family, dtype=dtype, **SMALL),
        tiny_gguf(tmp_path / "m.gguf", family, dtype=dtype, **SMALL),
    ):
        weights = weights_of(path)
        for name in weights:
            kind, values = weights.stored(name)
            assert kind == weights.stored_type(name)
            assert values.dtype == {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[kind]
            assert not values.flags.writeable
            permuted = path.suffix == ".gguf" and family.startswith("llama") and ".attn.q." in name
            permuted |= path.suffix == ".gguf" and family.startswith("llama") and ".attn.k." in name
            assert is_view(values, weights._sources[name].tensor.data) is not permuted, name


def test_conv1d_is_a_strided_view(tmp_path: Path) -> None:
    weights = weights_of(tiny_folder(tmp_path / "folder", "gpt2", **SMALL))
    _, k = weights.stored("blocks.0.attn.k.weight")
    assert k.shape == (64, 64) and k.strides == (4, 3 * 64 * 4)  # a column block of [C, 3C]
    fused = weights["transformer.h.0.attn.c_attn.weight"]
    assert fused.shape == (64, 192)
    assert np.array_equal(fused[:, 64:128].T, k)


def test_rotary_partners_are_taken_apart_by_hand() -> None:
    rows = np.array([[0.0], [2.0], [1.0], [3.0], [10.0], [12.0], [11.0], [13.0]])
    assert unpermute_rope_rows(rows, head_dim=4)[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert unpermute_rope_rows(rows, head_dim=8)[:, 0].tolist() == [0, 1, 10, 11, 2, 3, 12, 13]


# ---- every tensor is accounted for ----

Change = Callable[[dict[str, Tensor]], object]


def tensor(shape: tuple[int, ...], kind: str = "F32") -> Tensor:
    return Tensor("x", kind, shape, np.zeros(int(np.prod(shape)) * 4, np.uint8))


def swap(name: str, **changes: Any) -> Change:
    return lambda tensors: tensors.update({name: replace(tensors[name], **changes)})


LLAMA_CHANGES: list[tuple[Change, str]] = [
    (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), r"lacks 'layers\.1\.mlp\.up_proj\.weight'"),
    (lambda t: t.pop("model.norm.weight"), r"lacks 'norm\.weight'"),
    (lambda t: t.pop("model.embed_tokens.weight"), r"lacks 'embed_tokens\.weight'"),
    (lambda t: t.update({"model.layers.2.mlp.up_proj.weight": tensor((1,))}), r"it has 'layers\.2\.mlp\.up"),
    (
        lambda t: t.update({"score.weight": tensor((1,))}),
        r"it has 'score\.weight', which a llama of 2 blocks",
    ),
    (lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": tensor((64,))}), r"q_proj\.bias"),
    (
        lambda t: t.update({"layers.0.mlp.up_proj.weight": tensor((96, 64))}),
        "twice, with and without 'model.'",
    ),
    (lambda t: t.update({"model.layers.00.mlp.up_proj.weight": tensor((96, 64))}), r"layers\.00"),
    (lambda t: t.update({"model.layers.7.self_attn.rotary_emb.inv_freq": tensor((8,))}), r"layers\.7"),
    (swap("model.layers.0.self_attn.k_proj.weight", shape=(64, 32)), r"k_proj.*\(64, 32\).*says \(32, 64\)"),
    (swap("model.norm.weight", shape=(64, 1)), r"norm\.weight.*\(64, 1\).*says \(64,\)"),
]


@pytest.fixture(scope="module")
def llama_tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    weights = tiny_folder(tmp_path_factory.mktemp("llama"), "llama", tokenizer=False)
    from pophood.formats import open_safetensors

    return dict(open_safetensors(weights / "model.safetensors").tensors)


@pytest.mark.parametrize(("change", "message"), LLAMA_CHANGES)
def test_what_does_not_fit_is_named(change: Change, message: str, llama_tensors: dict[str, Tensor]) -> None:
    from pophood.families import FAMILIES as READ

    tensors = dict(llama_tensors)
    locate(READ["llama"], tiny_config("llama"), "safetensors", tensors)
    change(tensors)
    with pytest.raises(BadFile, match=message):
        locate(READ["llama"], tiny_config("llama"), "safetensors", tensors)


def test_a_type_that_is_not_computed_is_named(llama_tensors: dict[str, Tensor]) -> None:
    from pophood.families import FAMILIES as READ

    tensors = dict(llama_tensors)
    swap("model.norm.weight", type="F8_E4M3")(tensors)
    with pytest.raises(Unsupported, match=r"norm\.weight' holds 'F8_E4M3'"):
        locate(READ["llama"], tiny_config("llama"), "safetensors", tensors)


def test_the_output_of_a_tied_model_may_stand_alone_or_twice(llama_tensors: dict[str, Tensor]) -> None:
    from pophood.families import FAMILIES as READ

    config = tiny_config("llama")
    token = llama_tensors["model.embed_tokens.weight"]
    twice = llama_tensors | {"lm_head.weight": token}
    alone = {name: t for name, t in twice.items() if name != "model.embed_tokens.weight"}
    for tensors in (twice, alone):
        sources = locate(READ["llama"], config, "safetensors", tensors)
        assert list(sources) == list(tensor_shapes(config))
        assert sources["embed.token"].tensor.data is token.data


def test_a_gguf_output_that_differs_is_an_output_of_its_own(tmp_path: Path) -> None:
    from pophood.formats import open_gguf

    tied = open_gguf(tiny_gguf(tmp_path / "tied.gguf", "gpt2", duplicate_output=True, **SMALL))
    assert config_from_gguf(tied.metadata, tied.tensors).tied_output
    own = tied.tensors["output.weight"]
    poisoned = own.data.copy()
    poisoned[-1] ^= 1
    tensors = tied.tensors | {"output.weight": replace(own, data=poisoned)}
    config = config_from_gguf(tied.metadata, tensors)
    assert not config.tied_output
    assert config.n_params == tiny_config("gpt2", **SMALL).n_params + 300 * 64


def test_an_untied_model_without_an_output_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "folder", "llama", keys={"tie_word_embeddings": False})
    with pytest.raises(BadFile, match=r"lacks 'lm_head\.weight'"):
        open_weights(folder)


def test_gguf_leftovers_are_named(tmp_path: Path) -> None:
    from pophood.formats import open_gguf

    file = open_gguf(tiny_gguf(tmp_path / "m.gguf", "qwen2", rope=Rope(1e6, "llama3", 8.0, 1.0, 4.0, 64)))
    config = config_from_gguf(file.metadata, file.tensors)
    from pophood.families import family_of

    with pytest.raises(BadFile, match=r"it has 'rope_freqs\.weight', which a qwen2"):
        locate(family_of(config), config, "gguf", file.tensors)


def test_what_llama_cpp_skips_is_ignored(tmp_path: Path) -> None:
    from pophood.families import family_of
    from pophood.formats import open_gguf

    file = open_gguf(tiny_gguf(tmp_path / "m.gguf", "llama"))
    config = config_from_gguf(file.metadata, file.tensors)
    table = {"blk.1.attn_rot_embd.weight": tensor((8,))}
    assert list(locate(family_of(config), config, "gguf", file.tensors | table)) == list(
        tensor_shapes(config)
    )
    with pytest.raises(BadFile, match=r"blk\.2\.attn_rot"):
        locate(family_of(config), config, "gguf", file.tensors | {"blk.2.attn_rot_embd.weight": tensor((8,))})


def test_unknown_names_are_answered_with_near_ones(tmp_path: Path) -> None:
    weights = weights_of(tiny_folder(tmp_path / "folder", "qwen3"))
    for wrong, near in (
        ("model.layers.1.self_attn.q_prj.weight", r"model\.layers\.1\.self_attn\.q_proj\.weight"),
        ("blocks.1.attn.q.wieght", r"blocks\.1\.attn\.q\.weight"),
        ("model.layers.9.self_attn.q_proj.weight", r"model\.layers\.1\.self_attn\.q_proj\.weight"),
        ("", "embed"),
        ("x" * 1000, "embed"),
    ):
        assert wrong not in weights and weights.get(wrong) is None
        with pytest.raises(BadInput, match=near):
            weights[wrong]
    with pytest.raises(BadInput, match="near it"):
        weights.stored("model.norm.weight")  # stored() speaks canonical names only


def test_numbered() -> None:
    assert split_block("h.11.attn.c_attn.weight") == ("h.{i}.attn.c_attn.weight", 11)
    assert split_block("blocks.0.ln_1.weight") == ("blocks.{i}.ln_1.weight", 0)
    assert split_block("wte.weight") == ("wte.weight", -1)
    assert split_block("h.01.x") == ("h.01.x", -1)
    assert split_block("h.\u0661.x") == ("h.\u0661.x", -1)


def test_ignored_tensors_are_no_parameters(tmp_path: Path) -> None:
    with_masks = weights_of(tiny_folder(tmp_path / "a", "gpt2", ignored=True, **SMALL))
    without = weights_of(tiny_folder(tmp_path / "b", "gpt2", ignored=False, **SMALL))
    assert with_masks.nbytes == without.nbytes == 4 * tiny_config("gpt2", **SMALL).n_params
