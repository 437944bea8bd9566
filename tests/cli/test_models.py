"""The commands for models and the machine: pull, list, use, show, rm, doctor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cli.conftest import Program
from tests.hub.fake_hub import gpt2_files, running_hub
from tests.tiny import tiny_folder

TALK = """\
Number of GPT-2 Parameters: 124,439,808
Transformer blocks: 12
Attention heads: 12
Embedding size: 768
Context length: 1024
Vocabulary size: 50,257
"""


def test_show_gpt2_needs_no_weights(program: Program) -> None:
    done = program("show", "gpt2")
    assert done.code == 0
    assert TALK in done.text
    for fact in ("2019-02-14", "2019-11-05", "WebText", "8 million documents", "40 GB", "1,557,611,200"):
        assert fact in done.text
    assert [line for line in done.said if "`pophood pull gpt2` fetches it" in line]
    told = json.loads(program("show", "gpt2-medium", "--json").text)
    assert (told["parameters"], told["blocks"], told["loaded"]) == (354_823_168, 24, False)
    assert [size["name"] for size in told["about"]["sizes"]] == [
        "gpt2",
        "gpt2-medium",
        "gpt2-large",
        "gpt2-xl",
    ]


def test_show_a_model_that_is_here(program: Program, base: Path, talker: Path) -> None:
    text = program("show", str(base)).text
    for line in (
        f"Model Loaded: {base}",
        "Transformer blocks: 2",
        "Output matrix: the token embedding again (tied)",
        "  attention: F32",
        "Chat template: none (a completion model)",
        "Suggested sampling: none",
    ):
        assert line in text.splitlines()
    assert re.search(r"^Stop tokens: 50256 '<\|endoftext\|>' \(named by .+\)$", text, re.MULTILINE)
    assert re.search(r"^Computed at: f32, keys and values in f32$", text, re.MULTILINE)
    assert re.search(r"^Memory: [\d.]+ MB for weights, ", text, re.MULTILINE)
    told = json.loads(program("show", str(talker), "--json").text)
    assert told["chat"] is True and told["key_value_heads"] == 2
    assert set(told["precision"]) >= {
        "token embedding",
        "attention",
        "feed-forward",
        "norms",
        "output matrix",
    }


def test_show_v_finds_what_is_not_a_number(program: Program, tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "gpt2", ignored=False)
    assert "Every weight is a finite number" in program("show", str(model), "-v").text
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = np.float32("nan").tobytes()
    file.write_bytes(data)
    assert re.search(r"Not a finite number: [\w.]+\[[\d, ]+\]", program("show", str(model), "-v").text)


def test_a_model_that_is_nowhere(program: Program) -> None:
    for arguments in (["show", "owner/name"], ["run", "a", "-m", "owner/name"], ["use", "owner/name"]):
        done = program(*arguments)
        assert done.code == 1
        assert "pophood pull owner/name" in done.said[-1]
    assert program("show").code == 2, "none is chosen and none is here"


def test_pull_list_use_rm(program: Program, base: Path) -> None:
    with running_hub() as hub:
        hub.add("openai-community/gpt2", gpt2_files())
        online = {"POPHOOD_OFFLINE": "", "HF_ENDPOINT": hub.endpoint, "HF_HOME": "hf"}
        refused = program("pull", "gpt2", HF_ENDPOINT=hub.endpoint)
        assert refused.code == 1 and "forbidden" in refused.said[-1]
        done = program("pull", "gpt2", "--yes", **online)
        assert done.code == 0, done.said
        assert re.search(r"fetching .* from .* into .* \(.* free\)", done.said[0])
        assert done.text.startswith("gpt2 is here: ")
        again = json.loads(program("pull", "gpt2", "--json", "-q", **online).text)
        assert again["name"] == "gpt2" and Path(again["path"]).is_dir()
    listed = program("list")
    assert re.search(r"^\* +gpt2 ", listed.text, re.MULTILINE)
    (row,) = json.loads(program("list", "--json").text)
    assert (row["name"], row["in_use"], row["where"]) == ("gpt2", True, "store")
    assert row["licence"] and f" {row['licence']} " in listed.text
    assert program("use", str(base)).text.startswith(str(base))
    assert json.loads(program("use", "--json").text)["model"] == str(base)
    assert program("use", "--none").text.startswith("gpt2 is the default model")
    removed = json.loads(program("rm", "gpt2", "--yes", "--json").text)
    assert removed["deleted"] is True and not Path(removed["path"]).exists()
    assert program("list").text == ""


def test_terms_are_accepted_before_anything_is_fetched(program: Program, tmp_path: Path) -> None:
    for words in (["pull", "gemma3-270m"], ["pull", "gemma3-270m", "-y"], ["run", "a", "-m", "gemma3-270m"]):
        done = program(*words, POPHOOD_OFFLINE="")
        assert done.code == 1 and done.out == b""
        (line,) = done.said
        assert "https://ai.google.dev/gemma/terms" in line
        assert "`pophood pull gemma3-270m --accept-terms`" in line
    assert not (tmp_path / "home" / "models" / ".incoming").exists()
    told = json.loads(program("show", "gemma3-270m", "--json").text)
    assert (told["parameters"], told["licence"]) == (268_098_176, "Gemma Terms of Use")


def test_the_name_is_said_first_and_the_named_model_is_never_replaced(program: Program, base: Path) -> None:
    done = program("run", "a", "-m", "gpt2-xl")
    assert done.code == 1 and done.out == b""
    assert "gpt2-xl" in done.said[-1] and "smollm2" not in done.said[-1]


def test_doctor_says_what_there_is_and_what_to_do(program: Program) -> None:
    done = program("doctor")
    lines = done.text.splitlines()
    assert re.fullmatch(r"Python [\d.]+ \| pophood [\d.]+ \| NumPy [\d.]+ \| Device: CPU", lines[0])
    named = [line[:14].strip() for line in lines[1:11]]
    assert named == [
        "Libraries", "Processor", "Features", "Engine", "Threads", "Memory free", "Memory reads",
        "Model store", "Default model", "Connections",
    ]  # fmt: skip
    assert [
        line for line in lines if line.startswith("To do: no model is here: fetch one with `pophood pull")
    ]
    found = json.loads(program("doctor", "--json").text)
    assert found["read_bandwidth"] > 1e8 and found["memory_free"] > 0 and found["threads"] >= 1
    assert found["offline"] is True and found["models"] == []


@pytest.mark.parametrize("command", ["rm", "pull"])
def test_a_name_cannot_climb_out_of_the_store(program: Program, command: str, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    done = program(command, "../../precious", "--yes")
    assert done.code in (1, 2)
    assert (tmp_path / "precious").is_dir()


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ((), {"force": False, "revision": None, "offline": None}),
        (("--force",), {"force": True}),
        (("--revision", "v2"), {"revision": "v2"}),
        (("--offline",), {"offline": True}),
        (("--yes",), {"confirm": None, "accept_terms": False}),
        (("--accept-terms",), {"accept_terms": True}),
    ],
)
def test_every_option_of_pull_reaches_the_hub(
    program: Program,
    option: tuple[str, ...],
    wanted: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from pophood import hub

    told: dict[str, object] = {}

    def pull(name: str, **options: object) -> SimpleNamespace:
        told.update(options, name=name)
        return SimpleNamespace(name=name, path=tmp_path, source="hub", revision=None, licence=None)

    monkeypatch.setattr(hub, "pull", pull)
    done = program("pull", "gpt2", *option)
    assert done.code == 0 and str(tmp_path) in done.text, done.said
    assert told["name"] == "gpt2"
    assert {name: told[name] for name in wanted} == wanted
