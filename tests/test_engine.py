"""The engine from Python: cancel, Ctrl-C, threads, memory, refusals. tests/parity tests its arithmetic."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood import system
from pophood.config import ModelConfig
from pophood.errors import BadInput, Cancelled, ContextOverflow, EngineError, OutOfMemory, Unsupported
from pophood.model.engine import CancelFlag, Engine, instruction_sets, multiply_rate, read_bandwidth
from pophood.model.memory import plan_memory
from tests import processes
from tests.needs import linux
from tests.tiny import Values, gpt2_config, tiny_config


class Random:
    """The weights of a random model; tensors may be `replaced`."""

    def __init__(self, config: ModelConfig) -> None:
        self.values = Values(config, 1)
        self.replaced: dict[str, NDArray[Any]] = {}

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        return "F32", self.replaced[name] if name in self.replaced else self.values(name)

    def stored_type(self, name: str) -> str:
        return "F32"


def engine_of(family: str = "llama", **options: Any) -> Engine:
    config = tiny_config(family)
    engine = Engine(config, **options)
    engine.load(Random(config))
    return engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of()


@pytest.fixture(scope="module")
def slow() -> Engine:
    """A model whose prefill of 512 tokens takes a good part of a second on one thread."""
    config = tiny_config("llama", n_layer=24, n_embd=512, n_head=8, n_kv_head=8, head_dim=64, n_inner=2048)
    config = tiny_config("llama", **(asdict(config) | {"rope": config.rope, "n_positions": 4096}))
    engine = Engine(config, threads=1)
    engine.load(Random(config))
    return engine


def test_what_a_wrong_call_says(engine: Engine) -> None:
    sequence = engine.new_sequence()
    with pytest.raises(BadInput, match=r"no tap matches 'blocks.9.resid_post'; there are: embed.token"):
        engine.forward([(sequence, [1])], taps=["blocks.9.resid_post"])
    with pytest.raises(ContextOverflow, match=r"the text has 257 tokens; the context window holds 256"):
        engine.forward([(sequence, [1] * 257)])
    with pytest.raises(BadInput, match="at least one"):
        engine.forward([(sequence, [])])
    for wrong in (512, -1, 10**30):
        with pytest.raises(BadInput, match=rf"token id {wrong} is not in the vocabulary: wanted 0\.\.511"):
            engine.logits([(sequence, [1, wrong])])
    with pytest.raises(ValueError, match="are not adjacent"):
        engine.logits([(sequence, [1]), (engine.new_sequence(), [1]), (sequence, [2])])
    with pytest.raises(IndexError, match="does not exist"):
        engine.logits([(10**6, [1])])
    assert engine.length(sequence) == 0


def test_what_a_wrong_engine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("llama")
    with pytest.raises(Unsupported, match="precision 'q3'"):
        Engine(config, "q3")
    with pytest.raises(BadInput, match=r"context must be 1\.\.256, got 257"):
        Engine(config, context=257)
    with pytest.raises(BadInput, match="threads must be at least 1, got 0"):
        Engine(config, threads=0)
    engine = Engine(config, threads=1)
    with pytest.raises(BadInput, match="threads must be at least 1, got -1"):
        engine.use_threads(-1)
    assert engine.threads == 1
    monkeypatch.setenv("POPHOOD_ISA", "altivec")
    with pytest.raises(BadInput, match="POPHOOD_ISA=altivec cannot run here; there are: scalar"):
        Engine(config)


def test_a_model_that_does_not_fit_is_refused_with_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    config = gpt2_config("gpt2")
    plan = plan_memory(config, lambda _: "F32")
    assert plan.weights == 497_759_232 + (50_272 - 50_257) * 768 * 4  # padding of the vocabulary's last panel
    half = plan_memory(config, lambda _: "BF16")
    assert 0.5 * plan.weights < half.weights < 0.51 * plan.weights
    assert plan.full - plan.least == (1024 - 32) * 12 * 2 * 768 * 4
    monkeypatch.setattr(system, "available_memory", lambda: 400 << 20)
    with pytest.raises(OutOfMemory, match=r"needs 0\.46 GiB for weights .* in all; 0\.39 GiB is free"):
        Engine(config).load(Random(config))


def test_the_plan_is_what_is_taken(engine: Engine) -> None:
    plan = plan_memory(engine.config, lambda _: "F32")
    assert abs(engine.weight_bytes - plan.weights) <= 0.02 * plan.weights
    fresh = engine_of()
    sequence = fresh.new_sequence()
    fresh.logits([(sequence, [1] * 33)])
    assert fresh.cache_bytes == 64 * plan.cache_per_position


@pytest.mark.parametrize(
    "isa",
    ["scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx", "neon", "dotprod", "i8mm"],
)
def test_every_instruction_set_gives_the_same_bits(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if isa not in instruction_sets():
        pytest.skip(f"this processor has no {isa}")
    ids = list(range(40))
    best = engine_of()
    expected = best.logits([(best.new_sequence(), ids)])
    monkeypatch.setenv("POPHOOD_ISA", isa)
    engine = engine_of()
    assert engine.isa == isa
    assert engine.logits([(engine.new_sequence(), ids)]).tobytes() == expected.tobytes()


def test_a_poisoned_weight_is_an_error_and_names_the_way_on() -> None:
    config = tiny_config("gpt2")
    values = Values(config, 1)
    for name in ("embed.token", "blocks.1.attn.k.weight", "blocks.0.mlp.down.bias", "final_norm.weight"):
        poisoned = values(name).copy()
        poisoned.reshape(-1)[7] = np.nan  # in the row of the first token, if it is the embedding
        engine = Engine(config)
        weights = Random(config)
        weights.replaced[name] = poisoned
        engine.load(weights)
        sequence = engine.new_sequence()
        with pytest.raises(EngineError, match=r"not finite.*pophood show -v"):
            engine.logits([(sequence, [0, 1, 2])])
        assert engine.length(sequence) == 0


def test_cancel_from_another_thread_stops_within_a_block(slow: Engine) -> None:
    sequence, flag = slow.new_sequence(), CancelFlag()
    slow.logits([(sequence, [1] * 10)])
    timer = threading.Timer(0.05, flag.set)
    timer.start()
    with pytest.raises(Cancelled):
        for _ in range(100):
            slow.logits([(sequence, [2] * 30)], cancel=flag)
    assert (slow.length(sequence) - 10) % 30 == 0
    flag.clear()
    slow.logits([(sequence, [2])], cancel=flag)
    slow.drop(sequence)


def test_the_interpreter_is_free_while_the_engine_works(slow: Engine) -> None:
    """This thread runs three times during a pass of minutes, then cancels it."""
    sequence, flag = slow.new_sequence(), CancelFlag()
    started, done = threading.Event(), threading.Event()
    cancelled: list[bool] = []

    def work() -> None:
        started.set()
        try:
            slow.logits([(sequence, [3] * 4_000)], cancel=flag)
        except Cancelled:
            cancelled.append(True)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    for _ in range(3):
        assert not done.wait(0.005), "the interpreter stood still during the forward pass"
        assert slow.isa in instruction_sets()  # other calls on the same engine do not wait for the pass
    flag.set()
    thread.join()
    assert cancelled
    slow.drop(sequence)


def run_python(code: str, act: Callable[[subprocess.Popen[str]], object]) -> tuple[int, str]:
    """Run code that prints a line when it is ready, act on the process, and return exit code and output."""
    command = [sys.executable, "-c", code]
    with processes.started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        act(process)
        output, _ = process.communicate(timeout=processes.HANG_SECONDS)
    return process.returncode, output


LONG = """
import sys, time
sys.path.insert(0, ".")
from tests.test_engine import Random, tiny_config, Engine
config = tiny_config("llama", n_layer=40, n_embd=512, n_head=8, n_kv_head=8, head_dim=64, n_inner=2048)
engine = Engine(config)
engine.load(Random(config))
sequence = engine.new_sequence()
"""


@pytest.mark.skipif(os.name == "nt", reason="another operating system: no SIGINT to a child")
def test_ctrl_c_ends_a_pass_and_leaves_the_sequence() -> None:
    code = LONG + (
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        engine.logits([(sequence, [1] * 200)])\n"
        "        engine.truncate(sequence, 0)\n"
        "except KeyboardInterrupt:\n"
        "    print('length', engine.length(sequence) % 200)\n"
        "    engine.logits([(sequence, [1] * 10)])\n"
        "    print('still works')\n"
    )

    def interrupt(process: subprocess.Popen[str]) -> None:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)

    exit_code, output = run_python(code, interrupt)
    assert (exit_code, output) == (0, "length 0\nstill works\n")


@pytest.mark.skipif(os.name == "nt", reason="another operating system: no fork")
def test_a_forked_child_gets_a_pool_of_its_own() -> None:
    code = LONG + (
        "import os\n"
        "print('ready', flush=True)\n"
        "before = engine.logits([(sequence, [1] * 40)]).tobytes()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    again = engine.logits([(engine.new_sequence(), [1] * 40)]).tobytes()\n"
        "    os._exit(0 if again == before else 3)\n"
        "print('child', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    exit_code, output = run_python(code, lambda _: None)
    assert (exit_code, output) == (0, "child 0\n")


def test_bandwidth_is_a_number_of_this_world() -> None:
    assert 1e8 < read_bandwidth(1, size=1 << 26, rounds=2) < 1e13


def test_the_multiply_rate_is_that_of_the_chosen_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {}
    for isa in instruction_sets():
        monkeypatch.setenv("POPHOOD_ISA", isa)
        rates[isa] = multiply_rate(1, rounds=2)
    assert all(1e7 < rate < 1e14 for rate in rates.values())
    assert rates["scalar"] == min(rates.values())


def tiles_granted() -> bool:
    """Ask Linux for AMX's tiles, which a container may refuse (arch_prctl, ARCH_REQ_XCOMP_PERM)."""
    return not ctypes.CDLL(None).syscall(158, 0x1023, 18)


def test_the_instruction_sets_are_those_that_the_system_names() -> None:
    """On x86-64 the engine offers exactly the instruction sets that Linux reports."""
    linux()
    facts = Path("/proc/cpuinfo").read_text()
    flags = re.search(r"^flags\s*:(.*)$", facts, re.MULTILINE)
    if flags is None:
        pytest.skip("another operating system: this processor is no x86-64")
    has = set(flags[1].split())
    avx2 = {"avx", "avx2", "fma", "f16c"} <= has
    avx512 = avx2 and {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= has
    vnni = avx512 and "avx512_vnni" in has
    avxvnni = avx2 and "avx_vnni" in has
    names = {"scalar": True, "avx2": avx2, "avxvnni": avxvnni, "avx512": avx512, "avx512vnni": vnni}
    names["avx512bf16"] = vnni and "avx512_bf16" in has
    names["amx"] = names["avx512bf16"] and {"amx_tile", "amx_int8", "amx_bf16"} <= has and tiles_granted()
    assert instruction_sets() == [name for name, there in names.items() if there]
