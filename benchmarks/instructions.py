"""Instructions that a token of decoding executes: pophood's kernels beside llama.cpp's for the same set.

qemu's user emulation counts them (`_instructions.c`), on one thread; the difference of two lengths is the
cost of a token, without start and loading. On x86-64 an emulated Haswell runs both sides with SmolLM2, as
`_speed_worker.py` does, with the Python around the engine; POPHOOD_PEER_LLAMA_AVX2 names the peer (avx2.py
says how it is built). qemu 7 has no AVX-VNNI, so that set cannot be counted. On aarch64 native_tests and
llama.cpp's llama-bench decode with GPT-2 small's shape and a short vocabulary, every matrix in one type.
POPHOOD_PEER_LLAMA_AARCH64 names a folder with llama-bench for each set, FOLDER/neon, FOLDER/dotprod and
FOLDER/i8mm, cross-compiled from the vendor/llama.cpp of llama-cpp-python's sdist, with the set's march:
cmake -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc
-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static -DBUILD_SHARED_LIBS=OFF
-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF -DGGML_CPU_ARM_ARCH=armv8-a (neon),
armv8.2-a+dotprod (dotprod), armv8.6-a+dotprod+i8mm (i8mm); target llama-bench.
Run: POPHOOD_PEER_LLAMA_AVX2=FOLDER python benchmarks/instructions.py [--aarch64 PATH/native_tests]
[--types Q8_0]; --types without a value leaves x86-64 out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from _models import KEPT, gpt2_short_gguf, quantised_gguf, smollm2_gguf

HERE = Path(__file__).parent
BAR = 0.8  # ours divided by theirs
SHORT, LONG = 2, 10  # tokens


def plugin() -> Path:
    """Compile the counter into build/ and return its path."""
    path = KEPT / "instructions.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O2", str(HERE / "_instructions.c"), "-o", str(path)], check=True
    )
    return path


def executed(command: list[str], settings: dict[str, str], said: str = "") -> int:
    """Return the instructions that an emulated program has executed."""
    result = subprocess.run(
        command, env=os.environ | settings, input=said, capture_output=True, text=True, check=False
    )
    found = re.search(r"^instructions executed: (\d+)$", result.stderr, re.MULTILINE)
    if result.returncode or not found:
        raise SystemExit(f"{' '.join(command)}: exit {result.returncode}\n{result.stderr[-2000:]}")
    return int(found[1])


def of_python(side: str, path: Path, settings: dict[str, str]) -> float:
    """Return the instructions of a token on one side of the comparison, on an emulated Haswell."""
    counts = []
    for steps in (SHORT, LONG):
        facts = json.dumps({"side": side, "path": str(path), "threads": 1})
        command = ["qemu-x86_64", "-cpu", "Haswell", "-plugin", str(plugin()), sys.executable]
        turn = json.dumps({"prompt": 4, "steps": steps}) + "\n"
        counts.append(executed([*command, str(HERE / "_speed_worker.py"), facts], settings, turn))
    return (counts[1] - counts[0]) / (LONG - SHORT)


def of_program(program: str, isa: str, kind: str) -> float:
    """Return the instructions of a token of native_tests with an instruction set and a type of weights."""
    counts = []
    for steps in (SHORT, LONG):
        command = ["qemu-aarch64", "-cpu", "max", "-plugin", str(plugin()), program, "--decode", str(steps)]
        counts.append(executed([*command, kind], {"POPHOOD_ISA": isa}))
    return (counts[1] - counts[0]) / (LONG - SHORT)


def of_llama_bench(folder: Path, path: Path) -> float:
    """Return the instructions of a token of llama.cpp's own benchmark program."""
    counts = []
    for steps in (SHORT, LONG):
        command = ["qemu-aarch64", "-cpu", "max", "-plugin", str(plugin()), str(folder / "llama-bench")]
        options = ["-m", str(path), "-t", "1", "-p", "0", "-n", str(steps), "-r", "1", "--no-warmup"]
        counts.append(executed([*command, *options], {}))
    return (counts[1] - counts[0]) / (LONG - SHORT)


def on_aarch64(program: str, peer: str | None) -> None:
    """Print both sides for every set and type."""
    for kind in ("Q8_0", "IQ4_NL"):
        for isa in ("neon", "dotprod", "i8mm"):
            ours = of_program(program, isa, kind.lower())
            figures = {"set": isa, "model": f"GPT-2 small's shape, {kind}", "ours": round(ours)}
            if peer and (Path(peer) / isa / "llama-bench").exists():
                path = quantised_gguf(gpt2_short_gguf(), kind, pure=True)
                theirs = of_llama_bench(Path(peer) / isa, path)
                figures |= {"theirs": round(theirs), "ratio": round(ours / theirs, 3), "aim": BAR}
            print(json.dumps(figures), flush=True)


def main() -> None:
    """Print what can be counted here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--types", nargs="*", default=["Q8_0", "Q4_0", "Q4_K_M"])
    parser.add_argument("--aarch64", help="native_tests, cross-compiled")
    options = parser.parse_args()
    if not shutil.which("qemu-x86_64"):
        raise SystemExit("needs qemu-x86_64 (Debian package qemu-user; make system-deps)")
    peer = os.environ.get("POPHOOD_PEER_LLAMA_AVX2")
    for kind in options.types:
        path = quantised_gguf(smollm2_gguf(), kind)
        ours = of_python("pophood", path, {"POPHOOD_ISA": "avx2"})
        figures = {"set": "avx2", "model": f"SmolLM2 {kind}", "ours": round(ours)}
        if peer:
            theirs = of_python("llama.cpp", path, {"PYTHONPATH": peer})
            figures |= {"theirs": round(theirs), "ratio": round(ours / theirs, 3), "aim": BAR}
        print(json.dumps(figures), flush=True)
    if options.aarch64:
        on_aarch64(options.aarch64, os.environ.get("POPHOOD_PEER_LLAMA_AARCH64"))


if __name__ == "__main__":
    main()
