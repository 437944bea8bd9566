"""Fetching a model from a hub: list, choose, say, ask, fetch each file, note its origin, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pophood.errors import NotHere
from pophood.hub.names import ModelName
from pophood.hub.net.listing import Listing, NotAllowed, RemoteFile, ask_about, choose, list_repo
from pophood.hub.net.transfer import adopt, bytes_here, fetch_file, is_full, settled
from pophood.hub.net.web import Web
from pophood.hub.progress import Ask, Download, Progress, Say, size_text, state_and_ask
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.store import Located, Provenance, describe, find, incoming, lock_of, read_provenance, store
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
    detail: Say | None = None,
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
        if listing is None:
            web, listing = _listed(web, name, revision, say, detail)
        if here is not None and here.where == "store" and not force and here.revision == listing.commit:
            say(f"{name.text}: already here at revision {listing.commit}: {here.path}")
            return here
        if here is not None and here.where == "store":
            say(f"{name.text}: replaces revision {here.revision or 'unknown'} at {here.path}")
        return _fetch(web, name, listing, force, _Terms(say, ask, progress, instead))


def _listed(
    web: Web, name: ModelName, revision: str | None, say: Say, detail: Say | None
) -> tuple[Web, Listing]:
    """The repo's list, and the hub as it gave it: a saved login that it refuses is left out.

    Every program of the hub sends that login unasked, and once it has run out, the hub refuses with it what
    it gives to anybody.
    """
    if web.login is not None and detail is not None:
        detail(f"{web.endpoint}: asked with {web.login.origin}")
    try:
        return web, list_repo(web, name.repo or "", revision)
    except NotAllowed as refused:
        if web.login is None or not web.login.saved:
            raise
        try:
            listing = list_repo(web.without_login(), name.repo or "", revision)
        except NotHere:
            raise refused from None
        say(
            f"{name.text}: the hub refuses {web.login.origin}, and gives the model without it: "
            "`hf auth login` makes a new one"
        )
        return web.without_login(), listing


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
    places = {file: staging / file.path.rsplit("/", 1)[-1] for file in files}  # only a GGUF may stand deeper
    if force:
        clear_incoming(key)
    with disk_errors(target):
        staging.mkdir(parents=True, exist_ok=True)
        whole = set() if force else _here_already(name, key, target, places, terms.say)
    size = sum(file.size or 0 for file in files)
    left = size - sum(bytes_here(file, place) for file, place in places.items())
    what = f"{name.text} (revision {listing.commit[:12]}, {len(files)} file{'s' * (len(files) > 1)})"
    plan = Download(what, f"{web.endpoint}/{listing.repo}", target, size, left, left)
    try:
        state_and_ask(plan, terms.say, terms.ask, terms.instead)
    except BaseException:
        with suppress(OSError):
            staging.rmdir()  # only if nothing is in it
        raise
    with disk_errors(target, left):
        report = _Report(files, terms.progress)
        for file, place in places.items():
            if file in whole:
                report.of(file)(file.size or 0)
            else:
                fetch_file(web, listing, file, place, report.of(file))
        _provenance(web, name, listing, places).write(staging)
        publish(staging, target)
    clear_incoming(key)
    found = describe(store(), target)
    assert found is not None, "what was published is a model"
    return replace(found, name=name.text)


def _here_already(
    name: ModelName, key: str, target: Path, places: dict[RemoteFile, Path], say: Say
) -> set[RemoteFile]:
    """The files that need no fetching, by their hashes; what is of no use is deleted.

    They come from an attempt that was broken off, or from another revision of the model.
    """
    staging = next(iter(places.values())).parent
    for older in [*incoming().glob(f"{key}@*"), target]:
        for file, place in places.items():
            if older != staging:
                adopt(file, older / place.name, place)
    clear_incoming(key, keep=staging)
    full = {file for file, place in places.items() if is_full(file, place)}
    if full:
        size = size_text(sum(file.size or 0 for file in full))
        say(f"{name.text}: checking the {size} that are here already")
    whole = {file for file, place in places.items() if settled(file, place)}
    for file in full - whole:
        say(f"{name.text}: what is here of {file.path} has another hash than the hub lists: fetched again")
    return whole


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
