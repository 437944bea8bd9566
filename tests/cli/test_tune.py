"""`pophood tune` as a user types it: one line is enough, `run` uses the result, errors are one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import needs, processes
from tests.cli.conftest import Program
from tests.conftest import ROOT
from tests.tiny import tiny_folder

SMALL = ("--steps", "3", "--length", "32", "--batch-size", "2", "--threads", "1", "--rank", "2")
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models") / "llama", "llama"))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def next_commands(text: str) -> list[list[str]]:
    """Return the commands suggested at the end of a run, as lists of words without the program's name."""
    lines = text.split("Try next:\n")[1].splitlines()
    return [shlex.split(line)[1:] for line in lines]


def test_one_line_works_and_run_uses_the_result(program: Program, model: str, notes: Path) -> None:
    done = program("tune", "notes.txt", "-m", model, *SMALL)
    assert done.code == 0, done.said
    said = "\n".join(done.said)
    assert "data: text" in said
    assert re.search(r"Training [\d,]+ of [\d,]+ parameters", said)
    assert re.search(r"step 0: validation loss \d", said)
    assert "before:" in done.text
    assert "after:" in done.text
    for row in ("validation loss", "loss on general text", "attn.q", "predicted"):
        assert row in done.text
    assert re.match(r"Perplexity [\d,.]+ to [\d,.]+ in 3 steps\n", done.text)
    commands = next_commands(done.text)
    assert [words[0] for words in commands] == ["run", "eval", "export"]
    for words in commands:
        used = program(*words)
        assert used.code == 0, (words, used.said)
    assert (notes.parent / "notes-lora.gguf").is_file()
    for name in ("adapter_config.json", "adapter_model.safetensors", "report.html", "loss.svg"):
        assert (notes.parent / "notes-lora" / name).is_file()
    lines = (notes.parent / "notes-lora" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events][:2] == ["started", "evaluated"]
    assert events[-1]["event"] == "finished"

    used = program("run", "The sun", "--adapter", "notes-lora:0.5", "--greedy", "--max-tokens", "3")
    assert used.code == 0, used.said
    assert used.said[0].startswith(model), "the base is the one that was tuned"
    assert any("with the adapter notes-lora, 14 matrices, scale 0.5" in line for line in used.said)
    again = program("tune", "notes.txt", "-m", model, *SMALL)
    assert again.code == 2
    assert "notes-lora: already holds a run" in again.said[-1]


def test_from_scratch_is_a_model_that_run_opens(program: Program, notes: Path) -> None:
    """The command in docs/tune.md, with smaller numbers, gives a model that `run` opens."""
    command = "pophood tune notes.txt --from-scratch gpt2-tiny"
    assert f"```sh\n{command}\n```" in (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
    short = ("--steps", "3", "--length", "32", "--batch-size", "2", "--threads", "1", "--vocabulary", "280")
    done = program(*shlex.split(command)[1:], *short)
    assert done.code == 0, done.said
    assert re.search(r"gpt2-tiny from scratch: \d+,\d+ parameters, a vocabulary of 280 tokens", done.said[0])
    for words in next_commands(done.text):
        used = program(*words)
        assert used.code == 0, (words, used.said)
        assert "notes-scratch" in words


def test_from_scratch_plans_and_shows_and_writes_nothing(program: Program, notes: Path) -> None:
    words = ("tune", "notes.txt", "--from-scratch", "gpt2-nano", "--threads", "1", "--json")
    planned = program(*words, "--steps", "3", "--plan")
    assert planned.code == 0, planned.said
    assert json.loads(planned.text)["steps"] == 3
    shown = program(*words, "--show")
    assert shown.code == 0, shown.said
    assert json.loads(shown.text)["examples"]
    assert not (notes.parent / "notes-scratch").exists()
    sizes = program("tune", "--from-scratch", "list")
    assert sizes.code == 0
    assert re.search(r"gpt2-tiny .* 1088256 ", sizes.text)


def test_from_scratch_goes_on_after_ctrl_c(notes: Path, program: Program, settings: dict[str, str]) -> None:
    started = ["notes.txt", "--from-scratch", "gpt2-nano", "--threads", "1", "--steps", "100000"]
    out, _ = _stopped(started, notes, "notes-scratch", settings)
    words = next_commands(out.decode())[-1]
    assert words == shlex.split("tune notes.txt --from-scratch gpt2-nano -o notes-scratch --resume")
    resumed = program(*words, "--minutes", "0.05")
    assert resumed.code == 0, resumed.said
    assert "gpt2-nano from scratch" in resumed.said[0], "the folder says what it began with"


def test_the_plan_writes_nothing(program: Program, model: str, notes: Path) -> None:
    done = program("tune", "notes.txt", "-m", model, *SMALL, "--plan", "--json")
    assert done.code == 0, done.said
    plan = json.loads(done.text)
    assert plan["steps"] == 3
    assert plan["fits"]
    assert plan["memory"] > 1e6
    assert not (notes.parent / "notes-lora").exists()


def test_float32_is_for_training_too(program: Program, model: str, notes: Path, tmp_path: Path) -> None:
    out = tmp_path / "exact"
    line = ("tune", str(notes), "-m", model, "--steps", "1", "--out", str(out), "--precision")
    for precision in ("f32", "bf16"):
        done = program(*line, precision, "--overwrite")
        assert done.code == 0, done.said
        settings = json.loads((out / "tune.json").read_text(encoding="utf-8"))["settings"]
        assert settings["precision"] == precision
    assert "'f16' is not one of 'auto', 'f32', 'bf16'" in program(*line, "f16").said[-1]


def test_the_plan_says_what_an_8_bit_base_costs(program: Program, model: str, notes: Path) -> None:
    done = program("tune", "notes.txt", "-m", model, *SMALL, "--base", "q8", "--plan")
    assert done.code == 0, done.said
    assert any(re.search(r"^8-bit base: loss [\d.]+ before the first step, ", line) for line in done.said)
    assert "memory " in done.text


@pytest.mark.parametrize(
    ("out", "code", "words"),
    [
        ("notes.txt/below", 2, "notes.txt is a file, not a folder"),
        ("notes.txt", 2, "is a file; wanted a folder"),
        ("/sys/out", 1, "cannot be written"),  # not writable even for root
        ("taken", 2, "already exists and is no run of tune: name another with -o"),
    ],
)
def test_an_output_that_cannot_be_made_is_refused_at_once(
    program: Program, model: str, notes: Path, out: str, code: int, words: str
) -> None:
    needs.linux()
    (notes.parent / "taken").mkdir()
    (notes.parent / "taken" / "mine.txt").write_text("mine", encoding="utf-8")
    done = program("tune", "notes.txt", "-m", model, *SMALL, "-o", out)
    assert done.code == code
    assert done.said[-1].startswith(f"pophood: {out}: ") and words in done.said[-1]
    assert len(done.said) == 1, "before a model is loaded"


def test_show_marks_what_is_learned(program: Program, model: str, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"What is {n}?", "completion": "A number."}) for n in range(30)]
    (tmp_path / "tasks.jsonl").write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    done = program("tune", "tasks.jsonl", "-m", model, "--length", "64", "--show")
    assert done.code == 0, done.said
    assert "[A number." in done.text
    assert "[What is" not in done.text
    assert any(re.search(r"bad: .*tasks.jsonl:31: ", line) for line in done.said)
    strict = program("tune", "tasks.jsonl", "-m", model, "--length", "64", "--show", "--strict")
    assert strict.code == 1
    assert "tasks.jsonl:31" in strict.said[-1]


def test_eval_measures_without_torch(program: Program, model: str, notes: Path) -> None:
    done = program("eval", model, "notes.txt", "--length", "32", "--json")
    assert done.code == 0, done.said
    found = json.loads(done.text)
    assert found["tokens"] > 100
    assert found["perplexity"] == pytest.approx(2.718281828 ** found["loss"], rel=1e-6)


def _stopped(arguments: list[str], notes: Path, out: str, settings: dict[str, str]) -> tuple[bytes, bytes]:
    """Start a run, interrupt it after its second step, and return its output on both streams."""
    command = [sys.executable, "-m", "pophood", "tune", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with processes.started_bytes(command, cwd=notes.parent, env=os.environ | settings, **streams) as process:
        events, end = notes.parent / out / "events.jsonl", time.monotonic() + processes.HANG_SECONDS
        while not (events.exists() and '"step", "step": 2' in events.read_text()) and time.monotonic() < end:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out_, err = process.communicate(timeout=processes.HANG_SECONDS)
    assert process.returncode == 130, err.decode()
    return out_, err


def test_ctrl_c_keeps_what_was_learned(model: str, notes: Path, settings: dict[str, str]) -> None:
    arguments = ["notes.txt", "-m", model, *SMALL, "--steps", "100000"]
    out, err = _stopped(arguments, notes, "notes-lora", settings)
    assert b"stopped; the weights so far are kept" in err
    assert b"--resume" in out
    assert (notes.parent / "notes-lora" / "adapter_model.safetensors").is_file()
    assert list((notes.parent / "notes-lora" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume", "--overwrite"), "give one"),
        (
            ("--resume", "--rank", "4"),
            "--resume continues with the settings of the run: leave out --rank",
        ),
        (("--steps", "3", "--minutes", "1"), "give one of steps, epochs and minutes"),
        (("--columns", "prompt"), "wanted OURS=THEIRS"),
        (("--rank", "0"), "rank must be at least 1, got 0"),
        (("--alpha", "nan"), "alpha must be more than 0, got nan"),
        (("--learning-rate", "-1"), "learning_rate must be more than 0, got -1"),
        (("--weight-decay", "-3"), "weight_decay must be at least 0, got -3"),
        (("--patience", "-1"), "patience must be at least 0, got -1"),
        (("--minutes", "nan"), "minutes must be more than 0, got nan"),
        (("--epochs", "inf"), "epochs must be more than 0, got inf"),
        (("--minutes", "1e308"), "minutes must be at most 1e+09, got 1e+308"),
        (("--epochs", "1e300"), "epochs must be at most 1e+09, got 1e+300"),
        (("--alpha", "1e308"), "alpha must be at most 1e+09, got 1e+308"),
        (("--learning-rate", "1e300"), "learning_rate must be at most 1e+09, got 1e+300"),
        (("--weight-decay", "1e100"), "weight_decay must be at most 1e+09, got 1e+100"),
        (("--seed", "99999999999999999999"), "seed must have 64 bits at most, got 99999999999999999999"),
        (("--validation", "nan"), "validation is nan; wanted a share below 1"),
        (("--from-scratch", "gpt2-tiny"), "--from-scratch makes a model of its own: leave out -m"),
        (("--device", "tpu"), "'tpu' is not one of 'cpu', 'cuda', 'mps'"),
        (("--vocabulary", "300"), "--vocabulary: for --from-scratch, and a model has its own vocabulary"),
    ],
)
def test_wrong_wishes_get_one_line(
    program: Program, model: str, notes: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = program("tune", "notes.txt", "-m", model, *arguments)
    assert done.code == 2
    assert words in done.said[-1]


def test_a_device_that_is_not_here_gets_one_line(program: Program, model: str, notes: Path) -> None:
    command = "pophood tune notes.txt --device cuda"
    assert f"```sh\n{command}\n```" in (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
    done = program(*shlex.split(command)[1:], "-m", model, *SMALL)
    assert done.code == 1
    assert re.search(r"finds no cuda device here, only cpu: leave out --device, or install", done.said[-1])


def test_from_scratch_everything_learns(program: Program, notes: Path) -> None:
    done = program("tune", "notes.txt", "--from-scratch", "gpt2-nano", "--method", "lora")
    assert done.code == 2
    assert "--from-scratch trains everything (--method full): leave out --method" in done.said[-1]


def test_a_scale_of_an_adapter_is_a_number() -> None:
    from pophood.cli.options.shared import with_scale

    assert with_scale("notes-lora") == ("notes-lora", 1.0)
    assert with_scale("notes-lora:0.5") == ("notes-lora", 0.5)
    assert with_scale("C:\\models\\notes-lora") == ("C:\\models\\notes-lora", 1.0)


def test_tensorboard_has_its_file(program: Program, model: str, notes: Path) -> None:
    done = program("tune", "notes.txt", "-m", model, *SMALL, "--tensorboard")
    assert done.code == 0, done.said
    assert len(list((notes.parent / "notes-lora").glob("events.out.tfevents.*"))) == 1


FOREIGN = {
    "--rank 4": "--method full",
    "--alpha 8": "--method last",
    "--lora-dropout 0.1": "--method full",
    "--targets attn.q": "--method last",
    "--rslora": "--method full",
    "--base q8": "--method full",
    "--base auto": "--method last",
    "--last-blocks 2": "--method lora",
    "--last-blocks 4": "--method full",
    "--cache-limit 3": "--method lora",
    "--no-cache": "--method full",
    "--last-blocks 3": "",
}


@pytest.mark.parametrize("option", FOREIGN)
def test_an_option_of_another_method_is_refused_by_name(
    program: Program, model: str, notes: Path, option: str
) -> None:
    done = program("tune", "notes.txt", "-m", model, *option.split(), *FOREIGN[option].split())
    assert done.code == 2
    assert re.search(rf"{option.split()[0]}: for --method (lora|last), and this is", done.said[-1])
    assert len(done.said) == 1, "before a model is loaded"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "--method full --rank 4 --targets attn.q --last-blocks 9 --rslora",
            "--rank, --targets and --rslora: for --method lora",
        ),
        (
            "--from-scratch gpt2-nano --rank 4",
            "--rank: for --method lora, and --from-scratch trains everything",
        ),
        ("--from-scratch gpt2-nano --no-cache", "--no-cache: for --method last, and --from-scratch trains"),
        ("--vocabulary 300", "--vocabulary: for --from-scratch, and a model has its own"),
        ("--patience 3 --validation 0", "--patience: --validation 0 leaves nothing to evaluate"),
        ("--evaluations 3 --validation 0", "--evaluations: --validation 0 leaves nothing to evaluate"),
        ("--validation 0.2 --validation-data notes.txt", "give one"),
        (
            "--method last --cache-limit 3 --device cuda",
            "--cache-limit: nothing is cached with another --device",
        ),
        ("--plan --show", "--plan shows the cost of a run, --show what it reads"),
        ("--resume --prompt Hello", "leave out --prompt"),
        ("--resume --columns text=body", "leave out --columns"),
        ("--resume --validation 0.2 --strict", "leave out --strict, --validation"),
        ("--resume --method full --no-cache", "leave out --no-cache"),
    ],
)
def test_an_option_that_would_be_dropped_is_refused(
    program: Program, model: str, notes: Path, arguments: str, words: str
) -> None:
    done = program(
        "tune", "notes.txt", *(() if "scratch" in arguments else ("-m", model)), *arguments.split()
    )
    assert done.code == 2
    assert words in done.said[-1]


def test_a_run_that_is_resumed_keeps_its_method(
    program: Program, model: str, notes: Path, settings: dict[str, str]
) -> None:
    _stopped(["notes.txt", "-m", model, *SMALL, "--steps", "100000"], notes, "notes-lora", settings)
    line = ("tune", "notes.txt", "-m", model, "-o", "notes-lora", "--resume", "--method", "last")
    done = program(*line)
    assert done.code == 2
    assert "the run in notes-lora has --method lora and keeps it: leave out --method" in done.said[-1]


def test_a_run_that_learned_nothing_fails_first_of_all(program: Program, model: str, notes: Path) -> None:
    done = program("tune", "notes.txt", "-m", model, *SMALL, "--learning-rate", "1e-20")
    assert done.code == 1
    assert done.text == "", "no report, and no command that would use an adapter"
    assert "nothing was learned in 3 steps, and nothing is written" in done.said[-1]
    assert not (notes.parent / "notes-lora").exists()


def test_what_is_measured_is_told_before_it_is(program: Program, model: str, notes: Path) -> None:
    done = program("tune", "notes.txt", "-m", model, *SMALL)
    told = [line for line in done.said if line.startswith("measuring: ")]
    parts = ("samples", "general text", "texts by heart", "a step", "validation loss")
    assert told == [f"measuring: {number} of 5 ({part})" for number, part in enumerate(parts, 1)]
    assert re.search(r"step 1 of 3: loss .* [\d.]+ s left", "\n".join(done.said))


@pytest.mark.parametrize(
    ("size", "here", "start"),
    [
        (1, 1, "pophood"),
        (2, 2, "torchrun --nproc-per-node 2 -m pophood"),
        (4, 2, "torchrun --nproc-per-node 2 --nnodes ... --rdzv-endpoint ... -m pophood"),
    ],
)
def test_a_stopped_run_is_resumed_by_as_many_processes(size: int, here: int, start: str) -> None:
    from pophood.train.distributed.process_group import ProcessGroup
    from pophood.train.report.next_commands import _start

    setup: Any = SimpleNamespace(group=ProcessGroup(0, size, here))
    assert " ".join(_start(setup)) == start
