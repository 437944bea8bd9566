"""`pophood serve [MODEL]`: a server for other programs, in OpenAI's protocol."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.options.shared import (
    ModelChoice,
    json_option,
    model_option,
    model_options,
    network_option,
    verb,
)
from pophood.cli.session import locate
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pophood.openai.model import ServedModel
    from pophood.serve.guard.keys import Key
    from pophood.serve.guard.listening import Listening
    from pophood.serve.process.records import LoadedFacts, LoadOrder

PORT = 8321
PARALLEL = 16
MODELS = 2


def named(text: str) -> tuple[str, str]:
    """Parse NAME=PATH.

    >>> named("notes=notes-lora")
    ('notes', 'notes-lora')
    """
    name, equals, place = text.partition("=")
    if not (name.strip() and equals and place):
        raise click.BadParameter(f"{text!r}; wanted NAME=PATH, as in notes=notes-lora")
    return name.strip(), place


@verb()
@click.argument("model_name", required=False, metavar="[MODEL]")
@network_option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    help="Port to listen at; the next free one if it is taken.",
)
@network_option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen at.")
@network_option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the key from a file that only you can read (default: POPHOOD_API_KEY, else a new one).",
)
@network_option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another name of this machine that requests may be addressed to; repeatable.",
)
@network_option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Let pages of this origin read answers, if they have the key; repeatable.",
)
@network_option(
    "--ollama-port",
    type=click.IntRange(0, 65535),
    help="Speak Ollama's protocol, too, at this port of 127.0.0.1, where no key is asked (Ollama's: 11434).",
)
@model_option(
    "--adapter",
    "adapters",
    type=named,
    multiple=True,
    metavar="NAME=DIR",
    help="Load an adapter that requests can name; repeatable.",
)
@model_option(
    "--alias", "aliases", multiple=True, metavar="NAME", help="Another name of the model; repeatable."
)
@model_option(
    "--parallel",
    type=click.IntRange(1, 256),
    default=PARALLEL,
    help="Texts that are written at the same time.",
)
@model_option(
    "--memory",
    metavar="SIZE",
    help="Memory for keys and values, as in 512M or 2G (default: 1G, or what one window needs).",
)
@model_option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the beginnings of prompts in a folder of your own, so that they survive a restart.",
)
@model_option(
    "--max-models",
    type=click.IntRange(1, 64),
    default=MODELS,
    help="Models that may be in memory at once, if memory allows.",
)
@model_option(
    "--idle-unload",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Let a model without requests for so long leave memory until the next one.",
)
@model_option("--cache-size", metavar="SIZE", help="What that folder may hold, as in 512M (default: 2G).")
@network_option("--open", "opens", is_flag=True, help="Open the server's start page in the browser.")
@json_option
@functools.partial(model_options, adapters=False)
def serve_command(
    console: Console,
    model_name: str | None,
    port: int,
    host: str,
    key_file: Path | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    ollama_port: int | None,
    adapters: tuple[tuple[str, str], ...],
    aliases: tuple[str, ...],
    parallel: int,
    memory: str | None,
    cache_dir: Path | None,
    cache_size: str | None,
    max_models: int,
    idle_unload: float | None,
    opens: bool,
    as_json: bool,
    choice: ModelChoice,
) -> int:
    """Serve a model to other programs on this machine.

    It speaks OpenAI's protocol (docs/serve.md). Every request needs the key, and nothing beyond this machine
    is reached or listened to unless you name it. With --json the facts are one line. -v prints a line for
    each request, without its text. Ctrl-C lets running answers finish for five seconds.

    Example: pophood serve smollm2

    Example: pophood serve smollm2 --cache-dir ~/.cache/pophood-prefixes

    Example: pophood serve smollm2 --port 9000 --alias gpt-4o-mini --adapter notes=notes-lora
    """
    require_server()
    choice = one_model(model_name, choice)
    from pophood.cli.screens.serve import Banner
    from pophood.cli.serving import Wishes, serve
    from pophood.cli.terminal.browser import opened_link
    from pophood.serve.guard.security import rules_of

    limit = _cache_limit(cache_dir, cache_size)
    listening, key = listen_with_key(console, host, port, key_file)
    with listening.socket, opened_link(console) as show:
        address = None if listening.loopback else listening.host
        rules = rules_of(key, hosts, origins, address)
        order = load_order(console, choice, memory, parallel, adapters)
        order = replace(order, cache_dir=cache_dir and cache_dir.absolute(), cache_size=limit)
        wishes = Wishes(parallel, aliases, max_models, idle_unload, _listen_as_ollama(ollama_port))

        def ready(facts: LoadedFacts, model: ServedModel) -> None:
            token, ollama = rules.sessions.link_token, wishes.ollama
            banner = Banner(facts, model, listening, key, parallel, token, ollama)
            console.out(banner.line() if as_json else banner.text())
            if opens:
                show(banner.link)

        return serve(console, order, listening, rules, wishes, ready)


def require_server() -> None:
    """Raise NotFound, with the command that installs it, unless the server's libraries are here."""
    missing = [name for name in ("fastapi", "uvicorn", "pydantic") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotFound(
            f"the server needs {', '.join(missing)}, not installed here: pip install 'pophood[serve]'"
        )


def listen_with_key(console: Console, host: str, port: int, key_file: Path | None) -> tuple[Listening, Key]:
    """Open the socket and choose the key, before anything that takes time. Raises BadInput."""
    from pophood.serve.guard.keys import check_open, choose_key
    from pophood.serve.guard.listening import is_loopback, listen, numeric

    address, key = numeric(host), choose_key(key_file)
    if not is_loopback(address):
        check_open(key, address)
        console.say(f"other machines can reach {address}; what they send and get is not encrypted")
    return listen(address, port), key


def _listen_as_ollama(port: int | None) -> Listening | None:
    """Open the socket of Ollama's protocol, at that port alone. Raises BadInput."""
    from pophood.serve.guard.listening import listen

    if port is None:
        return None
    listening = listen("127.0.0.1", port)
    if listening.taken is not None:
        listening.socket.close()
        raise BadInput(f"--ollama-port {port}: the port is taken; Ollama itself may run there")
    return listening


def _cache_limit(folder: Path | None, size: str | None) -> int:
    """Return the bytes that a folder of prefixes may hold. Raises BadInput, UsageError."""
    from pophood.model.prefix_files import LIMIT
    from pophood.serve.capacity import parse_size

    if size is not None and folder is None:
        raise click.UsageError("--cache-size needs --cache-dir, the folder that it bounds")
    return LIMIT if size is None else parse_size(size)


def one_model(name: str | None, choice: ModelChoice) -> ModelChoice:
    """Return the choice with the model that an argument or -m names. Raises UsageError for both."""
    if name is not None and choice.name is not None:
        raise click.UsageError(f"{name} and -m {choice.name} are two models: name one")
    return replace(choice, name=name or choice.name)


def load_order(
    console: Console,
    choice: ModelChoice,
    memory: str | None,
    parallel: int,
    adapters: tuple[tuple[str, str], ...],
    *,
    chat: bool = False,
) -> LoadOrder:
    """Find the model, and say how it is to be loaded. Raises BadInput, NotFound."""
    from pophood.serve.capacity import parse_size
    from pophood.serve.guard.connections import CONNECTIONS
    from pophood.serve.process.records import LoadOrder
    from pophood.serve.protocol.replies import MOST_OPEN

    if len({name for name, _ in adapters}) < len(adapters):
        raise BadInput("two adapters have the same name: give each its own")
    wanted = None if memory is None else parse_size(memory)
    located = locate(console, choice.name, chat=chat, offline=choice.offline)
    return LoadOrder(
        located.name,
        located.path,
        precision=choice.precision,
        kv=choice.kv,
        threads=choice.threads,
        context=choice.context,
        memory=wanted,
        parallel=parallel,
        waiting=MOST_OPEN + CONNECTIONS,  # the HTTP side refuses before: there it would be too late for a 429
        adapters=adapters,
    )
