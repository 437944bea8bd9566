"""Exports of the families that transformers makes: GGUF with the folder's bits, and folders from both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.adapters.adapter import bare
from pophood.adapters.open import open_adapter
from pophood.config import ModelConfig
from pophood.errors import Unsupported
from pophood.export.job import export_adapter, export_model
from pophood.export.merged import Merged
from pophood.formats import open_gguf
from pophood.model.bundle import Bundle, open_bundle
from pophood.model.engine import Engine
from tests.export.adapters import logits as adapted_logits
from tests.export.adapters import random_adapter
from tests.llama import open_llama
from tests.made_families import IN_GGUF, MADE, made_folder, opened_reference

IDS = np.random.default_rng(3).integers(0, 500, 60).tolist()
# What GGUF says beyond the keys that every decoder has, in llama.cpp's words.
OWN_KEYS: dict[str, tuple[str, dict[str, object]]] = {
    "mistral": ("llama", {"attention.sliding_window": 16}),
    "gemma2": (
        "gemma2",
        {
            "attention.sliding_window": 16,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma3": (
        "gemma3",
        {"attention.sliding_window": 16, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "phi3": ("phi3", {"attention.sliding_window": 20, "rope.dimension_count": 16}),
    "phi3-long": ("phi3", {"rope.scaling.original_context_length": 64, "rope.dimension_count": 12}),
    "granite": ("granite", {"embedding_scale": 12.0, "logit_scale": 3.0}),
    "gpt_neox": ("gptneox", {"use_parallel_residual": True, "rope.dimension_count": 4}),
    "llama-yarn": ("llama", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}),
}


def logits(bundle: Bundle) -> NDArray[np.float32]:
    engine = Engine(bundle.config, "f32", threads=1)
    engine.load(bundle.weights)
    return engine.logits([(engine.new_sequence(), IDS)], rows="all")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", IN_GGUF)
def test_gguf_has_the_folders_bits_and_gives_a_folder_back(family: str, tmp_path: Path) -> None:
    bundle = open_bundle(made_folder(tmp_path / "base", family))
    export_model(bundle, tmp_path / "out.gguf", threads=1)
    written = open_bundle(tmp_path / "out.gguf")
    expected = logits(bundle)
    assert np.array_equal(logits(written), expected)
    metadata = open_gguf(tmp_path / "out.gguf").metadata
    name, keys = OWN_KEYS.get(family, (metadata["general.architecture"], {}))
    assert metadata["general.architecture"] == name
    assert {key: metadata[f"{name}.{key}"] for key in keys} == keys
    export_model(written, tmp_path / "back", threads=1)
    back = open_bundle(tmp_path / "back")
    assert back.config.rotations() == bundle.config.rotations()
    assert np.array_equal(logits(back), expected)
    if family != "phi3-long":
        import torch

        with torch.no_grad():
            theirs = opened_reference(tmp_path / "back")(torch.tensor([IDS])).logits[0].numpy()
        assert np.abs(theirs - expected).max() < 1e-3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MADE)
def test_a_folder_gives_the_same_folder(family: str, tmp_path: Path) -> None:
    bundle = open_bundle(made_folder(tmp_path / "base", family))
    export_model(bundle, tmp_path / "out", threads=1)
    written = open_bundle(tmp_path / "out")
    assert written.config == bundle.config
    assert np.array_equal(logits(written), logits(bundle))


# What llama.cpp computes from our files: its own windows hide the same, or (Phi-3, Mistral) it has none.
IN_LLAMA_CPP = ("gemma2", "gemma3", "olmo2", "granite", "smollm3", "gpt_neox", "llama-yarn")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", IN_LLAMA_CPP)
def test_llama_cpp_computes_the_same_from_the_file(family: str, tmp_path: Path) -> None:
    bundle = open_bundle(made_folder(tmp_path / "base", family))
    export_model(bundle, tmp_path / "out.gguf", threads=1)
    llama = open_llama(tmp_path / "out.gguf", n_ctx=128, logits_all=True, n_threads=1)
    llama.eval(IDS)
    theirs = np.array(llama.scores[: len(IDS)])
    assert np.abs(theirs - logits(bundle)).max() < 0.05


@pytest.mark.filterwarnings("ignore")
def test_what_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    for family, keys, words in (
        ("gpt_neo", {}, "llama.cpp has no such models"),
        ("gemma2", {"query_pre_attn_scalar": 20}, "does not read the scale of scores"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 1]}, "rotates all blocks"),
    ):
        bundle = open_bundle(made_folder(tmp_path / family, family, **keys))
        config: ModelConfig = bundle.config
        with pytest.raises(Unsupported, match=f"{config.architecture}.*{words}.*export it to a folder"):
            export_model(bundle, tmp_path / f"{family}.gguf", threads=1)


# ---- adapters of joined matrices ----


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["phi3", "gpt_neox", "gpt_neo", "gemma3"])
def test_adapters_in_peft_and_back(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs PEFT, which `make test` installs")
    import torch

    bundle = open_bundle(made_folder(tmp_path / "base", family))
    adapter = random_adapter(bundle.config)
    assert {"attn.q", "attn.v", "mlp.up"} <= {bare(target) for target in adapter.targets}
    export_adapter(bundle.config, adapter, tmp_path / "adapter")
    mine = adapted_logits(bundle.config, Merged(bundle.config, bundle.weights, [(adapter, 1.0)]), IDS)
    back = open_adapter(tmp_path / "adapter", bundle.config)
    again = adapted_logits(bundle.config, Merged(bundle.config, bundle.weights, [(back, 1.0)]), IDS)
    assert np.array_equal(mine, again)
    model = peft.PeftModel.from_pretrained(opened_reference(tmp_path / "base"), tmp_path / "adapter").eval()
    with torch.no_grad():
        theirs = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(theirs - mine).max() < 1e-3
    assert np.abs(logits(bundle) - mine).max() > 0.1
    if family != "gpt_neo":
        export_adapter(bundle.config, adapter, tmp_path / "adapter.gguf")
        back = open_adapter(tmp_path / "adapter.gguf", bundle.config)
        again = adapted_logits(bundle.config, Merged(bundle.config, bundle.weights, [(back, 1.0)]), IDS)
        assert np.abs(mine - again).max() < 1e-4
