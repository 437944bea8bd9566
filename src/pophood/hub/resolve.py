"""Which model a name means, which one is taken when none is named, and when fetching is allowed.

A model that was named is never replaced by another. Without a name: POPHOOD_MODEL, `pophood use`, then for
`chat` smollm2, else a cached gpt2, else a cached smollm2. With nothing here, and only then, one question to
the hub and one to the person decide between the two.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pophood.errors import BadInput, NotHere, PophoodError
from pophood.hub.cache import find_in_cache
from pophood.hub.known_models import CATALOGUE
from pophood.hub.names import SMOLLM2, ModelName, advice, parse_name
from pophood.hub.progress import Ask, Progress, Say, say_to_log, size_text
from pophood.hub.settings import chosen_model
from pophood.hub.smollm2 import WHEEL_BYTES, find_smollm2
from pophood.hub.store import Located, find, from_path
from pophood.system import offline as told_offline

if TYPE_CHECKING:
    from pophood.hub.net.listing import Listing

FIRST = "gpt2"
PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that is taken when none is named, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Manner:
    """Whether a model may be fetched, and who hears of it and is asked."""

    offline: bool
    say: Say
    ask: Ask | None
    progress: Callable[[Progress], object] | None
    detail: Say | None = None


def locate(
    name: str | None = None,
    *,
    chat: bool = False,
    offline: bool | None = None,
    announce: Say | None = None,
    confirm: Ask | None = None,
    progress: Callable[[Progress], object] | None = None,
    detail: Say | None = None,
) -> Located:
    """The files of a model, fetched on first use if that is allowed, and said aloud through `announce`.

    `confirm` asks a person at a terminal; without it nobody is asked. `detail` hears what only `-v` tells.
    Raises BadInput for a name that means nothing, NotHere for a model that is not here and may not, or could
    not, be fetched.

    >>> locate("smollm2").path.name  # doctest: +SKIP
    'SmolLM2-135M-Instruct.Q4_1.gguf'
    """
    manner = Manner(bool(offline) or told_offline(), announce or say_to_log, confirm, progress, detail)
    if name is not None:
        return _named(name, manner)
    choice = default_choice(chat=chat)
    if choice is not None:
        return _named(choice.name, manner)
    return _first_model(manner)


def default_choice(*, chat: bool = False) -> Choice | None:
    """The model for a command that names none; None if nothing is chosen and nothing is here. No network."""
    variable = os.environ.get("POPHOOD_MODEL", "").strip()
    if variable:
        return Choice(variable, "POPHOOD_MODEL")
    used = chosen_model()
    if used is not None:
        return Choice(used, "pophood use")
    if chat:
        return Choice(SMOLLM2, "the chat model")
    for known in (FIRST, SMOLLM2):
        if find_here(parse_name(known)) is not None:
            return Choice(known, "found here")
    return None


def find_here(name: ModelName) -> Located | None:
    """A model by its name, in the model folders or in the Hugging Face cache. No network."""
    if name.text == SMOLLM2:
        return find_smollm2()
    return find(name) or find_in_cache(name)


def _named(text: str, manner: Manner) -> Located:
    if text not in CATALOGUE:  # a folder called gpt2 is written ./gpt2
        found = at_path(text)
        if found is not None:
            return found
    name = parse_name(text)
    found = find_here(name)
    if found is not None:
        return found
    if name.repo is None and text != SMOLLM2:
        raise BadInput(f"there is no model {text!r} here: {advice(text)}")
    if manner.offline:
        raise NotHere(
            f"{name.text}: not on this machine, and connections are forbidden (--offline, POPHOOD_OFFLINE): "
            f"fetch it once with `pophood pull {name.text}`, or see `pophood list`"
        )
    if text == SMOLLM2:
        from pophood.hub.pip_fetch import fetch_smollm2

        return fetch_smollm2(force=False, say=manner.say, ask=manner.ask, progress=manner.progress)
    from pophood.hub.fetch import pull_repo

    return pull_repo(name, say=manner.say, ask=manner.ask, progress=manner.progress, detail=manner.detail)


def at_path(text: str) -> Located | None:
    """A model at a path; None when the text may still be a name. Refuses files that are no model.

    What a file is, is judged by `formats.sniff`, by its first bytes.
    """
    if not text or "\0" in text:
        raise BadInput(f"{text!r} is no model's name: {advice(text)}")
    try:
        found = from_path(text)
    except (OSError, RuntimeError, ValueError) as error:  # too long, or ~nobody
        raise BadInput(f"{text[:100]!r} is no model's name ({error}): {advice(text)}") from None
    if found is None:
        clearly_path = text.startswith((".", "/", "~", "\\")) or Path(text).is_absolute()
        if clearly_path or (text.endswith(".gguf") and ":" not in text and find(parse_name(text)) is None):
            raise NotHere(f"{text}: there is no such file or folder: check the path, or see `pophood list`")
        return None
    return found


def _first_model(manner: Manner) -> Located:
    """Nothing is chosen and nothing is here: gpt2 if the hub answers and a person agrees, else smollm2."""
    if manner.offline:
        raise NotHere(
            "no model is on this machine, and connections are forbidden (--offline, POPHOOD_OFFLINE): "
            "run `pophood pull smollm2` once without it"
        )
    ask = manner.ask
    listing = _probe(manner.say) if ask is not None else None
    if ask is not None and listing is not None:
        answer = _Answer(ask)
        try:
            return _pull_first(listing, manner, answer)
        except NotHere:
            if answer.agreed:
                raise
        ask = None  # answered already
    from pophood.hub.pip_fetch import fetch_smollm2

    manner.say(
        "no model is here yet: taking smollm2, a small chat model (see `pophood pull --help` for others)"
    )
    return fetch_smollm2(force=False, say=manner.say, ask=ask, progress=manner.progress)


class _Answer:
    """Asks on, and remembers what the person said."""

    def __init__(self, ask: Ask) -> None:
        self.ask, self.agreed = ask, True

    def __call__(self, question: str) -> bool:
        self.agreed = self.ask(question)
        return self.agreed


def _pull_first(listing: Listing, manner: Manner, ask: Ask) -> Located:
    from pophood.hub.fetch import pull_repo

    instead = f" No takes smollm2 ({size_text(WHEEL_BYTES)}) instead."
    return pull_repo(
        parse_name(FIRST),
        listing=listing,
        say=manner.say,
        ask=ask,
        progress=manner.progress,
        detail=manner.detail,
        instead=instead,
    )


def _probe(say: Say) -> Listing | None:
    """Ask the hub for gpt2's list of files, for 3 s at most, name resolution included."""
    import threading

    from pophood.hub.net.connect import ProxyFailed
    from pophood.hub.net.listing import list_repo
    from pophood.hub.net.web import Web

    found: list[Listing] = []
    proxy: list[str] = []
    web = Web.from_environment()

    def ask_hub() -> None:
        try:
            found.append(list_repo(web.with_patience(PROBE_SECONDS, attempts=1), CATALOGUE[FIRST].repo))
        except ProxyFailed as error:
            proxy.append(str(error))
        except PophoodError:
            pass

    thread = threading.Thread(target=ask_hub, daemon=True)  # a resolver cannot be interrupted, only left
    thread.start()
    thread.join(PROBE_SECONDS)
    if found:
        return found[0]
    if proxy:
        say(f"no model is here yet: {proxy[0]}")
        return None
    say(f"no model is here yet, and the hub at {web.endpoint} does not answer within {PROBE_SECONDS:g} s")
    return None
