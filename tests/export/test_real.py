"""A real model: SmolLM2 with an adapter, exported in every format and opened by every program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pophood.export.job import export_adapter, export_model
from pophood.export.merged import Merged
from pophood.export.proof import PASSAGE, divergence
from pophood.export.types import GGUF_TYPES
from pophood.model.bundle import Bundle, open_bundle
from tests.export.adapters import logits, random_adapter
from tests.llama import open_llama

SMALL = 0.02  # of a random adapter: the text changes, and stays text


@pytest.fixture(scope="module")
def bundle(smollm2: Path) -> Bundle:
    return open_bundle(smollm2)


@pytest.mark.full
def test_gguf_in_llama_cpp(tmp_path: Path, bundle: Bundle) -> None:
    pytest.importorskip("llama_cpp", reason="needs Python package: llama-cpp-python")
    adapters = [(random_adapter(bundle.config), SMALL)]
    ids = bundle.tokenizer.encode(PASSAGE)[:64]
    ours = logits(bundle.config, Merged(bundle.config, bundle.weights, adapters), ids)
    divergences = {}
    for kind in GGUF_TYPES:
        receipt = export_model(bundle, tmp_path / "tuned.gguf", kind, adapters)
        assert receipt.proof is not None
        model = open_llama(tmp_path / "tuned.gguf", n_ctx=128, logits_all=True)
        try:
            model.eval(ids)
            theirs = np.array(model.scores[: len(ids)])
        finally:
            model.close()
        divergences[kind] = float(np.mean([divergence(*rows) for rows in zip(ours, theirs, strict=True)]))
        print(kind, receipt.proof, f"in llama.cpp {divergences[kind]:.2g}")
        assert divergences[kind] < max(receipt.proof.bound, 1e-3)
    # The file itself has q4_1 and q8_0, so those two are near it; q4_0 rounds a second time.
    assert max(divergences[kind] for kind in ("f32", "f16", "q8_0", "q4_1")) < 0.02 < divergences["q4_0"]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_the_folder_and_the_adapter(tmp_path: Path, bundle: Bundle) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = random_adapter(bundle.config, scale=SMALL)
    ids = bundle.tokenizer.encode(PASSAGE)[:64]
    ours = logits(bundle.config, Merged(bundle.config, bundle.weights, [(adapter, 1.0)]), ids)
    export_model(bundle, tmp_path / "tuned", adapters=[(adapter, 1.0)])
    export_model(bundle, tmp_path / "base")
    export_adapter(bundle.config, adapter, tmp_path / "adapter")

    def theirs(folder: Path, *with_adapter: Path) -> object:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for place in with_adapter:
            model = peft.PeftModel.from_pretrained(model, place).eval()
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].numpy()

    assert np.abs(theirs(tmp_path / "tuned") - ours).max() < 1e-3
    assert np.abs(theirs(tmp_path / "base", tmp_path / "adapter") - ours).max() < 1e-3
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    assert tokenizer.encode(PASSAGE) == bundle.tokenizer.encode(PASSAGE)
    assert bundle.chat_template is not None
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == bundle.chat_template.render(messages)
