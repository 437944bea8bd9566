"""Resolves a name, or no name, to a model's files; fetches the model if it is missing and that is allowed.

A model that the user named is never replaced by another. Without a name: POPHOOD_MODEL, then the model chosen
by `pophood use`, then for `chat` smollm2, otherwise gpt2 if it is here, otherwise smollm2 if it is here. Only
if there is no model at all are the hub and the user asked whether to fetch gpt2; the alternative is smollm2.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pophood.errors import BadFile, BadInput, NotFound, PophoodError
from pophood.hub.cache import find_in_cache
from pophood.hub.known_models import CATALOGUE
from pophood.hub.names import SMOLLM2, ModelName, advice, parse_name
from pophood.hub.net import Outside
from pophood.hub.packaged import PACKAGED, SMOLLM2_FILE, find_packaged
from pophood.hub.progress import Ask, Dialogue, OnProgress, Say, say_to_log
from pophood.hub.store import Located, find, from_path
from pophood.system import atomic_write, check_home, disk_errors, home, size_text
from pophood.system import offline as offline_by_environment

if TYPE_CHECKING:
    from pophood.hub.net.listing import Listing

FIRST = "gpt2"
PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class DefaultChoice:
    """The model that is used when none is named, and why."""

    name: str
    why: str


def locate(
    name: str | None = None,
    *,
    chat: bool = False,
    offline: bool | None = None,
    announce: Say | None = None,
    confirm: Ask | None = None,
    progress: OnProgress | None = None,
    detail: Say | None = None,
) -> Located:
    """Find the files of a model, and fetch it on first use if that is allowed, announced through `announce`.

    `confirm` asks the user at a terminal; without it, no question is asked. `detail` is called with lines for
    `-v`. Raises BadInput for a text that is not a model's name, NotFound for a model that is not here and may
    not, or could not, be fetched.

        locate("smollm2").path.name  # "SmolLM2-135M-Instruct.Q4_1.gguf"
    """
    forbidden = bool(offline) or offline_by_environment()
    dialogue = Dialogue(announce or say_to_log, confirm, progress, detail)
    if name is None:
        choice = default_choice(chat=chat)
        if choice is None:
            return _first_model(forbidden, dialogue)
        name = choice.name
    return _named(name, forbidden, dialogue)


def default_choice(*, chat: bool = False) -> DefaultChoice | None:
    """Return the model for a command that names none, or None if none is chosen or here. No network."""
    variable = os.environ.get("POPHOOD_MODEL", "").strip()
    if variable:
        return DefaultChoice(variable, "POPHOOD_MODEL")
    used = chosen_model()
    if used is not None:
        return DefaultChoice(used, "pophood use")
    if chat:
        return DefaultChoice(SMOLLM2, "the chat model")
    for known in (FIRST, SMOLLM2):
        if find_here(parse_name(known)) is not None:
            return DefaultChoice(known, "found here")
    return None


def find_here(name: ModelName) -> Located | None:
    """Find a model by name in the model folders or in the Hugging Face cache. No network."""
    if name.text in PACKAGED:
        return find_packaged(name.text)
    return find(name) or find_in_cache(name)


def _named(text: str, offline: bool, dialogue: Dialogue) -> Located:
    if text not in CATALOGUE:  # a folder called gpt2 must be written as ./gpt2
        model = at_path(text)
        if model is not None:
            return model
    name = parse_name(text)
    model = find_here(name)
    if model is not None:
        return model
    if name.repo is None and text not in PACKAGED:
        raise BadInput(f"there is no model {text!r} here: {advice(text)}")
    if offline:
        raise NotFound(
            f"{name.text}: not on this machine, and connections are forbidden (--offline, POPHOOD_OFFLINE): "
            f"fetch it once with `pophood pull {name.text}`, or see `pophood list`"
        )
    return fetch(name, dialogue)


def fetch(
    name: ModelName, dialogue: Dialogue, *, revision: str | None = None, force: bool = False
) -> Located:
    """Fetch a model with pip or from the hub; only now are the modules that do so imported."""
    with Outside.opening_for("first use", name.text):
        if name.text in PACKAGED:
            from pophood.hub.pip_fetch import fetch_packaged

            return fetch_packaged(name.text, dialogue, force=force)
        from pophood.hub.fetch import pull_repo

        return pull_repo(name, dialogue, revision=revision, force=force)


def at_path(text: str) -> Located | None:
    """Return the model at a path, or None if the text may still be a name.

    A file that is not a model is refused; `formats.sniff` identifies it by its first bytes.
    """
    if not text or "\0" in text:
        raise BadInput(f"{text!r} is not a model's name: {advice(text)}")
    try:
        model = from_path(text)
    except (OSError, RuntimeError, ValueError) as error:  # too long, or ~nobody
        raise BadInput(f"{text[:100]!r} is not a model's name ({error}): {advice(text)}") from None
    if model is None:
        clearly_path = text.startswith((".", "/", "~", "\\")) or Path(text).is_absolute()
        if clearly_path or (text.endswith(".gguf") and ":" not in text and find(parse_name(text)) is None):
            raise NotFound(f"{text}: there is no such file or folder: check the path, or see `pophood list`")
        return None
    return model


def _first_model(offline: bool, dialogue: Dialogue) -> Located:
    """Fetch the first model: gpt2 if the hub answers and the user agrees, else smollm2."""
    if offline:
        raise NotFound(
            "no model is on this machine, and connections are forbidden (--offline, POPHOOD_OFFLINE): "
            "run `pophood pull smollm2` once without it"
        )
    ask = dialogue.ask
    listing = _probe(dialogue.say) if ask is not None else None
    if ask is not None and listing is not None:
        from pophood.hub.fetch import pull_repo

        question = _Question(ask)
        instead = f" No fetches smollm2 ({size_text(SMOLLM2_FILE.download)}) instead."
        asking = replace(dialogue, ask=question)
        try:
            with Outside.opening_for("first use", FIRST):
                return pull_repo(parse_name(FIRST), asking, listing=listing, instead=instead)
        except NotFound:
            if question.agreed:
                raise
        dialogue = replace(dialogue, ask=None)  # "no" to gpt2 means smollm2, so do not ask again
    dialogue.say(
        "no model is here yet: fetching smollm2, a small chat model (see `pophood pull --help` for others)"
    )
    return fetch(ModelName(SMOLLM2), dialogue)


class _Question:
    """Wraps a question to the user and remembers the answer."""

    def __init__(self, ask: Ask) -> None:
        self.ask, self.agreed = ask, True

    def __call__(self, question: str) -> bool:
        self.agreed = self.ask(question)
        return self.agreed


def _probe(say: Say) -> Listing | None:
    """Request gpt2's list of files from the hub, for at most 3 s including name resolution.

    Return None if it fails.
    """
    import threading

    from pophood.hub.net.connect import ProxyFailed
    from pophood.hub.net.listing import list_repo
    from pophood.hub.net.web import Web

    listings: list[Listing] = []
    proxy_errors: list[str] = []
    web = Web.from_environment()
    impatient = replace(web, timeout=PROBE_SECONDS, attempts=1)

    def request() -> None:
        try:
            with Outside.opening_for("first use", FIRST):
                listings.append(list_repo(impatient, CATALOGUE[FIRST].repo))
        except ProxyFailed as error:
            proxy_errors.append(str(error))
        except PophoodError:
            pass

    thread = threading.Thread(target=request, daemon=True)  # name resolution cannot be interrupted
    thread.start()
    thread.join(PROBE_SECONDS)
    if listings:
        return listings[0]
    if proxy_errors:
        say(f"no model is here yet: {proxy_errors[0]}")
        return None
    say(f"no model is here yet, and the hub at {web.endpoint} did not answer within {PROBE_SECONDS:g} s")
    return None


# The choice of `pophood use` ---------------------------------------------------------------------------


def chosen_model() -> str | None:
    """Return the model that `pophood use` saved in settings.json, or None.

    Raises BadFile for unreadable settings, BadInput for a home folder that cannot be used.
    """
    check_home()
    path = home() / "settings.json"
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(
            f"{path}: not readable as JSON ({error}): choose again with `pophood use NAME`"
        ) from None
    model = settings.get("model") if isinstance(settings, dict) else 0
    if model is not None and not isinstance(model, str):
        raise BadFile(f'{path}: wanted {{"model": "NAME"}}: choose again with `pophood use NAME`')
    return model or None


def choose_model(name: str | None) -> None:
    """Save the model for commands that name none; None clears it. Raises as `chosen_model` does."""
    check_home()
    path = home() / "settings.json"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps({"model": name}, indent=2) + "\n").encode())
