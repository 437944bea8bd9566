"""open_bundle: contents and suggestions of a folder and a GGUF file, and errors for anything else."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.cli.options.sampling import SamplingArgs
from pophood.cli.screens.generation import settings_of
from pophood.errors import BadFile, BadInput, NotFound, PophoodError, Unsupported
from pophood.formats import open_gguf
from pophood.formats.json_file import parse_json
from pophood.model.bundle import open_bundle, open_weights
from pophood.text.chat.chat_template import ChatTemplate
from tests import processes
from tests.tiny import FAMILIES, tiny_config, tiny_folder, tiny_gguf

SMALL: dict[str, Any] = {"vocab_size": 400}


@pytest.mark.parametrize("family", FAMILIES)
def test_both_kinds_of_file_open_as_the_same_model(family: str, tmp_path: Path) -> None:
    folder = open_bundle(tiny_folder(tmp_path / "a-model", family, **SMALL))
    gguf = open_bundle(tiny_gguf(tmp_path / "a-file.gguf", family, **SMALL))
    assert (folder.name, gguf.name) == ("a-model", "a-file")
    assert (folder.file_format, gguf.file_format) == ("safetensors", "gguf")
    assert folder.config == tiny_config(family, **SMALL)
    assert folder.precisions == {"F32": 4 * folder.config.n_params} == gguf.precisions
    assert (folder.licence, gguf.licence) == (None, "apache-2.0")
    assert (folder.chat_template is None) == (gguf.chat_template is None) == (family == "gpt2")
    text = "The capital of Spain is"
    assert folder.tokenizer.encode(text) == gguf.tokenizer.encode(text)
    assert folder.tokenizer.decode(folder.tokenizer.encode(text)) == text
    assert folder.tokenizer.start_ids == gguf.tokenizer.start_ids
    assert set(folder.tokenizer.stops) == set(gguf.tokenizer.stops)


def test_gpt2_has_its_own_vocabulary(tmp_path: Path) -> None:
    tokenizer = open_bundle(tiny_folder(tmp_path / "m", "gpt2")).tokenizer
    assert tokenizer.encode("The dog") == [464, 3290]
    assert tokenizer.vocab_size == 50_257


def test_a_path_may_be_text(tmp_path: Path) -> None:
    assert open_bundle(str(tiny_folder(tmp_path / "m", "qwen3"))).config.architecture == "qwen3"


def test_the_cache_of_the_hub_gives_its_own_names(tmp_path: Path) -> None:
    place = tmp_path / "models--someone--tiny-llama" / "snapshots" / "0123abcd"
    assert open_bundle(tiny_folder(place, "llama")).name == "someone/tiny-llama"


def test_a_folder_with_only_a_gguf_file_is_that_file(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", "llama")
    assert open_bundle(tmp_path).config == open_bundle(path).config


def test_suggestions_are_kept_and_null_is_none(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2")
    said = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "typical_p": None,
        "eos_token_id": [1],
    }
    (folder / "generation_config.json").write_text(json.dumps(said | {"max_new_tokens": 9}))
    assert open_bundle(folder).suggested == {"temperature": 0.7, "top_k": 20, "top_p": 0.8}
    (folder / "generation_config.json").write_text(json.dumps(said | {"do_sample": False}))
    assert open_bundle(folder).suggested == {"temperature": 0.0}
    keys = {"general.sampling.temp": 0.5, "general.sampling.penalty_last_n": 64, "general.sampling.top_k": 30}
    gguf = tiny_gguf(tmp_path / "m.gguf", "qwen2", keys=keys)
    assert open_bundle(gguf).suggested == {"temperature": 0.5, "penalty_window": 64, "top_k": 30}


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"top_k": -1}, "suggests top_k -1; wanted a whole number from 0"),
    ({"top_k": 50.0}, "suggests top_k 50.0; wanted a whole number from 0"),
    ({"top_k": "many"}, "suggests top_k 'many'; wanted a whole number from 0"),
    ({"temperature": "0.7"}, "suggests temperature '0.7'; wanted a number from 0"),
    ({"temperature": -1}, "suggests temperature -1; wanted a number from 0"),
    ({"top_p": 1.5}, "suggests top_p 1.5; wanted a number from 0 to 1"),
    ({"min_p": True}, "suggests min_p True; wanted a number from 0 to 1"),
    ({"typical_p": [0.9]}, r"suggests typical_p \[0.9\]; wanted a number from 0 to 1"),
    ({"repetition_penalty": 0}, "suggests repetition_penalty 0; wanted a number from 0.001"),
    ({"repetition_penalty": {"a": 1}}, "suggests repetition_penalty {'a': 1}; wanted a number"),
]


@pytest.mark.parametrize(("said", "words"), NONSENSE)
def test_nonsense_suggestions_are_left_out_and_said(said: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"min_p": 0.5, "typical_p": 0.5} | said))
    bundle = open_bundle(folder)
    ((name, fault),) = bundle.suggestion_faults.items()
    assert name in said and name not in bundle.suggested and len(bundle.suggested) >= 1
    assert re.match(f"{re.escape(str(path))} {words}", fault)
    assert bundle.remarks == (f"{fault}: left out",)
    heard: list[str] = []
    lm = pophood.load(folder, announce=heard.append)
    assert heard == list(bundle.remarks)
    sampling = SamplingArgs({}, model_defaults=True)
    assert settings_of(replace(sampling, model_defaults=False), lm) == {}
    with pytest.raises(
        BadInput, match=f"--model-defaults: .*{words}.*: leave the option out, or choose {name}"
    ):
        settings_of(sampling, lm)
    typed = settings_of(replace(sampling, settings={name: 1}), lm)
    assert typed == bundle.suggested | {name: 1}


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("general.sampling.temp", -0.5, "temperature"),
        ("general.sampling.top_p", 2.0, "top_p"),
        ("general.sampling.top_k", 40.0, "top_k"),
        ("general.sampling.min_p", "0.1", "min_p"),
        ("general.sampling.penalty_repeat", 0.0, "repetition_penalty"),
        ("general.sampling.xtc_threshold", [0.1], "xtc_threshold"),
    ],
)
def test_nonsense_suggestions_of_gguf_are_left_out_and_said(
    key: str, value: Any, name: str, tmp_path: Path
) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", "qwen2", keys={key: value, "general.sampling.penalty_last_n": 64})
    bundle = open_bundle(path)
    assert bundle.suggested == {"penalty_window": 64}
    assert list(bundle.suggestion_faults) == [name]
    assert f"GGUF metadata suggests {key} " in bundle.remarks[0] and str(path) in bundle.remarks[0]


@pytest.mark.parametrize("value", ["2", [1, "2"], 2.0, True, {"id": 2}])
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_stop_token_that_is_no_id_is_left_out_and_said(file: str, value: Any, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2")
    usual = set(open_bundle(folder).tokenizer.stops)
    path = folder / file
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(said | {"eos_token_id": value}))
    bundle = open_bundle(folder)
    assert set(bundle.tokenizer.stops) == usual | ({1} if isinstance(value, list) else set())
    odd = value[1] if isinstance(value, list) else value
    assert bundle.remarks == (f"{path} names the stop token {odd!r}; wanted a token's id: left out",)


def test_sampling_without_sampling_suggests_greedy_and_nothing_is_wrong(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2")
    said = {"do_sample": False, "top_k": -1, "temperature": "0"}
    (folder / "generation_config.json").write_text(json.dumps(said))
    bundle = open_bundle(folder)
    assert (bundle.suggested, bundle.remarks) == ({"temperature": 0.0}, ())


@pytest.mark.parametrize("said", ["[]", '"x"', "{", "7"])
def test_a_damaged_generation_config_is_named(said: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2")
    (folder / "generation_config.json").write_text(said)
    with pytest.raises(BadFile, match="generation_config"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model\n", "mit"),
        ("---\nlicense: 'apache-2.0'\n---\n", "apache-2.0"),
        ("# A model\nlicense: mit\n", None),
        ("---\nlicense:\n---\n", None),
        ("\xff\xfe", None),
    ],
)
def test_the_licence_is_the_cards(card: str, licence: str | None, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "qwen2")
    (folder / "README.md").write_bytes(card.encode("latin-1"))
    assert open_bundle(folder).licence == licence


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(60))


BROKEN: list[tuple[Callable[[Path], object], type[PophoodError], str]] = [
    (remove("config.json"), NotFound, r"config\.json"),
    (remove("model.safetensors"), BadFile, r"no \.safetensors"),
    (remove("tokenizer.json"), NotFound, "tokenizer"),
    (pickled, Unsupported, r"pytorch_model\.bin.*pickle.*safetensors"),
    (lambda folder: (folder / "config.json").write_text("{"), BadFile, r"config\.json.*not JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), BadFile, r"config\.json.*list"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), BadFile, "empty|no model|neither"),
]


@pytest.mark.parametrize(("damage", "error", "message"), BROKEN)
def test_what_is_missing_is_named(
    damage: Callable[[Path], object], error: type[PophoodError], message: str, tmp_path: Path
) -> None:
    folder = tiny_folder(tmp_path / "m", "llama")
    damage(folder)
    with pytest.raises(error, match=message):
        open_bundle(folder)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for name in ("nothing", "nothing.gguf", "no/thing"):
        with pytest.raises(NotFound, match="thing"):
            open_bundle(tmp_path / name)


def test_a_safetensors_file_stands_for_its_folder(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "llama")
    assert open_bundle(folder / "model.safetensors").config == open_bundle(folder).config


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_one_bad_value_is_found_where_it_is(bad: float, dtype: str, tmp_path: Path) -> None:
    poison = np.array([bad], np.float32).tobytes()
    poison = {"F32": poison, "F16": np.array([bad], np.float16).tobytes(), "BF16": poison[2:]}[dtype]
    for name, place, index in (
        ("embed.token", 5, (0, 5)),
        ("blocks.1.ln_2.bias", 5, (5,)),
        ("blocks.0.mlp.down.weight", 5, (5, 0)),  # stored [in, out]
        ("blocks.0.attn.k.weight", 192 + 64 + 7, (7, 1)),  # inside c_attn [64, 192]: row 1, column 64 + 7
    ):
        folder = tiny_folder(tmp_path / name, "gpt2", dtype=dtype, vocab_size=300)
        path, source = folder / "model.safetensors", open_weights(folder).weights._sources[name].tensor
        assert bad_values(folder) == []
        data = path.read_bytes()
        start = data.index(source.data.tobytes()) + place * len(poison)
        path.unlink()  # an earlier mapping keeps its own file
        path.write_bytes(data[:start] + poison + data[start + len(poison) :])
        assert bad_values(folder) == [(name, index)]
        assert not np.isfinite(open_weights(folder).weights[name][index])


def bad_values(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, index) for name, index in open_weights(path).weights.check_finite() if index is not None]


def test_smollm2_is_what_was_published(smollm2: Path) -> None:
    """The real file: its number of tensors, its types, and q as transformers' GGUF reader decodes it."""
    import gguf
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    bundle = open_bundle(smollm2)
    assert bundle.config.n_params == 134_515_008
    assert set(bundle.precisions) == {"Q4_1", "Q8_0", "F32"} and bundle.licence == "apache-2.0"
    assert bundle.chat_template is not None
    theirs = LlamaTensorProcessor({"num_attention_heads": 9, "num_key_value_heads": 3})
    tensors = open_gguf(smollm2).tensors
    for part in "qk":
        stored = tensors[f"blk.0.attn_{part}.weight"]
        values = gguf.quants.dequantize(stored.data, gguf.GGMLQuantizationType[stored.type])
        wanted = theirs.process(values.reshape(stored.shape), stored.name).weights
        assert np.array_equal(bundle.weights[f"model.layers.0.self_attn.{part}_proj.weight"], wanted)
    assert bad_values(smollm2) == []


def test_every_file_of_a_folder_is_read_and_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokenizer, chat template, stops and suggestions share the JSON files, and there is one template."""
    folder = tiny_folder(tmp_path, "llama")
    chat = {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_bytes()) if path.is_file() else {}
    path.write_text(json.dumps(content | chat), encoding="utf-8")
    (folder / "generation_config.json").write_text('{"temperature": 0.5}', encoding="utf-8")
    reads: Counter[str] = Counter()
    templates: list[str] = []

    def counted(text: bytes, what: str, *advice: str) -> Any:
        reads[Path(what).name] += 1
        return parse_json(text, what, *advice)

    def compiled(self: ChatTemplate, source: str, *rest: Any, **names: Any) -> None:
        templates.append(source)
        original(self, source, *rest, **names)

    original = ChatTemplate.__init__
    monkeypatch.setattr("pophood.formats.json_file.parse_json", counted)
    monkeypatch.setattr(ChatTemplate, "__init__", compiled)
    bundle = open_bundle(folder)
    assert bundle.chat_template is not None and list(bundle.tokenizer.stops)
    assert {"config.json", "tokenizer_config.json", "generation_config.json"} <= reads.keys()
    assert set(reads.values()) == {1}, reads
    assert templates == [chat["chat_template"]]


def test_opening_imports_nothing_heavy(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", "llama", tokenizer=False)
    code = (
        "import sys; from pathlib import Path; from pophood.model.bundle import open_weights;"
        f"open_weights(Path({str(folder)!r}));"
        "heavy = {'torch', 'transformers', 'jinja2', 'tokenizers', 'huggingface_hub', 'rich'}"
        " & set(sys.modules);"
        "assert not heavy, heavy"
    )
    result = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_unknown_names_say_so(tmp_path: Path) -> None:
    weights = open_bundle(tiny_folder(tmp_path / "m", "llama")).weights
    with pytest.raises(BadInput, match=r"no tensor is called 'wte\.weight'"):
        weights["wte.weight"]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_K"])
def test_rows_are_those_of_the_whole_matrix(kind: str, tmp_path: Path) -> None:
    plain = kind in ("F32", "F16", "BF16")
    path = tmp_path / "m"
    if plain:
        tiny_folder(path, "gpt2", dtype=kind)
    else:
        tiny_gguf(path, "llama", quantised=kind, n_embd=256, head_dim=64, n_head=4, n_kv_head=4)
    weights = open_weights(path).weights
    for name in ("embed.token", "blocks.0.attn.k.weight"):  # GPT-2's is stored [in, out], Llama's permuted
        rows = weights.rows(name, (5, 3, 5))
        assert rows.dtype == np.float32
        assert np.array_equal(rows, weights[name][[5, 3, 5]])
