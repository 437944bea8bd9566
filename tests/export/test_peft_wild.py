"""Adapter folders from other programs and other releases of PEFT: read, or refused with a clear message.

The cases come from public reports, whose numbers are given beside them.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pophood
from pophood.adapters import module_pattern
from pophood.adapters.open import open_adapter, template_of
from pophood.adapters.peft import KEYS, read_adapter
from pophood.cli.app import pophood as command
from pophood.errors import BadFile, BadInput, NotFound, PophoodError, Unsupported
from pophood.export.adapter_writers import write_adapter
from pophood.formats.safetensors_write import write_safetensors
from tests.export.adapters import random_adapter, same
from tests.tiny import tiny_config, tiny_folder

A, B = np.arange(16.0).reshape(2, 8), np.arange(16.0).reshape(8, 2)
MODULE = "model.layers.0.self_attn.q_proj"
PLAIN = {f"base_model.model.{MODULE}.lora_A.weight": A, f"base_model.model.{MODULE}.lora_B.weight": B}


def a_folder(path: Path, tensors: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Write an adapter folder with the given tensors and further configuration keys."""
    path.mkdir(parents=True)
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2} | settings
    (path / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    given = {name: ("F32", np.asarray(v, np.float32)) for name, v in (tensors or PLAIN).items()}
    write_safetensors(path / "adapter_model.safetensors", given)
    return path


# ---- keys ----


@pytest.mark.parametrize(
    "more",
    [
        # lmdeploy #1151 and LlamaFactory #5348: PEFT before 0.3
        {"enable_lora": None, "merge_weights": False},
        {"brand_new_config": None, "use_brand_new": False, "new_list": [], "new_table": {}},
        # textgen #6819: Unsloth writes the keys of a newer PEFT
        {"corda_config": None, "eva_config": None, "exclude_modules": None, "trainable_token_indices": None},
        {"lora_bias": False, "use_original_init": False, "layer_replication": None},  # peft #1511, #1979
        {"_from_model_config": False},  # peft #1168
        # ms-swift records its training settings
        {"lora_dtype": "bf16", "lorap_lr_ratio": 16.0, "lorap_emb_lr": 1e-6},
        {"layer_replication": {}, "modules_to_save": False, "megatron_config": [], "bias": None},
        {"auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True}},
        {"rank_pattern": None, "alpha_pattern": None, "use_rslora": None},
    ],
    ids=lambda more: next(iter(more)),
)
def test_keys_that_ask_for_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    plain, other = read_adapter(a_folder(tmp_path / "a")), read_adapter(a_folder(tmp_path / "b", **more))
    assert same(plain, other)


@pytest.mark.parametrize(
    "value", [True, 1, 0, 0.0, "", "x", [False], {"a": None}, [[]]], ids=lambda value: repr(value)
)
def test_unknown_keys_that_ask_for_something_are_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(Unsupported, match="'brand_new_config'"):
        read_adapter(a_folder(tmp_path / "a", brand_new_config=value))


@pytest.mark.parametrize("value", [True, [True, False, True], "all"])
def test_old_keys_that_ask_for_something_are_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(Unsupported, match="'enable_lora'"):
        read_adapter(a_folder(tmp_path / "a", enable_lora=value))


def test_every_key_of_the_installed_peft_is_known(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs Python package: peft")
    assert {field.name for field in fields(peft.LoraConfig)} <= set(KEYS)
    written = peft.LoraConfig(r=2, lora_alpha=2, task_type="CAUSAL_LM")
    folder = a_folder(tmp_path / "a")
    written.save_pretrained(folder)
    assert same(read_adapter(folder), read_adapter(a_folder(tmp_path / "b")))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank_pattern": {"(a": 2}}, "opens a group"),
        ({"rank_pattern": {r"(?<!x)q_proj": 2}}, "uses (?<!"),
        ({"alpha_pattern": {r"(q)_\1roj": 2}}, r"uses \1"),
        ({"alpha_pattern": {"[z-a]*": 2}}, "not a regular expression"),
    ],
)
def test_patterns_that_are_not_read_are_named(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match="write out the names of the modules") as caught:
        read_adapter(a_folder(tmp_path / "a", **settings))
    assert words in str(caught.value)


def test_patterns_that_take_too_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_pattern, "MOST_STEPS", 30)
    with pytest.raises(Unsupported, match="the patterns take too long"):
        read_adapter(a_folder(tmp_path / "a", alpha_pattern={"(.*a)*b": 2}))


@pytest.mark.parametrize("value", ["8", None, True, [8], 10**400, -1e10])
def test_values_of_patterns_that_are_no_numbers(tmp_path: Path, value: object) -> None:
    with pytest.raises(BadFile, match="wanted a number"):
        read_adapter(a_folder(tmp_path / "a", alpha_pattern={".*q_proj": value}))


# ---- names of tensors ----

HALVES = {"A": A, "B": B}


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.{module}.lora_{half}.default.weight",  # a raw state dict
        "base_model.model.{module}.lora_{half}.default_0.weight",  # diffusers PR 9622
        "base_model.model.{module}.lora_{half}.my-adapter.weight",
        "_orig_mod.base_model.model.{module}.lora_{half}.weight",  # Soup #335: torch.compile
        "base_model.model._orig_mod.{module}.lora_{half}.weight",
        "_fsdp_wrapped_module.base_model.model.{module}.lora_{half}.weight",
        "module.base_model.model.{module}.lora_{half}.weight",  # DataParallel
        "base_model.model.base_model.model.{module}.lora_{half}.weight",  # wrapped twice
        "base_model.model.model._checkpoint_wrapped_module.layers.0.self_attn.q_proj.lora_{half}.weight",
        "{module}.lora_{half}.weight",
        "base_model.model.layers.0.self_attn.q_proj.lora_{half}.weight",  # learned without the output matrix
    ],
)
def test_names_in_other_wrappings(tmp_path: Path, name: str) -> None:
    tensors = {name.format(module=MODULE, half=half): values for half, values in HALVES.items()}
    assert same(read_adapter(a_folder(tmp_path / "a", tensors)), read_adapter(a_folder(tmp_path / "b")))


def test_patterns_see_the_plain_name(tmp_path: Path) -> None:
    tensors = {f"_orig_mod.base_model.model.{MODULE}.lora_{h}.default.weight": v for h, v in HALVES.items()}
    adapter = read_adapter(a_folder(tmp_path / "a", tensors, alpha_pattern={f"^{MODULE}": 6}))
    assert np.array_equal(adapter.targets["blocks.0.attn.q"][1], 3 * B)


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        # llama.cpp #10551: an adapter of MLX
        ([f"{MODULE}.lora_a", f"{MODULE}.lora_b"], Unsupported, "one of mlx-lm's names"),
        # llama.cpp #11554, axolotl and Unsloth: embeddings that were resized
        (["base_model.model.lm_head.weight"], Unsupported, "saves it when the vocabulary was changed"),
        (["base_model.model.model.embed_tokens.weight"], Unsupported, "merge_and_unload"),
        (
            ["base_model.model.model.embed_tokens.modules_to_save.default.weight"],
            Unsupported,
            "a whole matrix",
        ),
        ([f"base_model.model.{MODULE}.lora_magnitude_vector.weight"], Unsupported, "DoRA"),
        (["base_model.model.model.embed_tokens.lora_embedding_A"], Unsupported, "the token matrix"),
        ([f"base_model.model.{MODULE}.lora_B.bias"], Unsupported, "a bias of an adapter"),
        ([f"base_model.model.{MODULE}.bias"], Unsupported, "a bias, which is not adapted"),
        (["base_model.model.score.modules_to_save.weight"], Unsupported, "a whole module"),
        (["prompt_embeddings"], Unsupported, "only lora_A and lora_B"),
        (
            [f"{MODULE}.lora_A.one.weight", f"{MODULE}.lora_B.one.weight", f"{MODULE}.lora_A.two.weight"],
            Unsupported,
            "the adapters 'one', 'two'; wanted one",
        ),
        (
            [f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight", f"_orig_mod.{MODULE}.lora_A.weight"],
            BadFile,
            "the same matrix of the same module: keep one",
        ),
        # vLLM #34186: another model's names must not end in the base model's answers
        (
            ["base_model.model.encoder.lora_A.weight", "base_model.model.encoder.lora_B.weight"],
            Unsupported,
            "'encoder', which is not a matrix of attention or feed-forward",
        ),
    ],
)
def test_names_that_are_refused(
    tmp_path: Path, names: list[str], kind: type[PophoodError], words: str
) -> None:
    tensors = {name: B if ".lora_B" in name or name.endswith("lora_b") else A for name in names}
    with pytest.raises(kind) as caught:
        read_adapter(a_folder(tmp_path / "a", tensors))
    message = str(caught.value)
    assert words in message, message
    assert "\n" not in message


# ---- folders and files ----


def test_an_adapter_of_mlx_is_told_its_way(tmp_path: Path) -> None:
    said = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}, "num_layers": 16}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    write_safetensors(tmp_path / "adapters.safetensors", {f"{MODULE}.lora_a": ("F32", A.astype(np.float32))})
    with pytest.raises(Unsupported, match=r"an adapter of mlx-lm.*mlx_lm\.fuse"):
        open_adapter(tmp_path, tiny_config("llama"))


def test_a_folder_without_an_adapter_is_told_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no adapter_config\.json: name the folder"):
        read_adapter(tmp_path)
    a_folder(tmp_path / "out" / "checkpoint-500")
    with pytest.raises(
        NotFound, match=r"folders in it hold adapters: name one of them, such as .*checkpoint-500$"
    ):
        read_adapter(tmp_path / "out")
    a_folder(tmp_path / "out" / "checkpoint-1000")
    with pytest.raises(NotFound, match=r"checkpoint-1000 or .*checkpoint-500$"):
        read_adapter(tmp_path / "out")
    with pytest.raises(NotFound, match="a whole model: name it as the model"):
        read_adapter(tiny_folder(tmp_path / "base", "llama"))
    with pytest.raises(NotFound, match="no such folder"):
        read_adapter(tmp_path / "nowhere")


def test_an_adapter_named_by_its_weights(tmp_path: Path) -> None:
    config = tiny_config("llama", n_embd=8, n_head=1, n_kv_head=1, head_dim=8)
    folder = a_folder(tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    assert same(open_adapter(weights, config), read_adapter(folder))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(NotFound, match=r"holds no adapter_config\.json"):
        open_adapter(weights, config)


def test_weights_under_another_name_are_listed(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    weights.rename(folder / "adapters.safetensors")
    with pytest.raises(
        NotFound, match=r"holds no adapter_model\.safetensors; it holds adapters\.safetensors"
    ):
        read_adapter(folder)
    (folder / "adapters.safetensors").unlink()
    for name in ("adapter_0.pt", "adapter_model.pt", "adapter_model.bin"):  # torchtune, and PEFT before 0.7
        (folder / name).write_bytes(b"PK\x03\x04" + bytes(40))
        with pytest.raises(Unsupported, match="never opens it"):
            read_adapter(folder)
        (folder / name).unlink()


# ---- what lies beside an adapter ----


def template_source(lm: pophood.LM) -> str | None:
    """Return the chat template that a conversation would use."""
    return None if lm.chat_template is None else lm.chat_template.source


THEIRS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chat_template.jinja", THEIRS),
        ("tokenizer_config.json", json.dumps({"chat_template": THEIRS, "eos_token": "</s>"})),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "default", "template": THEIRS}]})),
        ("chat_template.json", json.dumps({"chat_template": THEIRS})),
    ],
    ids=["jinja", "tokenizer_config", "named", "json"],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_chat_template_of_an_adapter_is_used(
    tmp_path: Path, file: str, content: str, family: str
) -> None:
    """G.O.D PR 1295: trainers save the tokenizer, and the template in it, beside the adapter."""
    size: dict[str, Any] = {"vocab_size": 2000} if family == "gpt2" else {}
    base = tiny_folder(tmp_path / "base", family, n_layer=1, **size)
    lm = pophood.load(base, threads=1)
    own = template_source(lm)
    assert (own is None) == (family == "gpt2")
    write_adapter(tmp_path / "tuned", random_adapter(lm.config), lm.config)
    assert template_of(tmp_path / "tuned") is None
    (tmp_path / "tuned" / file).write_text(content, encoding="utf-8")
    assert template_of(tmp_path / "tuned") == THEIRS
    assert template_of(tmp_path / "tuned" / "adapter_model.safetensors") == THEIRS
    lm.use_adapters([tmp_path / "tuned"])
    assert lm.chat_template is not None
    assert lm.chat_template.render([{"role": "user", "content": "Hi"}]) == "user: Hi\n"
    assert lm.has_template_of_adapter == (family == "llama")
    lm.use_adapters([])
    assert template_source(lm) == own
    done = CliRunner().invoke(command, ["run", "Hi", "-m", str(base), "--adapter", str(tmp_path / "tuned")])
    assert ("the chat template beside the adapter" in done.stderr) == (family == "llama")


def test_a_chat_template_that_is_no_text_is_named(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a")
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{")
    with pytest.raises(BadFile, match="not UTF-8"):
        template_of(folder)


# ---- the base of an adapter ----


def test_a_misfit_names_the_base_that_the_adapter_names(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a", base_model_name_or_path="/content/drive/MyDrive/base")
    with pytest.raises(BadInput, match=r"made for \(its files say /content/drive/MyDrive/base\)$"):
        open_adapter(folder, tiny_config("llama"))
    for family, words in (
        ("llama", "the output matrix, which this model shares with the token matrix"),  # peft #2018
        ("llama-untied", "changes output by"),
    ):
        names = {f"base_model.model.lm_head.lora_{half}.weight": v for half, v in HALVES.items()}
        with pytest.raises(BadInput, match=words):
            open_adapter(a_folder(tmp_path / family, names), tiny_config(family))


def test_a_base_of_another_machine_is_explained(tmp_path: Path) -> None:
    config = tiny_config("llama", n_layer=1)
    for name in ("/content/drive/MyDrive/base", str(tmp_path / "gone")):
        adapter = replace(random_adapter(config), base={"name": name})
        write_adapter(tmp_path / "tuned", adapter, config)
        done = CliRunner().invoke(command, ["export", str(tmp_path / "tuned"), "--to", str(tmp_path / "out")])
        assert done.exit_code != 0
        assert f"{name}: there is no such file or folder" in done.stderr
        way = f"to use another copy, run `pophood export MODEL --adapter {tmp_path / 'tuned'}`"
        assert way in " ".join(done.stderr.split())
