"""Fetches a model from a hub: list, choose, announce, ask, fetch each file, record its origin, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pophood.errors import NotFound
from pophood.hub.names import ModelName
from pophood.hub.net.listing import Listing, NotAllowed, RemoteFile, ask_about, choose, list_repo
from pophood.hub.net.transfer import adopt, bytes_here, complete_from_disk, fetch_file, has_full_size
from pophood.hub.net.web import Web
from pophood.hub.progress import Dialogue, Download, OnProgress, Progress, Say, announce_and_ask
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.store import WAITING, Located, Provenance, describe, find, incoming, lock_of, store
from pophood.system import disk_errors, file_lock, size_text

PROGRESS_INTERVAL = 0.1  # seconds


def pull_repo(
    name: ModelName,
    dialogue: Dialogue,
    *,
    revision: str | None = None,
    force: bool = False,
    listing: Listing | None = None,
    instead: str = "",
) -> Located:
    """Fetch a repo's model into the store, or return the one that another process has just fetched.

    Raises NotFound (no such model, declined, no network), BadFile (wrong bytes), PophoodError (disk).
    """
    say = dialogue.say
    with file_lock(lock_of(name), waiting=lambda: say(f"{name.text}: {WAITING}")):
        here = find(name)
        if here is not None and here.where != "store":
            here = None
        if here is not None and not force and revision is None:
            return here
        web = Web.from_environment()
        if listing is None:
            web, listing = _listed(web, name, revision, dialogue)
        if here is not None and not force and here.revision == listing.commit:
            say(f"{name.text}: already here at revision {listing.commit}: {here.path}")
            return here
        if here is not None:
            say(f"{name.text}: replaces revision {here.revision or 'unknown'} at {here.path}")
        return _fetch(web, name, listing, force, dialogue, instead)


def _listed(web: Web, name: ModelName, revision: str | None, dialogue: Dialogue) -> tuple[Web, Listing]:
    """Return the repo's list of files, and the hub to use from now on, without a saved login that it refused.

    An expired login is refused even for a model that everybody may fetch, so the list is requested once more
    without it.
    """
    if web.login is not None and dialogue.detail is not None:
        dialogue.detail(f"{web.endpoint}: using {web.login.origin}")
    try:
        return web, list_repo(web, name.repo or "", revision)
    except NotAllowed as refused:
        if web.login is None or not web.login.saved:
            raise
        without_login = replace(web, login=None)
        try:
            listing = list_repo(without_login, name.repo or "", revision)
        except NotFound:
            raise refused from None
        dialogue.say(
            f"{name.text}: the hub refused {web.login.origin}; fetching without it "
            "(`hf auth login` creates a new one)"
        )
        return without_login, listing


def _fetch(
    web: Web, name: ModelName, listing: Listing, force: bool, dialogue: Dialogue, instead: str
) -> Located:
    files = tuple(
        file if file.checkable else ask_about(web, listing, file) for file in choose(listing, name.file)
    )
    target = store() / name.places[0]
    staging = incoming() / f"{name.key}@{listing.commit[:16]}"
    # Only a GGUF file can be in a folder of the repo.
    places = {file: staging / file.path.rsplit("/", 1)[-1] for file in files}
    if force:
        clear_incoming(name.key)
    with disk_errors(target):
        staging.mkdir(parents=True, exist_ok=True)
        complete = set() if force else _complete_files(name, target, places, dialogue.say)
    size = sum(file.size or 0 for file in files)
    left = size - sum(bytes_here(file, place) for file, place in places.items())
    what = f"{name.text} (revision {listing.commit[:12]}, {len(files)} file{'s' * (len(files) > 1)})"
    plan = Download(what, f"{web.endpoint}/{listing.repo}", target, size, left, left)
    try:
        announce_and_ask(plan, dialogue, instead)
    except BaseException:
        with suppress(OSError):
            staging.rmdir()  # fails unless it is empty
        raise
    with disk_errors(target, left):
        meter = _ProgressMeter(files, dialogue.progress)
        for file, place in places.items():
            if file in complete:
                meter.of(file)(file.size or 0)
            else:
                fetch_file(web, listing, file, place, meter.of(file))
        _provenance(web, name, listing, places).write(staging)
        publish(staging, target)
    clear_incoming(name.key)
    model = describe(store(), target)
    assert model is not None, "a published folder holds a model"
    return replace(model, name=name.text)


def _complete_files(
    name: ModelName, target: Path, places: dict[RemoteFile, Path], say: Say
) -> set[RemoteFile]:
    """Return the files that are here already, judged by their hashes, and delete useless leftovers.

    Both come from an interrupted attempt, or from another revision of the model.
    """
    staging = next(iter(places.values())).parent
    for older in [*incoming().glob(f"{name.key}@*"), target]:
        for file, place in places.items():
            if older != staging:
                adopt(file, older / place.name, place)
    clear_incoming(name.key, keep=staging)
    full = {file for file, place in places.items() if has_full_size(file, place)}
    if full:
        size = size_text(sum(file.size or 0 for file in full))
        say(f"{name.text}: checking {size} that is here already")
    complete = {file for file, place in places.items() if complete_from_disk(file, place)}
    for file in full - complete:
        say(
            f"{name.text}: the copy of {file.path} here does not have the hash that the hub lists: fetching"
            " it again"
        )
    return complete


def _provenance(web: Web, name: ModelName, listing: Listing, places: dict[RemoteFile, Path]) -> Provenance:
    hashes: dict[str, dict[str, int | str]] = {}
    for file, place in places.items():
        kind, digest = ("sha256", file.sha256) if file.sha256 else ("git_blob", file.blob or "")
        hashes[place.name] = {"size": file.size or 0, kind: digest}
    return Provenance(name.text, f"{web.endpoint}/{listing.repo}", listing.commit, listing.licence, hashes)


class _ProgressMeter:
    """Turns the bytes of one file into Progress over all files, at most ten times a second."""

    def __init__(self, files: tuple[RemoteFile, ...], progress: OnProgress | None) -> None:
        self.done = dict.fromkeys(files, 0)
        self.size = sum(file.size or 0 for file in files)
        self.progress = progress
        self.last = 0.0

    def of(self, file: RemoteFile) -> Callable[[int], None]:
        """Return the callback that `fetch_file` calls with the bytes of one file."""

        def moved(done: int) -> None:
            self.done[file] = done
            now = time.monotonic()
            total = sum(self.done.values())
            if self.progress is not None and (now - self.last >= PROGRESS_INTERVAL or total == self.size):
                self.last = now
                self.progress(Progress(file.path, done, file.size or 0, total, self.size))

        return moved
