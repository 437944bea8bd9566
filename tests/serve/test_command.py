"""`pophood serve` as its users start it: facts, snippets, signals, ports, keys, and what it leaves unsaid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood
from pophood.serve.guard.keys import VARIABLE
from pophood.system.programs import announced
from tests import processes
from tests.needs import linux, tool
from tests.processes import HANG_SECONDS
from tests.serve.command import Command, command
from tests.serve.wire import LOCAL, connect, head, read_response, request, unchunked
from tests.tiny import tiny_folder

LONG = 60_000  # tokens of a window: nobody writes them to the end in a test


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    return tiny_folder(folder / "tiny", "llama", n_positions=LONG, n_layer=6, n_embd=128, n_inner=512)


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    with command(model, "-v", "--alias", "other/name", home=tmp_path_factory.mktemp("home")) as running:
        yield running


def completion(running: Command, **fields: object) -> bytes:
    """Return a request for a completion, as bytes, with the key in a header."""
    import json

    body = json.dumps({"prompt": "the cat", "stream": True, "max_tokens": LONG - 100} | fields)
    headers = {"host": LOCAL, "authorization": f"Bearer {running.key}", "content-type": "application/json"}
    return head("POST", "/v1/completions", headers | {"content-length": str(len(body))}) + body.encode()


def endless(running: Command) -> bytes:
    """Return a request whose answer is still being written when the test is over."""
    return completion(running, ignore_eos=True)


def rest_of(stream: socket.socket) -> bytes:
    received = b""
    while part := stream.recv(65536):
        received += part
    return received


# ---- facts and snippets ----


def test_the_facts_are_one_line(running: Command, model: Path) -> None:
    facts = running.facts
    assert facts["url"] == f"http://{LOCAL}:{running.port}"
    assert facts["base_url"] == facts["url"] + "/v1"
    assert (facts["context"], facts["parallel"], facts["key_from"]) == (LONG, 16, "random")
    assert facts["pid"] == running.process.pid
    assert facts["aliases"] == ["other/name"]
    listed = request(running.port, key=running.key).json["data"]
    assert listed[0]["id"] == facts["model"]
    assert listed[0]["max_model_len"] == facts["context"]


def test_it_listens_on_loopback_alone(running: Command) -> None:
    linux()
    rows = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    ours = [
        row.split()[1]
        for row in rows
        if f":{running.port:04X} " in f"{row.split()[1]} " and row.split()[3] == "0A"
    ]
    assert ours == [f"0100007F:{running.port:04X}"]


def test_ollamas_port_needs_no_key_and_ends_with_the_server(model: Path, tmp_path: Path) -> None:
    linux()
    with command(model, "--ollama-port", "0", home=tmp_path) as running:
        port = running.facts["ollama_port"]
        assert port not in (running.port, None)
        (found,) = request(port, "/api/tags", key=None).json["models"]
        assert found["name"] == running.facts["model"]
        asked = {"model": found["name"], "prompt": "the cat", "stream": False, "options": {"num_predict": 3}}
        assert request(port, "/api/generate", key=None, body=asked).json["eval_count"] == 3
        assert request(running.port, "/v1/models", key=None).status == 401
        assert request(running.port, "/api/tags", key=running.key).status == 404
        refused = CliRunner().invoke(pophood, ["serve", str(model), "--ollama-port", str(port)])
        assert refused.exit_code != 0 and "taken" in refused.output
        running.signal(signal.SIGINT)
        assert running.exit_code() == 130
        with pytest.raises(ConnectionRefusedError):
            connect(port)


ORIGINS = [pytest.param(("random", "environment"), marks=pytest.mark.full), ("file",)]


@pytest.mark.parametrize("origins", ORIGINS)
def test_the_snippet_for_a_shell_works_as_printed(
    model: Path, tmp_path: Path, origins: tuple[str, ...]
) -> None:
    tool("curl")
    words = [sys.executable, "-m", "pophood", "serve", str(model), "--port", "0"]
    for origin in origins:
        settings = {**os.environ, "POPHOOD_HOME": str(tmp_path), "POPHOOD_OFFLINE": "1"}
        key_file = tmp_path / "key file"
        if origin == "environment":
            settings[VARIABLE] = "a-key-from-the-environment"
        if origin == "file":
            key_file.write_text("a-key-from-a-file\n")
            key_file.chmod(0o600)
            words += ["--key-file", str(key_file)]
        with processes.started(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=settings
        ) as process:
            assert process.stdout is not None
            printed = []
            for line in process.stdout:
                printed.append(line)
                if "Ctrl-C" in line:
                    break
            text = "".join(printed)
            start = text.index("curl ")
            snippet = text[start : text.index("\n\n", start)]
            done = processes.run(
                ["sh", "-c", snippet], capture_output=True, text=True, env=settings, check=True
            )
            assert '"object":"text_completion"' in done.stdout or '"object":"chat.completion"' in done.stdout
            assert "a-key-from" not in text


def test_the_link_of_the_browser_leads_in(running: Command) -> None:
    response = request(running.port, "/", key=running.key)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/html")


# ---- what is said ----


def test_the_log_has_a_line_for_each_request_and_never_its_text(running: Command) -> None:
    secret = "zebra-crossing"
    body = {"prompt": secret, "max_tokens": 2}
    assert request(running.port, "/v1/completions", key=running.key, body=body).status == 200
    wrong = request(running.port, f"/v1/{secret}?x={secret}", key=secret, headers={"user-agent": secret})
    assert wrong.status == 401
    end = time.monotonic() + HANG_SECONDS
    while not any(wrong.headers["x-request-id"] in line for line in running.said) and time.monotonic() < end:
        time.sleep(0.01)
    line = next(line for line in running.said if line.startswith("POST /v1/completions 200"))
    assert all(
        part in line for part in ("model=tiny", "tokens=", "cached=", "seconds=", "finish=length", "id=req-")
    )
    said = "\n".join(running.said)
    assert secret not in said
    assert running.key not in said


def test_no_process_list_has_a_key_of_ones_own(model: Path, tmp_path: Path) -> None:
    linux()
    with command(model, home=tmp_path, **{VARIABLE: "a-key-from-the-environment"}) as running:
        assert running.facts["key"] is None
        assert request(running.port, key="a-key-from-the-environment").status == 200
        words = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        assert b"a-key-from" not in words


def test_a_port_that_is_taken(model: Path, running: Command, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pophood", "serve", str(model), "--port", str(running.port)]
    settings = {**os.environ, "POPHOOD_HOME": str(tmp_path), "POPHOOD_OFFLINE": "1"}
    with processes.started(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=settings) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
    assert f"(port {running.port} is taken)" in first
    assert f":{running.port}/" not in first


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, "choose a key of your own"),
        (["--host", "example.com"], 2, "wanted an address"),
        (["--key-file", "none"], 1, "no such key file"),
        (["--allow-origin", "*"], 2, "--allow-origin"),
        (["--memory", "much"], 2, "512M"),
        (["--memory", "1k"], 2, "hold 0 tokens"),
        (["--context", "70000"], 2, "context"),
        (["--adapter", "notes"], 2, "NAME=PATH"),
        (["--adapter", "a=x", "--adapter", "a=y"], 2, "same name"),
        (["--adapter", "a=missing"], 1, "missing"),
        (["-m", "gpt2"], 2, "two models"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    model: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    settings = {"POPHOOD_HOME": str(tmp_path), "POPHOOD_OFFLINE": "1", VARIABLE: None}
    words_of_command = ["serve", str(model), "--port", "0", *arguments]
    done = CliRunner().invoke(pophood, words_of_command, env=settings)
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr.splitlines()[-1]


def test_a_running_tune_is_left_a_thread(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path))

    def wait_for(running: Command, words: str) -> None:
        end = time.monotonic() + HANG_SECONDS
        while not any(words in line for line in running.said) and time.monotonic() < end:
            time.sleep(0.05)
        assert any(words in line for line in running.said)

    with command(model, "--threads", "2", home=tmp_path) as running:
        with announced("tune"):
            wait_for(running, "`pophood tune` is running: computing with 1 of 2 threads")
            body = {"prompt": "the cat", "max_tokens": 2}
            assert request(running.port, "/v1/completions", key=running.key, body=body).status == 200
        wait_for(running, "`pophood tune` has ended: computing with 2 of 2 threads")


# ---- signals ----


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.full)]
)
def test_a_signal_ends_an_idle_server_at_once(
    model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with command(model, home=tmp_path) as running, connect(running.port) as idle:
        idle.sendall(head("GET", "/health", {"host": LOCAL}))
        assert read_response(idle).status == 200
        running.signal(number)
        assert running.exit_code() == code
        assert rest_of(idle) == b""
    assert running.said == [] or "stopping" not in running.said[-1]


def test_ctrl_c_lets_a_short_answer_finish_and_ends_a_long_one_with_an_error(
    model: Path, tmp_path: Path
) -> None:
    with command(model, home=tmp_path) as running:
        with connect(running.port) as long, connect(running.port) as short:
            long.sendall(endless(running))
            begun = long.recv(65536)
            short.sendall(completion(running, max_tokens=200, ignore_eos=True))
            first = short.recv(65536)
            running.signal(signal.SIGINT)
            assert (first + rest_of(short)).endswith(b"0\r\n\r\n")
            received = begun + rest_of(long)
        assert running.exit_code() == 130
    text = unchunked(received.partition(b"\r\n\r\n")[2])
    assert b'"error":' in text.splitlines()[-2]
    assert b"ending" in text.splitlines()[-2]
    assert b"[DONE]" not in text
    assert re.search("stopping: [12] running", running.said[-1])


def test_new_requests_are_refused_while_it_ends(model: Path, tmp_path: Path) -> None:
    with command(model, home=tmp_path) as running:
        with connect(running.port) as long, connect(running.port) as later:
            later.sendall(head("GET", "/health", {"host": LOCAL}) + b"")
            assert read_response(later).status == 200
            long.sendall(endless(running))
            long.recv(65536)
            half = completion(running, stream=False)
            later.sendall(half[:50])  # it has begun, so that the connection is not idle
            time.sleep(0.3)
            running.signal(signal.SIGTERM)
            end = time.monotonic() + HANG_SECONDS
            while not running.said and time.monotonic() < end:
                time.sleep(0.01)
            with pytest.raises(ConnectionError):  # a connection that waits in the kernel may come first
                while time.monotonic() < end:
                    connect(running.port).close()
            assert rest_of(long)
        assert running.exit_code() == 143


def test_a_second_ctrl_c_ends_at_once(model: Path, tmp_path: Path) -> None:
    with command(model, home=tmp_path) as running, connect(running.port) as long:
        long.sendall(endless(running))
        long.recv(65536)
        running.signal(signal.SIGINT)
        end = time.monotonic() + HANG_SECONDS
        while not running.said and time.monotonic() < end:
            time.sleep(0.01)
        began = time.monotonic()
        running.signal(signal.SIGINT)
        assert running.exit_code() == 130
        assert time.monotonic() - began < HANG_SECONDS
