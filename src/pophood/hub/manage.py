"""The operations of a user on models: pull, list, use and remove."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pophood.errors import BadInput, NotFound, PophoodError
from pophood.hub.cache import cached_models, find_in_cache
from pophood.hub.names import advice, parse_name
from pophood.hub.net import Outside
from pophood.hub.packaged import PACKAGED
from pophood.hub.progress import Ask, Dialogue, OnProgress, Say, say_to_log
from pophood.hub.publish import clear_incoming, discard
from pophood.hub.resolve import at_path, choose_model, chosen_model, default_choice, fetch, find_here
from pophood.hub.store import Located, entries, files_of, incoming, lock_of, plain_name, size_of, store
from pophood.system import file_lock, size_text
from pophood.system import offline as offline_by_environment


@dataclass(frozen=True, slots=True)
class Listed(Located):
    """A model on this machine, its size in bytes, and whether commands that name no model use it."""

    size: int = 0
    in_use: bool = False


def pull(
    name: str,
    revision: str | None = None,
    force: bool = False,
    *,
    offline: bool | None = None,
    progress: OnProgress | None = None,
    announce: Say | None = None,
    confirm: Ask | None = None,
    detail: Say | None = None,
    accept_terms: bool = False,
) -> Located:
    """Fetch a model into the store, unless it is on this machine already; `force` fetches it again.

    `announce` is called with size, target and free disk first, `confirm` may decline, `progress` is called
    with the bytes so far, and `detail` with lines for `-v`. An interrupted pull resumes where it stopped.
    `accept_terms` says that the user has accepted the model's terms, where it has some; else `confirm` asks.
    Raises BadInput for a name that cannot be fetched, NotFound (no such model, gated, offline, declined, no
    network), BadFile (wrong bytes), PophoodError (disk).

        pull("gpt2").path.name  # "gpt2"
    """
    say = announce or say_to_log
    known = parse_name(name)
    if known.repo is None and name not in PACKAGED:
        raise BadInput(f"{name!r} is not a model that can be fetched: {advice(name)}")
    if revision is not None and name in PACKAGED:
        raise BadInput(f"{name} is one fixed file and has no revisions: leave --revision out")
    here = find_here(known)
    if here is not None and not force and (revision is None or here.revision == revision):
        at = f" at revision {here.revision}" if here.revision else ""
        say(f"{known.text}: already here{at}: {here.path} (--force fetches it again)")
        return here
    if offline or offline_by_environment():
        raise NotFound(f"{name}: not fetched, because connections are forbidden (--offline, POPHOOD_OFFLINE)")
    dialogue = Dialogue(say, confirm, progress, detail, accept_terms)
    with Outside.opening_for("pull", known.text):
        return fetch(known, dialogue, revision=revision, force=force)


def list_models() -> list[Listed]:
    """List every model on this machine: the model folders first, then the Hugging Face cache. No network."""
    choice = default_choice()
    default = choice.name if choice is not None else None
    listed: list[Listed] = []
    for path, model in [*entries(), *((model.path, model) for model in cached_models())]:
        in_use = default in (model.name, str(model.path))
        if in_use:
            default = None  # only the first model of that name is the default
        listed.append(Listed(**asdict(model), size=size_of(path), in_use=in_use))
    return listed


def use(name: str | None) -> Located | None:
    """Choose the model for commands that name none; it must be here already. None restores the default.

    Raises NotFound, with the command that fetches it, and BadInput for a text that is not a model's name.
    """
    if name is None:
        choose_model(None)
        return None
    at = at_path(name)
    if at is not None:
        choose_model(str(at.path))
        return at
    known = parse_name(name)
    here = find_here(known)
    if here is None:
        raise NotFound(f"{name}: not on this machine: run `pophood pull {name}` first, or see `pophood list`")
    choose_model(here.name)
    return here


def remove(name: str, *, announce: Say | None = None, confirm: Ask | None = None) -> Located | None:
    """Delete a model from pophood's store, with partly fetched files; None if `confirm` declines.

    Programs that are running the model are not disturbed. Raises BadInput for models that pophood does not
    own (the Hugging Face cache, folders of POPHOOD_MODELS, other paths), NotFound for an unknown name.
    """
    say = announce or say_to_log
    path, model = _in_store(name)
    known = plain_name(model.name)
    question = f"Delete {model.name} ({size_text(size_of(path))}) at {path}?"
    if confirm is not None and not confirm(question):
        return None
    doomed = files_of(path) if path.is_file() else [path]
    if known is None:
        for each in doomed:
            discard(each)
    else:
        waiting = f"{name}: another process is fetching or deleting it; waiting for it to finish"
        with file_lock(lock_of(known), waiting=lambda: say(waiting)):
            for each in doomed:
                discard(each)
            clear_incoming(known.key)
    if chosen_model() in (model.name, str(model.path)):
        choose_model(None)
        say(f"{model.name} was chosen by `pophood use`; no model is chosen now")
    return model


def _in_store(name: str) -> tuple[Path, Located]:
    """Return the path to delete and the model for a name in the store; refuse anything outside it."""
    known = plain_name(name)
    for path, model in entries():
        names = (model.name, path.relative_to(store()).as_posix()) if model.where == "store" else ()
        if name in names or (known is not None and known.text in names):
            return path, model
    if known is not None:
        half = [folder for folder in incoming().glob(f"{known.key}@*") if folder.is_dir()]
        if half:
            return half[0], Located(known.text, half[0], where="store")
        shared = find_here(known)
        if shared is not None and find_in_cache(known) == shared:
            raise BadInput(
                f"{name}: is in the Hugging Face cache, which belongs to other programs: delete it with "
                f"`hf cache` ({shared.path})"
            )
        if shared is not None:
            raise BadInput(
                f"{name}: is in a shared folder of POPHOOD_MODELS, which pophood only reads: {shared.path}"
            )
    with suppress(OSError, RuntimeError, ValueError):  # not a path: too long, ~nobody, a NUL
        if Path(name).expanduser().exists():
            raise PophoodError(f"{name}: not in pophood's store ({store()}): delete it yourself")
    raise NotFound(f"{name}: not in pophood's store: see `pophood list`")
