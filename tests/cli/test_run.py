"""`pophood run` as a user sees it: streams, samples, seeds, JSON, the page, interrupts, consoles."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

import pophood
from tests import processes
from tests.cli.conftest import Program
from tests.cli.terminal import SLOW
from tests.tiny import tiny_gguf

SPAIN = "The capital of Spain is"


def test_text_goes_to_stdout_and_talk_to_stderr(program: Program, base: Path) -> None:
    done = program("run", SPAIN, "-m", str(base), "-n", "5")
    assert done.code == 0
    assert done.text.startswith(SPAIN) and done.text.endswith("\n")
    assert done.said[0] == f"{base} at f32, {base}"
    summary = re.fullmatch(
        r"5 tokens in [\d.]+ s, \d+ tokens/s; ended at the token limit; seed (\d+)", done.said[-1]
    )
    assert summary is not None and len(done.said) == 2
    again = program("run", SPAIN, "-m", str(base), "-n", "5", "--seed", summary[1], "-q")
    assert (again.out, again.err) == (done.out, b"")


def test_blocks_are_computed_as_stored_unless_f32_is_asked_for(program: Program, tmp_path: Path) -> None:
    model = tiny_gguf(tmp_path / "model.gguf", "llama", quantised="Q8_0")
    common = ("run", SPAIN, "-m", str(model), "-n", "8", "--greedy", "--json")
    told = {}
    for options in ((), ("--kv", "f32"), ("--precision", "f32"), ("--precision", "q8"), ("--kv", "q8")):
        done = program(*common, *options)
        assert done.code == 0, done.err
        told[" ".join(options)] = json.loads(done.out)
    assert [facts["precision"] for facts in told.values()] == ["auto", "auto", "f32", "q8", "auto"]
    logits = [facts["outputs"][0]["tokens"][-1]["logit"] for facts in told.values()]
    assert logits[0] == logits[3], "every matrix is stored in blocks"
    assert len({*logits}) == 4
    assert program(*common[:-1]).said[0] == f"{model} at auto (blocks as stored), {model}"
    refused = program("look", "next", "-m", str(model), "--kv", "f16")
    assert refused.code == 2 and "No such option" in refused.err.decode()


def test_show_says_which_blocks_are_widened(tmp_path: Path, program: Program) -> None:
    for kind, said in (("Q3_K", "blocks as stored (Q3_K widened to 8 bits)"), ("Q6_K", "blocks as stored")):
        model = tiny_gguf(tmp_path / f"{kind}.gguf", "llama", quantised=kind)
        shown = program("show", str(model))
        assert f"Computed at: {said}, keys and values in f16\n" in shown.out.decode(), shown


def test_q8_is_suggested_where_it_would_be_faster(
    program: Program, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pophood.model.identity.WORTH_QUANTISING", 1000)
    line = "--precision q8 would be faster and take less memory, with slightly different numbers"
    assert line in program("run", SPAIN, "-m", str(base), "-n", "1").said
    assert line not in program("run", SPAIN, "-m", str(base), "-n", "1", "--precision", "q8").said
    assert line not in program("run", SPAIN, "-m", str(base), "-n", "1", "--precision", "f32").said


def test_the_same_text_from_argument_file_and_stdin(program: Program, base: Path, tmp_path: Path) -> None:
    greedy = ("-m", str(base), "-n", "4", "--greedy", "-q")
    wanted = program("run", SPAIN, *greedy)
    (tmp_path / "prompt.txt").write_text(f"{SPAIN}\n", encoding="utf-8")
    assert program("run", "-f", "prompt.txt", *greedy).out == wanted.out
    assert program("run", stdin=f"{SPAIN}\r\n".encode(), *greedy).out == wanted.out  # noqa: B026
    assert program("run", "-", stdin=SPAIN.encode(), *greedy).out == wanted.out  # noqa: B026
    kept = program("run", "--keep-newline", "-f", "prompt.txt", *greedy)
    assert kept.text.startswith(f"{SPAIN}\n") and kept.out != wanted.out
    bare = program("run", SPAIN, "--no-prompt", *greedy)
    assert SPAIN + bare.text == wanted.text


def test_samples_are_one_batch_in_the_talks_lines(program: Program, base: Path) -> None:
    arguments = ("run", SPAIN, "-m", str(base), "-n", "6", "--seed", "7", "--json", "-q")
    ten = json.loads(program(*arguments, "--samples", "10").text)
    one = json.loads(program(*arguments).text)
    assert len(ten["outputs"]) == 10
    assert [t["id"] for t in ten["outputs"][0]["tokens"]] == [t["id"] for t in one["outputs"][0]["tokens"]]
    shown = program(*arguments[:-2], "--samples", "10", "-q").text
    for number, output in enumerate(ten["outputs"], 1):
        assert f"Output {number:>2}: {output['text']}\n" in shown
    assert shown.startswith(f"Output  1: {SPAIN}")


def test_json_tells_everything_about_every_token(program: Program, base: Path) -> None:
    done = program("run", SPAIN, "-m", str(base), "-n", "3", "--greedy", "--json", "--logit-bias", "464=-inf")
    told, lm = json.loads(done.text), pophood.load(base)
    assert told["prompt"] == SPAIN and told["prompt_ids"] == [464, 3139, 286, 8602, 318]
    assert told["sampling"]["temperature"] == 0
    assert told["sampling"]["logit_bias"] == {"464": "-inf"}
    tokens = told["outputs"][0]["tokens"]
    assert [token["position"] for token in tokens] == [5, 6, 7]
    for token in tokens:
        assert token["top"][0]["id"] == token["id"], "greedy takes the likeliest"
        assert len(token["top"]) == 10
        assert token["probability"] == pytest.approx(token["top"][0]["probability"])
        assert token["entropy"] >= 0
        assert token["chance"] == 1, "greedy leaves one token"
        assert token["logit"] == pytest.approx(token["top"][0]["logit"])
    ids = [*told["prompt_ids"], *(token["id"] for token in tokens)]
    for token in tokens:
        row = lm.logits(ids[: token["position"]])[-1].astype(np.float64)
        chances = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert token["logit"] == pytest.approx(float(row[token["id"]]), abs=1e-4)
        assert token["probability"] == pytest.approx(float(chances[token["id"]]), rel=1e-4)
        assert token["entropy"] == pytest.approx(float(-(chances * np.log(chances)).sum()), rel=1e-4)
    times = [token["seconds"] for token in tokens]
    assert times == sorted(times) and times[0] > 0 and told["seconds"] == times[-1]
    assert told["tokens_per_second"] == pytest.approx(3 / told["seconds"])
    assert told["interrupted"] is False
    assert told["outputs"][0]["finish"] == "length"
    assert told["outputs"][0]["text"] == SPAIN + told["outputs"][0]["completion"]


def test_json_tells_the_chance_and_the_seed_of_a_draw(program: Program, base: Path) -> None:
    """`chance` is the probability after all sampling steps: here softmax of the 5 largest logits over 0.7."""
    draw = ("--top-k", "5", "--temperature", "0.7", "--seed", "7")
    told = json.loads(program("run", SPAIN, "-m", str(base), "-n", "4", "--json", *draw).text)
    assert told["seed"] == 7
    for token in told["outputs"][0]["tokens"]:
        kept = [one["logit"] / 0.7 for one in token["top"][:5]]
        chances = [math.exp(logit - max(kept)) for logit in kept]
        place = [one["id"] for one in token["top"][:5]].index(token["id"])
        assert token["chance"] == pytest.approx(chances[place] / sum(chances), rel=1e-4)
    unseeded = json.loads(program("run", SPAIN, "-m", str(base), "-n", "4", "--json").text)
    again = program("run", SPAIN, "-m", str(base), "-n", "4", "--json", "--seed", str(unseeded["seed"]))
    assert json.loads(again.text)["outputs"][0]["completion"] == unseeded["outputs"][0]["completion"]


def test_settings_reach_the_library(program: Program, base: Path) -> None:
    settings = {
        "--temperature": "0.7", "--top-k": "30", "--top-p": "0.9", "--min-p": "0.01", "--typical-p": "0.95",
        "--repetition-penalty": "1.1", "--presence-penalty": "0.1", "--frequency-penalty": "0.2",
        "--penalty-window": "32", "--dry-multiplier": "0.8", "--dry-base": "1.5", "--dry-allowed-length": "3",
        "--dry-window": "50", "--xtc-probability": "0.1", "--xtc-threshold": "0.2", "--min-tokens": "2",
        "--logit-bias": " Madrid=-5", "--dry-breaker": "\n", "--seed": "3", "--max-tokens": "3",
        "--order": "bias,penalties,dry,top-k,typical,min_p,top_p,xtc,temperature",
    }  # fmt: skip
    flat = [part for pair in settings.items() for part in pair]
    told = json.loads(program("run", SPAIN, "-m", str(base), "--json", *flat).text)
    got = told["sampling"]
    for option, value in settings.items():
        name = option.removeprefix("--").replace("-", "_")
        if name in got and name not in ("logit_bias", "order"):
            assert got[name] == float(value), name
    assert got["logit_bias"] == {"14708": -5.0}
    assert [198] in got["dry_breakers"]
    assert got["order"][5:7] == ["min_p", "top_p"]
    assert told["seed"] == 3


def test_a_stop_text_ends_before_it(program: Program, base: Path) -> None:
    arguments = ("run", SPAIN, "-m", str(base), "-n", "8", "--greedy", "--json")
    whole = json.loads(program(*arguments).text)["outputs"][0]["completion"]
    stop = whole[len(whole) // 2 :][:3]
    ended = json.loads(program(*arguments, "--stop", stop).text)["outputs"][0]
    assert ended["completion"] == whole[: whole.index(stop)]
    assert ended["finish"] == "stop_string"


def test_special_tokens_are_text_unless_asked_for(program: Program, base: Path) -> None:
    arguments = ("run", "<|endoftext|>", "-m", str(base), "-n", "1", "--greedy", "--json")
    assert len(json.loads(program(*arguments).text)["prompt_ids"]) > 1
    assert json.loads(program(*arguments, "--parse-special").text)["prompt_ids"] == [50256]
    forced = ("run", "a", "-m", str(base), "-n", "1", "--greedy", "-q", "--logit-bias", "50256=1000")
    assert program(*forced).text == "a\n"
    assert program(*forced, "--special").text == "a<|endoftext|>\n"


def test_a_long_prompt_is_an_error_or_a_truncation_that_is_said(program: Program, base: Path) -> None:
    long = "word " * 200
    refused = program("run", long, "-m", str(base))
    assert refused.code == 2 and refused.out == b""
    assert "128" in refused.said[-1] and "--truncate" in refused.said[-1]
    cut = program("run", long, "-m", str(base), "--truncate", "left", "-n", "4")
    assert cut.code == 0
    assert any(line.startswith("truncated: the prompt has ") for line in cut.said)


def test_invalid_bytes_are_an_error_with_their_offset_or_replaced_and_counted(
    program: Program, base: Path
) -> None:
    arguments = ("run", "-m", str(base), "-n", "1")
    refused = program(*arguments, stdin=b"caf\xe9 au \xff lait")
    assert refused.code == 2 and "offset 3" in refused.said[-1]
    replaced = program(*arguments, "--replace-invalid", stdin=b"caf\xe9 au \xff lait")
    assert replaced.code == 0 and replaced.text.startswith("caf\ufffd au \ufffd lait")
    assert "stdin: 2 invalid sequences replaced by U+FFFD" in replaced.said


def test_a_chat_model_points_to_chat(program: Program, talker: Path) -> None:
    done = program("run", "a", "-m", str(talker), "-n", "1")
    assert [line for line in done.said if "`pophood chat`" in line]


def test_model_defaults_are_used_when_asked_for(program: Program, base: Path, tmp_path: Path) -> None:
    model = shutil.copytree(base, tmp_path / "model")
    suggestion = {"temperature": 0.3, "top_p": 0.8, "eos_token_id": 50256}
    (model / "generation_config.json").write_text(json.dumps(suggestion), encoding="utf-8")
    arguments = ("run", "a", "-m", str(model), "-n", "1", "--json")
    assert json.loads(program(*arguments).text)["sampling"]["temperature"] == 0.8
    used = json.loads(program(*arguments, "--model-defaults", "--top-p", "0.5").text)["sampling"]
    assert (used["temperature"], used["top_p"]) == (0.3, 0.5), "what is typed wins"


def test_the_page_is_written_whole(program: Program, base: Path, tmp_path: Path) -> None:
    done = program("run", SPAIN, "-m", str(base), "-n", "4", "--samples", "2", "--html", "page.html")
    assert done.code == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count('class="card"') == 8 and page.count("<meter ") == 80
    assert f"continues “{SPAIN}”" in page and "top_k 40" in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"], "no temporary file stays"
    assert "page: page.html" in done.said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_token_survives_any_console(process: Program, base: Path, encoding: str) -> None:
    """120 tokens from a flat distribution have characters that narrow encodings lack, yet cause no error."""
    hot = ("--temperature", "100", "--top-k", "0", "--seed", "1", "-n", "100")
    done = process("run", "caf\u00e9 日本", "-m", str(base), *hot, PYTHONIOENCODING=encoding, NO_COLOR="1")
    assert done.code == 0, done.err
    shown = done.out.decode(encoding)
    assert shown.startswith("caf\u00e9 日本".encode(encoding, "backslashreplace").decode(encoding))
    assert b"\x1b[" not in done.err


def test_ctrl_c_keeps_what_was_printed(base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pophood", "run", "a", "-m", str(base), "-n", "0", "--greedy"]
    # The tiny model's window of 128 tokens ends a text soon, so many samples keep it busy.
    command += ["--samples", "300", "--html", "page.html"]
    with processes.started_bytes(command, stdout=PIPE, stderr=PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        first = process.stdout.read(14)
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=processes.HANG_SECONDS)
    assert process.returncode == 130
    assert first.startswith(b"Output  1: a")
    assert rest.endswith(b"\n")
    assert b"Traceback" not in said
    assert b"ended by Ctrl-C" in said.splitlines()[-1]
    assert (tmp_path / "page.html").read_text("utf-8").count("<h2") == 300


def test_a_reader_that_leaves_ends_it_quietly(base: Path) -> None:
    command = [sys.executable, "-m", "pophood", "run", "a", "-m", str(base), "-n", "0", "--samples", "20"]
    with processes.started_bytes(command, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=processes.HANG_SECONDS) == 1
    assert b"Traceback" not in said and b"roken" not in said


def test_an_interrupted_run_says_so_in_json(base: Path, settings: dict[str, str]) -> None:
    command = [sys.executable, "-c", SLOW, "run", "a", "-m", str(base), "-n", "0", "--samples", "9", "--json"]
    with processes.started_bytes(command, stdout=PIPE, stderr=PIPE, env=os.environ | settings) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the line with the model's name: the model is loaded
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=processes.HANG_SECONDS)
    assert process.returncode == 130
    told = json.loads(out)
    assert told["interrupted"] is True
    assert {output["finish"] for output in told["outputs"]} == {None}
