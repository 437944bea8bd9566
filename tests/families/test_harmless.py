"""Values that change nothing are accepted, and the advice of the refusals works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, Unsupported
from pophood.families import config_from_gguf, config_from_hf
from pophood.model.bundle import open_weights
from tests import processes
from tests.families.published import GPT2, SMOLLM2
from tests.families.test_refusals import METADATA, gguf_tensors
from tests.tiny import tiny_folder, tiny_gguf


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.vocab_size", 513),
        ("llama.vocab_size", "many"),
        ("llama.logit_scale", 1.0),
        ("llama.logit_scale", 0.0),
        ("llama.embedding_scale", 1.0),
        ("llama.residual_scale", 1.0),
        ("llama.final_logit_softcapping", 0.0),
        ("llama.pooling_type", 0),
        ("llama.attention.scale", 0.0),
        ("llama.attention.scale", 0.25),  # 1 / sqrt(16), the usual
        ("llama.attention.layer_norm_epsilon", 1e-5),
        ("llama.expert_feed_forward_length", 96),
        ("split.no", 0),
    ],
)
def test_gguf_values_that_change_nothing(key: str, value: Any) -> None:
    changed = config_from_gguf(METADATA | {key: value}, gguf_tensors())
    assert changed == config_from_gguf(METADATA, gguf_tensors())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logit_scale", 1.0),
        ("logits_scaling", 1),
        ("residual_multiplier", 1.0),
        ("final_logit_softcapping", None),
        ("a_key_from_tomorrow", None),
        ("quantization_config", None),
        ("quantization_config", {}),
    ],
)
def test_values_of_a_folder_that_change_nothing(key: str, value: Any) -> None:
    assert config_from_hf(SMOLLM2 | {key: value}) == config_from_hf(SMOLLM2)


# ---- What the messages advise can be done ----

MLX = {"group_size": 64, "bits": 4}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quantization": MLX}, "quantization is .* format of MLX"),
        ({"quantization_config": MLX, "quantization": MLX}, "quantization is .* format of MLX"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config is .* of 'gptq'"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "format of 'awq'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "format of 'bitsandbytes'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "format of 'fp8'"),
        ({"compression_config": {"format": "pack"}}, "compression_config is .* of another program"),
        ({"quantization_config": "4 bits"}, "format of another program"),
    ],
)
def test_packed_matrices_are_named_with_a_way_out(config: dict[str, Any], words: str) -> None:
    ways = "pophood reads F32, F16 and BF16 in safetensors.*: use the original model"
    for base in (GPT2, SMOLLM2, {"model_type": "mixtral"}):
        with pytest.raises(Unsupported, match=f"{words}.*{ways}") as error:
            config_from_hf(base | config)
        assert "remove" not in str(error.value) and "only :" not in str(error.value)


@pytest.mark.parametrize("key", ["auto_map", "tie_encoder_decoder", "custom_pipelines", "adapter.type"])
def test_no_refusal_ends_in_an_empty_list(key: str) -> None:
    with pytest.raises(Unsupported) as error:
        if key == "adapter.type":
            config_from_gguf(METADATA | {key: "lora"}, gguf_tensors())
        config_from_hf(GPT2 | {key: "x"})
    assert re.search(r"pophood computes only (models without it|\{\}|False): ", str(error.value))


def test_the_advised_command_leaves_out_an_unknown_key(tmp_path: Path) -> None:
    keys = {"llama.mood": "good", "llama.scale_of": 3.0}
    path = tiny_gguf(tmp_path / "old.gguf", "llama", keys=keys)
    for number in (1, 2):
        with pytest.raises(Unsupported) as error:
            open_weights(path)
        assert str(error.value).startswith(f"{path}: GGUF metadata, llama: the key ")
        advised = re.search(r"`gguf-new-metadata (--remove-metadata \S+) OLD NEW`", str(error.value))
        assert advised is not None
        new = tmp_path / f"new{number}.gguf"
        command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", *advised[1].split(), "--force"]
        processes.run([*command, str(path), str(new)], check=True, capture_output=True)
        path = new
    assert open_weights(path).config == open_weights(tiny_gguf(tmp_path / "plain.gguf", "llama")).config


@pytest.mark.parametrize("key", ["x;reboot", "$(reboot)", "`reboot`", "a b", "x\n"])
def test_a_hostile_key_gets_into_no_command(key: str) -> None:
    with pytest.raises(Unsupported) as error:
        config_from_gguf(METADATA | {f"llama.{key}": 1}, gguf_tensors())
    assert "gguf-new-metadata" not in str(error.value)
    assert str(error.value).endswith("use another file of the model")


@pytest.mark.parametrize("kind", ["gemma3n", "lfm2", "mixtral", None])
def test_an_unknown_architecture_names_its_file_and_a_way_out(kind: str | None, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "llama", keys={"model_type": kind, "architectures": ["Some"]})
    data = tiny_gguf(tmp_path / "m.gguf", "llama").read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(data.replace(b"llama", (kind or "none!").encode()[:5].ljust(5, b"x")))
    for place, word in ((folder, "model_type is"), (other, "general.architecture is")):
        begin = re.escape(str(place))
        with pytest.raises(Unsupported, match=f"^{begin}: .*{word} .*choose a model of one of these"):
            open_weights(place)


def test_every_error_of_a_model_names_its_file(tmp_path: Path) -> None:
    """The readers say what is wrong with a part; `open_weights` adds which model."""
    folder = tiny_folder(tmp_path / "m", "llama", keys={"num_hidden_layers": 3})
    with pytest.raises(BadFile, match=f"^{re.escape(str(folder))}: tensors and configuration disagree"):
        open_weights(folder)
    gguf = tiny_gguf(tmp_path / "m.gguf", "qwen2", keys={"qwen2.rope.dimension_sections": [4, 4]})
    with pytest.raises(Unsupported, match=f"^{re.escape(str(gguf))}: GGUF metadata, qwen2: the key"):
        open_weights(gguf)
