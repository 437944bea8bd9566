"""`pophood studio [MODEL]`: the server with a page for people, opened in the browser."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.commands.serve import (
    MODELS,
    PORT,
    listen_with_key,
    load_order,
    named,
    one_model,
    require_server,
)
from pophood.cli.options.shared import (
    ModelChoice,
    json_option,
    model_option,
    model_options,
    network_option,
    verb,
)
from pophood.cli.terminal.console import Console
from pophood.errors import NotFound
from pophood.system import home

if TYPE_CHECKING:
    from pophood.openai.model import ServedModel
    from pophood.serve.app import App
    from pophood.serve.process.fleet import Fleet
    from pophood.serve.process.records import LoadedFacts, LoadOrder

TOGETHER = 8  # texts that are written at a time


@verb()
@click.argument("model_name", required=False, metavar="[MODEL]")
@network_option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    help="Port to listen at; the next free one if it is taken.",
)
@network_option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the key for other programs from a file that only you can read.",
)
@network_option(
    "--open/--no-open", "opens", default=True, help="Open the page in the browser, or print its link alone."
)
@model_option(
    "--adapter",
    "adapters",
    type=named,
    multiple=True,
    metavar="NAME=DIR",
    help="Load an adapter that conversations can use; repeatable.",
)
@model_option(
    "--memory",
    metavar="SIZE",
    help="Memory for keys and values, as in 512M or 2G (default: 1G, or what one window needs).",
)
@model_option(
    "--max-models",
    type=click.IntRange(1, 64),
    default=MODELS,
    help="Models that may be in memory at once, if memory allows.",
)
@json_option
@functools.partial(model_options, adapters=False)
def studio_command(
    console: Console,
    model_name: str | None,
    port: int,
    key_file: Path | None,
    opens: bool,
    adapters: tuple[tuple[str, str], ...],
    memory: str | None,
    max_models: int,
    as_json: bool,
    choice: ModelChoice,
) -> int:
    """Open a page in the browser: chat, look inside, tune.

    It is a `pophood serve` with a page, so other programs can use the model as well (docs/studio.md). Only
    this machine can reach it, and nothing leaves the machine. Conversations are kept in pophood's folder.
    With --json the facts are one line.

    Example: pophood studio smollm2

    Example: pophood studio gpt2 --no-open --port 9000
    """
    require_server()
    choice = one_model(model_name, choice)
    from pophood.cli.screens.serve import Banner
    from pophood.cli.serving import Wishes, serve
    from pophood.cli.terminal.browser import opened_link
    from pophood.serve.guard.keys import Sessions
    from pophood.serve.guard.security import rules_of
    from pophood.studio.routes.build import PLACE
    from pophood.studio.secret import studio_secret

    require_page()
    folder = home() / "studio"
    sessions = Sessions(studio_secret(folder))
    listening, key = listen_with_key(console, "127.0.0.1", port, key_file)
    with listening.socket, opened_link(console) as show:
        rules = replace(rules_of(key), sessions=sessions, place=PLACE)
        order = load_order(console, choice, memory, TOGETHER, adapters, chat=choice.name is None)
        with open_studio(folder, order, console.say) as (extend, begin):
            wishes = Wishes(TOGETHER, most=max_models, extend=extend)

            def ready(facts: LoadedFacts, model: ServedModel) -> None:
                banner = Banner(facts, model, listening, key, TOGETHER, sessions.link_token)
                begin()
                console.out(_line(banner) if as_json else _text(banner))
                if opens:
                    show(banner.link)

            return serve(console, order, listening, rules, wishes, ready)


def require_page() -> None:
    """Raise NotFound, with the command that builds it, unless the page is there."""
    from pophood.studio.routes.pages import HOW, is_built

    if not is_built():
        raise NotFound(f"the studio's page has not been built in this checkout: run `{HOW}` (it needs Node)")


@contextmanager
def open_studio(
    folder: Path, order: LoadOrder, say: Callable[[str], object]
) -> Iterator[tuple[Callable[[App, Fleet], tuple[str, ...]], Callable[[], None]]]:
    """Give the function that adds the studio to a server's app, and the one that begins its work.

    The studio is closed after the block.
    """
    from pophood.studio.routes.build import Studio

    made: list[Studio] = []

    def extend(app: App, fleet: Fleet) -> tuple[str, ...]:
        made.append(Studio(folder, fleet, order=order, say=say))
        return made[0].add_to(app)

    try:
        yield extend, lambda: made[0].begin()
    finally:
        for studio in made:
            studio.close()


def _line(banner: Any) -> str:
    import json

    facts = banner.facts() | {"studio": f"{banner.listening.url}/studio/", "link": banner.link}
    return json.dumps(facts, separators=(",", ":"))


def _text(banner: Any) -> str:
    rows = [("Studio", f"{banner.listening.url}/studio/"), *banner.rows()]
    lines = [f"{name:<9} {value}" for name, value in rows]
    return "\n".join([*lines, "", "Other programs can use the model, too (docs/serve.md). Ctrl-C ends it."])
