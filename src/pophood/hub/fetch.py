"""Fetching a model from a hub: list, choose, say, ask, fetch each file, note its origin, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pophood.hub.listing import Listing, RemoteFile, ask_about, choose, list_repo
from pophood.hub.names import ModelName
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.report import Ask, Download, Progress, Say, state_and_ask
from pophood.hub.store import Located, Provenance, describe, find, incoming, lock_of, read_provenance, store
from pophood.hub.transfer import bytes_here, fetch_file
from pophood.hub.web import Web
from pophood.system import disk_errors, file_lock

REPORT_SECONDS = 0.1
Hear = Callable[[Progress], object]


def pull_repo(
    name: ModelName,
    *,
    revision: str | None = None,
    force: bool = False,
    listing: Listing | None = None,
    say: Say,
    ask: Ask | None,
    progress: Hear | None,
    instead: str = "",
) -> Located:
    """Fetch a repo's model into the store, or return what another process just fetched.

    Raises NotHere (no such model, declined, no network), BadFile (wrong bytes), PophoodError (disk).
    """

    def waiting() -> None:
        say(f"{name.text}: another process is fetching it; waiting for that one")

    with file_lock(lock_of(name), waiting=waiting):
        here = find(name)
        if here is not None and here.where == "store" and not force and revision is None:
            return here
        web = Web.from_environment()
        listing = listing or list_repo(web, name.repo or "", revision)
        if here is not None and here.where == "store" and not force and here.revision == listing.commit:
            say(f"{name.text}: already here at revision {listing.commit}: {here.path}")
            return here
        if here is not None and here.where == "store":
            say(f"{name.text}: replaces revision {here.revision or 'unknown'} at {here.path}")
        return _fetch(web, name, listing, force, _Terms(say, ask, progress, instead))


class _Terms:
    """Who hears of a download and who is asked."""

    def __init__(self, say: Say, ask: Ask | None, progress: Hear | None, instead: str) -> None:
        self.say, self.ask, self.progress, self.instead = say, ask, progress, instead


def _fetch(web: Web, name: ModelName, listing: Listing, force: bool, terms: _Terms) -> Located:
    files = tuple(
        file if file.whole else ask_about(web, listing, file) for file in choose(listing, name.file)
    )
    target = store() / name.places[0]
    key = name.places[0].replace("/", "--")
    staging = incoming() / f"{key}@{listing.commit[:16]}"
    clear_incoming(key, keep=None if force else staging)
    places = {file: staging / file.path.rsplit("/", 1)[-1] for file in files}  # only a GGUF may stand deeper
    size = sum(file.size or 0 for file in files)
    left = size - sum(bytes_here(file, place) for file, place in places.items())
    what = f"{name.text} (revision {listing.commit[:12]}, {len(files)} file{'s' * (len(files) > 1)})"
    plan = Download(what, f"{web.endpoint}/{listing.repo}", target, size, left, left)
    state_and_ask(plan, terms.say, terms.ask, terms.instead)
    with disk_errors(target, left):
        staging.mkdir(parents=True, exist_ok=True)
        report = _Report(files, terms.progress)
        for file, place in places.items():
            fetch_file(web, listing, file, place, report.of(file))
        _provenance(web, name, listing, places).write(staging)
        publish(staging, target)
    clear_incoming(key)
    found = describe(store(), target)
    assert found is not None, "what was published is a model"
    return replace(found, name=name.text)


def _provenance(web: Web, name: ModelName, listing: Listing, places: dict[RemoteFile, Path]) -> Provenance:
    hashes: dict[str, dict[str, int | str]] = {}
    for file, place in places.items():
        kind, digest = ("sha256", file.sha256) if file.sha256 else ("git_blob", file.blob or "")
        hashes[place.name] = {"size": file.size or 0, kind: digest}
    return Provenance(name.text, f"{web.endpoint}/{listing.repo}", listing.commit, listing.licence, hashes)


class _Report:
    """Turns bytes of one file into Progress over all files, at most ten times a second."""

    def __init__(self, files: tuple[RemoteFile, ...], progress: Hear | None) -> None:
        self.done = dict.fromkeys(files, 0)
        self.size = sum(file.size or 0 for file in files)
        self.progress = progress
        self.last = 0.0

    def of(self, file: RemoteFile) -> Callable[[int], None]:
        """What `fetch_file` tells about one file."""

        def moved(done: int) -> None:
            self.done[file] = done
            now = time.monotonic()
            total = sum(self.done.values())
            if self.progress is not None and (now - self.last >= REPORT_SECONDS or total == self.size):
                self.last = now
                self.progress(Progress(file.path, done, file.size or 0, total, self.size))

        return moved


def same_revision(found: Located, revision: str) -> bool:
    """Whether a model on disk is certainly of a revision: equal commits (a branch may have moved on)."""
    note = read_provenance(found.path if found.path.is_dir() else found.path.parent)
    commit = found.revision if note is None else note.revision
    return commit is not None and commit == revision
