"""A model hub on the loopback address that behaves as Hugging Face's does, and misbehaves on demand.

    /api/models/owner/name/revision/main?blobs=true   the list, with sizes, blob ids and lfs hashes
    /owner/name/resolve/COMMIT/config.json            307 to a path of the hub   (small files)
    /owner/name/resolve/COMMIT/model.safetensors      302 to /cdn/... (large files: signed, ETag, Range)

`test_fake_hub.py` shows that huggingface_hub itself downloads from it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".gguf", ".bin")


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def as_it_is(path: str, data: bytes) -> bytes:
    return data


def as_listed(content: dict[str, Any]) -> Any:
    return content


@dataclass
class Misbehaviour:
    """The faults of the hub; by default there are none."""

    ranges: bool = True  # False: Range is ignored
    if_range: bool = True  # False: If-Range is ignored
    cuts: list[int] = field(default_factory=list)  # the next file answers stop after so many bytes
    etags: list[str] = field(default_factory=list)  # ETags of the next answers for large files
    statuses: list[int] = field(default_factory=list)  # statuses of the next answers, whatever is asked
    file_status: int | None = None  # every answer for a large file
    body: Callable[[str, bytes], bytes] = as_it_is  # what is sent instead
    say_length: bool = True  # Content-Length with a file
    location: str | None = None  # where large files are redirected to
    commit: str | None = None  # X-Repo-Commit of a file
    linked_size: int | None = None  # X-Linked-Size of a large file
    content_range: str | None = None  # Content-Range of a 206
    encoding: str | None = None  # Content-Encoding of a file
    listing: Callable[[dict[str, Any]], Any] = as_listed
    error_code: str | None = None  # X-Error-Code, with `file_status` or `api_status`
    api_status: int | None = None
    delay: float = 0.0  # seconds before the list
    refused_token: str | None = None  # a token that is answered by 401
    private: bool = False  # 401 without a token


class FakeHub(ThreadingHTTPServer):
    """The server. `add(repo, files)` publishes a repo; `asked` lists the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.wrong = Misbehaviour()
        self.asked: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        self.sent = 0  # bytes of large files
        self.licence = "mit"
        self.closing = threading.Event()  # ends a delay

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def other_host(self) -> str:
        """The address of large files, at another origin, as with the real hub."""
        return f"http://localhost:{self.server_address[1]}"

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Publish a repo (again); returns its commit."""
        self.repos[repo] = files
        return self.commit_of(repo)

    def commit_of(self, repo: str) -> str:
        text = "".join(f"{path} {git_blob(data)}\n" for path, data in sorted(self.repos[repo].items()))
        return hashlib.sha1(text.encode()).hexdigest()

    def paths(self, prefix: str = "/") -> list[str]:
        return [path for _, path, _ in self.asked if path.startswith(prefix)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnects, which is part of the tests."""


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Run a hub in its own thread."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, wrong = self.server, self.server.wrong
        hub.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        path = unquote(urlsplit(self.path).path)
        login = self.headers.get("Authorization", "")
        refused = wrong.refused_token is not None and login == f"Bearer {wrong.refused_token}"
        if refused or (wrong.private and not login and not path.startswith("/cdn/")):
            self.answer(401)
        elif wrong.statuses and (status := wrong.statuses.pop(0)) != 200:
            self.answer(status)
        elif path.startswith("/api/models/"):
            self.list_repo(path.removeprefix("/api/models/"))
        elif path.startswith("/small/"):
            owner, name, file = path.removeprefix("/small/").split("/", 2)
            data = hub.repos[f"{owner}/{name}"][file]
            self.send_file(file, data, git_blob(data), commit=hub.commit_of(f"{owner}/{name}"))
        elif path.startswith("/cdn/"):
            owner, name, file = path.removeprefix("/cdn/").split("/", 2)
            data = hub.repos[f"{owner}/{name}"][file]
            tag = wrong.etags.pop(0) if wrong.etags else hashlib.sha256(data).hexdigest()
            self.send_file(file, data, tag, large=True)
        elif "/resolve/" in path:
            self.resolve(path)
        else:
            self.answer(404)

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        if self.server.wrong.error_code and status >= 400:
            self.send_header("X-Error-Code", self.server.wrong.error_code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def list_repo(self, path: str) -> None:
        hub = self.server
        repo, _, revision = path.partition("/revision/")
        if hub.wrong.delay:
            hub.closing.wait(hub.wrong.delay)
        if hub.wrong.api_status is not None:
            self.answer(hub.wrong.api_status)
        elif repo not in hub.repos and repo.partition("/tree/")[0] in hub.repos:
            repo = repo.partition("/tree/")[0]
            tree = [tree_entry(name, data) for name, data in hub.repos[repo].items()]
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(tree).encode())
        elif repo not in hub.repos:
            self.answer(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", "main", "v1", hub.commit_of(repo)):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            content = {
                "id": repo,
                "modelId": repo,
                "sha": hub.commit_of(repo),
                "private": False,
                "gated": False,
            }
            content["cardData"] = {"license": hub.licence}
            content["siblings"] = [sibling(name, data) for name, data in hub.repos[repo].items()]
            body = json.dumps(hub.wrong.listing(content)).encode()
            self.answer(200, {"Content-Type": "application/json"}, body)

    def resolve(self, path: str) -> None:
        hub, wrong = self.server, self.server.wrong
        repo, _, rest = path[1:].partition("/resolve/")
        file = rest.partition("/")[2]
        if repo not in hub.repos or file not in hub.repos[repo]:
            self.answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        data = hub.repos[repo][file]
        headers = {"X-Repo-Commit": wrong.commit or hub.commit_of(repo)}
        if file.endswith(LARGE):
            if wrong.file_status is not None:
                self.answer(wrong.file_status)
                return
            headers["X-Linked-Size"] = str(len(data) if wrong.linked_size is None else wrong.linked_size)
            headers["X-Linked-ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["Location"] = (
                wrong.location or f"{hub.other_host}/cdn/{repo}/{file}?Expires=1&Signature=a%2Fb"
            )
            self.answer(302, headers)
        else:
            headers |= {"ETag": f'"{git_blob(data)}"', "Location": f"/small/{repo}/{file}"}
            self.answer(307, headers)

    def send_file(self, file: str, data: bytes, tag: str, *, large: bool = False, commit: str = "") -> None:
        hub, wrong = self.server, self.server.wrong
        data = wrong.body(file, data) if large else data
        start, status = 0, 200
        wanted = self.headers.get("Range", "")
        same = self.headers.get("If-Range", f'"{tag}"') == f'"{tag}"'
        same = same or not wrong.if_range
        if large and wrong.ranges and same and wanted.startswith("bytes="):
            start, status = int(wanted[6:].split("-")[0]), 206
        headers = {"ETag": f'"{tag}"', "Accept-Ranges": "bytes"} | (
            {"X-Repo-Commit": commit} if commit else {}
        )
        if status == 206 and start >= len(data):
            self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        if status == 206:
            headers["Content-Range"] = wrong.content_range or f"bytes {start}-{len(data) - 1}/{len(data)}"
        if wrong.encoding and large:
            headers["Content-Encoding"] = wrong.encoding
        body = data[start:]
        self.send_response(status)
        if wrong.say_length or not large:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command == "GET":
            if large and wrong.cuts:
                body = body[: wrong.cuts.pop(0)]
            hub.sent += len(body) if large else 0  # before the client can see the end
            self.wfile.write(body)


def tree_entry(name: str, data: bytes) -> dict[str, Any]:
    """Return a file's entry in the hub's other list (/tree/, which huggingface_hub uses)."""
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_blob(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def sibling(name: str, data: bytes) -> dict[str, Any]:
    """Return a file's entry in the hub's list."""
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def gpt2_files(seed: int = 0, size: int = 300_000) -> dict[str, bytes]:
    """Return the files of a repo like openai-community/gpt2, which has more than needed.

    Contents are dummies.
    """
    weights = bytes((i * 31 + seed + i // 251) % 256 for i in range(1000)) * (size // 1000)
    return {
        ".gitattributes": b"*.bin filter=lfs",
        "README.md": b"# GPT-2",
        "config.json": b'{"model_type": "gpt2"}',
        "flax_model.msgpack": b"x" * 100,
        "generation_config.json": b"{}",
        "merges.txt": b"#version: 0.2\n",
        "model.safetensors": weights,
        "onnx/config.json": b'{"not": "this one"}',
        "pytorch_model.bin": b"p" * 1000,
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"model_max_length": 1024}',
        "vocab.json": b'{"a": 0}',
    }


GPT2_WANTED = {
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}
