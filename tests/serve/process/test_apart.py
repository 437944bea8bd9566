"""The HTTP process holds no engine: its modules, its memory map, and that a stray pickle finds no way in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests import processes
from tests.needs import linux
from tests.serve.command import command
from tests.serve.wire import request

# `pophood serve`, which answers a request and prints the names of its modules when it is ready.
PROGRAM = """
import json, os, signal, sys, threading, urllib.request
from pophood.cli.terminal.console import Console

def ask(facts):
    headers = {"authorization": "Bearer " + facts["key"], "content-type": "application/json"}
    body = json.dumps({"prompt": "the cat", "max_tokens": 3, "logprobs": 2}).encode()
    asked = urllib.request.Request(facts["base_url"] + "/completions", body, headers)
    tokens = json.load(urllib.request.urlopen(asked))["usage"]["completion_tokens"]
    print(json.dumps([tokens, sorted(sys.modules)]), flush=True)
    os.kill(os.getpid(), signal.SIGINT)

def out(self, text):
    threading.Thread(target=ask, args=(json.loads(text),)).start()

Console.out = out
from pophood.cli import main
main()
"""
ENGINE = (
    *("pophood._native", "pophood.model.engine", "pophood.model.lm", "pophood.model.machine"),
    *("pophood.serve.worker", "pophood.serve.process.child", "torch"),
)


def test_the_http_process_never_imports_the_engine(tiny_chat: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, "serve", str(tiny_chat), "--json", "--port", "0"]
    settings = {**os.environ, "POPHOOD_HOME": str(tmp_path), "POPHOOD_OFFLINE": "1"}
    done = processes.run(words, capture_output=True, text=True, env=settings)
    assert done.returncode == 130, done.stderr
    tokens, modules = json.loads(done.stdout)
    assert tokens == 3
    assert "pophood.serve.process.supervisor" in modules
    assert not [name for name in modules if name.startswith(ENGINE)]


def test_only_the_child_maps_the_engine(tiny_chat: Path, tmp_path: Path) -> None:
    linux()
    with command(tiny_chat, home=tmp_path, POPHOOD_API_KEY="a-key-of-the-environment") as server:
        assert request(server.port, key="a-key-of-the-environment").status == 200
        (child,) = processes.descendants(server.process.pid)
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (server.process.pid, child.pid)]
        assert ["pophood/_native" in text for text in maps] == [False, True]
        assert b"a-key-of-the" not in Path(f"/proc/{child.pid}/environ").read_bytes()
