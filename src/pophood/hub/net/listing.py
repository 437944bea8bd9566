"""Lists the files of a repo on the hub, checks the list, and chooses the files that make a model.

The list (`/api/models/owner/name/revision/...?blobs=true`) gives the size of each file, and the SHA-256 of
large files or the git blob hash of small ones; every byte that is fetched later is checked against them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from pophood.errors import BadFile, BadInput, NotFound, Unsupported
from pophood.formats.parts import Part, one_of_each, part_of
from pophood.formats.sniff import BESIDE, INDEX, WEIGHTS
from pophood.hub.cache import COMMIT
from pophood.hub.names import check_revision, is_repo_file
from pophood.hub.net.connect import ProxyFailed, Unreachable
from pophood.hub.net.web import Answer, Web, with_attempts
from pophood.system import size_text

LIST_ATTEMPTS = 3  # fewer than for a file: the user is waiting, and no bytes have been fetched yet
MAX_LIST_BYTES = 32 << 20
MAX_FILE_BYTES = 1 << 42
SHA256 = re.compile(r"[0-9a-f]{64}")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SMALL_FILES = (
    *("config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "encoder.json", "vocab.bpe"),
    *("chat_template.jinja", "chat_template.json"),
)


_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class NotAllowed(NotFound):
    """The hub refuses to give out a model without a login, or with this one."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repo. Large files have a `sha256`, small ones a `blob` (git's SHA-1)."""

    path: str
    size: int | None
    sha256: str | None = None
    blob: str | None = None

    @property
    def checkable(self) -> bool:
        """True if its size and a hash are known, so that it can be checked after fetching."""
        return self.size is not None and (self.sha256 or self.blob) is not None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repo at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    licence: str | None = None


def list_repo(web: Web, repo: str, revision: str | None = None) -> Listing:
    """Request a repo's list of files at a revision (by default main), pinned to its commit.

    Raises NotFound (no such repo or revision, no network), NotAllowed (gated, private), BadFile for a list
    that cannot be right.
    """
    wanted = check_revision(revision) if revision is not None else "main"
    path = f"/api/models/{repo}/revision/{quote(wanted, safe='')}?blobs=true"

    def ask() -> bytes:
        with web.get(path) as answer:
            check_status(answer, web, repo, f"revision {wanted}")
            return answer.read_all(MAX_LIST_BYTES)

    try:
        text = with_attempts(replace(web, attempts=min(web.attempts, LIST_ATTEMPTS)), ask)
    except ProxyFailed as error:
        raise ProxyFailed(f"{repo}: {error}; smollm2 needs no hub, only pip") from None
    except Unreachable as error:
        raise Unreachable(
            f"{repo}: {error}: try again, or set HF_ENDPOINT to a mirror; smollm2 needs no hub, only pip"
        ) from None
    try:
        return _parse(repo, json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadFile(
            f"{repo}: {web.endpoint} answered with something other than a list of a model's files"
        ) from None


def _parse(repo: str, content: Any) -> Listing:
    commit = content["sha"]
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError
    files = tuple(_remote_file(repo, sibling) for sibling in content["siblings"])
    card = content.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    known = isinstance(licence, str) and licence.isprintable() and len(licence) <= 100
    return Listing(repo, commit, files, licence if known else None)


def _remote_file(repo: str, sibling: dict[str, Any]) -> RemoteFile:
    path, size, blob = sibling["rfilename"], sibling.get("size"), sibling.get("blobId")
    large = sibling.get("lfs")
    sha256 = None
    if isinstance(large, dict):
        size, sha256, blob = large.get("size", size), large.get("sha256"), None
    if not isinstance(path, str):
        raise TypeError
    if _leads_out(path):
        raise BadFile(f"{repo}: the hub lists {path[:100]!r}, which leads out of the model's folder: refused")
    if size is not None and not (type(size) is int and 0 <= size <= MAX_FILE_BYTES):
        raise ValueError
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise ValueError
    return RemoteFile(path, size, sha256, blob if isinstance(blob, str) and COMMIT.fullmatch(blob) else None)


def _leads_out(path: str) -> bool:
    parts = path.split("/")
    return ".." in parts or "" in parts or "\\" in path or ":" in parts[0] or not path.isprintable()


def ask_about(web: Web, listing: Listing, file: RemoteFile) -> RemoteFile:
    """Complete the size and hash of a listed file from the headers of the file's own address."""

    def ask() -> Answer:
        with web.get(address_of(listing, file), method="HEAD") as answer:
            check_status(answer, web, listing.repo, f"file {file.path}")
            return answer

    answer = with_attempts(web, ask)
    tag = answer.hub_header("x-linked-etag") or answer.hub_header("etag") or ""
    tag = tag.removeprefix("W/").strip('"')
    size = answer.hub_header("x-linked-size") or answer.headers.get("content-length") or ""
    completed = replace(
        file,
        size=int(size) if size.isdecimal() and int(size) <= MAX_FILE_BYTES else None,
        sha256=tag if SHA256.fullmatch(tag) else None,
        blob=tag if COMMIT.fullmatch(tag) else None,
    )
    if not completed.checkable:
        raise NotFound(
            f"{listing.repo}: {web.endpoint} gives no size and hash for {file.path}, so it cannot be "
            "checked: set HF_ENDPOINT to a hub that does"
        )
    return completed


def address_of(listing: Listing, file: RemoteFile) -> str:
    """Return the address of a file of a pinned repo, below the endpoint."""
    return f"/{listing.repo}/resolve/{listing.commit}/{quote(file.path)}"


def check_status(answer: Answer, web: Web, repo: str, what: str) -> None:
    """Turn an answer other than 200 into an error with advice; Unreachable for a temporary one."""
    status = answer.status
    if status == 200:
        return
    code = answer.headers.get("x-error-code", "")
    page = f"{web.endpoint}/{repo}"
    if status == 429 or status >= 500 or (not answer.from_hub and status in (401, 403, 404, 410)):
        raise Unreachable(f"{web.endpoint}: answered {status} for {repo}")
    if code == "GatedRepo":
        then = f"for the account of {web.login.origin}" if web.login else f"then {_LOG_IN}"
        raise NotAllowed(f"{repo}: its authors ask you to accept their terms: do so at {page}, {then}")
    if status in (401, 403):
        refused = f"a private one: check the name; for a private one {_LOG_IN}"
        if web.login is not None:
            refused = f"{web.login.origin} is not valid or may not read it: check {page}"
        raise NotAllowed(f"{repo}: no such model, or {refused}")
    if status == 404 and (code == "RevisionNotFound" or (not code and what != "revision main")):
        raise NotFound(f"{repo}: has no {what}: see {page}/tree/main")
    if status == 404:
        raise NotFound(f"{repo}: no such model at {web.endpoint}: check the name")
    raise NotFound(f"{repo}: {web.endpoint} answered {status}, wanted 200")


def choose(listing: Listing, file: str | None) -> tuple[RemoteFile, ...]:
    """Choose the files to fetch: config, tokenizer and safetensors, or all parts of one GGUF model.

    Raises BadInput, listing the GGUF files, where the user must name one; Unsupported where no file can be
    used.
    """
    files = {each.path: each for each in listing.files}
    ggufs = [path for path in files if path.endswith(".gguf")]
    models_alone = [path for path in ggufs if not path.rpartition("/")[2].lower().startswith(BESIDE)]
    if file is not None:
        if file not in files:
            raise BadInput(f"{listing.repo}: has no {file}: {_name_one(listing, ggufs)}")
        return _gguf_files(listing, files, file)
    if "config.json" in files:
        weights = _safetensors(listing, files)
        if weights:
            return tuple(files[path] for path in (*SMALL_FILES, *weights) if path in files)
    models = one_of_each(models_alone)
    if len(models) == 1:
        return _gguf_files(listing, files, models[0])
    if models:
        raise BadInput(f"{listing.repo}: holds several models: {_name_one(listing, models_alone)}")
    if any(path.endswith(PICKLES) for path in files):
        raise Unsupported(
            f"{listing.repo}: holds only pickled weights, which can run any program when read: refused: "
            "look for a repo with safetensors or GGUF (Hugging Face's space safetensors/convert makes one)"
        )
    raise Unsupported(f"{listing.repo}: holds neither safetensors with a config.json nor a GGUF file")


def _safetensors(listing: Listing, files: Mapping[str, RemoteFile]) -> list[str]:
    """Return the weights: the plain file, or all shards with their index if there is one."""
    if WEIGHTS in files:
        return [WEIGHTS]
    weights = [
        path for path in files if path.endswith(".safetensors") and is_repo_file(path) and "/" not in path
    ]
    models = one_of_each(path for path in weights if not path.lower().startswith(BESIDE))
    usual = [path for path in models if (part := part_of(path)) is not None and part.stem == "model"]
    if INDEX in files and usual:
        models = usual
    if len(models) > 1:
        raise Unsupported(
            f"{listing.repo}: holds {', '.join(models[:6])} but no {WEIGHTS} and no {INDEX}: take another "
            "repo of the model"
        )
    if not models:
        return []
    part = part_of(models[0])
    if part is None:
        return models
    index = f"{part.stem}.safetensors.index.json"
    return [*([index] if index in files else []), *_all_parts(listing, files, part)]


def _gguf_files(listing: Listing, files: Mapping[str, RemoteFile], path: str) -> tuple[RemoteFile, ...]:
    """Return a GGUF file, or all parts of the model whose first part it is."""
    if not is_repo_file(path):
        raise BadFile(f"{listing.repo}: {path[:100]!r} is not a valid file name on every system: refused")
    part = part_of(path)
    paths = [path] if part is None else _all_parts(listing, files, part)
    return tuple(files[each] for each in paths)


def _all_parts(listing: Listing, files: Mapping[str, RemoteFile], part: Part) -> list[str]:
    missing = [path for path in part.names if path not in files]
    if missing:
        raise BadFile(
            f"{listing.repo}: holds a model in {part.count} parts and lacks {', '.join(missing[:3])}: take "
            "another file or another repo of the model"
        )
    return part.names


def _name_one(listing: Listing, ggufs: list[str]) -> str:
    totals: Counter[str] = Counter()
    for file in listing.files:
        if file.path in ggufs:
            totals[one_of_each([file.path])[0]] += file.size or 0
    shown = [f"{path} ({size_text(size)})" for path, size in [*totals.items()][:40]]
    if not shown:
        return "it holds no GGUF files"
    return f"name one of these as {listing.repo}:FILE: {', '.join(shown)}"
