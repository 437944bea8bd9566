"""`pophood kit`: makes a folder that sets up laptops without a network, and checks kits and laptops."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.app import DONE, FAILED, LateGroup
from pophood.cli.options.shared import json_option, model_option, offline_option, output_option, verb
from pophood.cli.session import locate
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.cli.terminal.tables import count
from pophood.system import size_text

if TYPE_CHECKING:
    from pophood.kit import KitDialogue, KitManifest

STEPS = {
    "make": "Make a kit, or go on with one that was stopped.",
    "check": "Check this laptop, or the folder of a kit.",
    "models": "Copy a kit's models to where pophood looks for them.",
}
ALL = ("all",)


class KitSteps(LateGroup):
    """The commands below `pophood kit`; anything else that is typed goes to `make`."""

    verbs = STEPS
    modules = dict.fromkeys(STEPS, "kit")
    package = "pophood.cli.commands"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in STEPS else ["make", *args])


@click.command(
    cls=KitSteps,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "ignore_unknown_options": True,
    },
)
def kit_command() -> None:
    """Make a folder that sets up laptops without a network.

    The folder has wheels, models, the course and a set-up script: copy it to a stick or a share, and run
    `sh setup.sh` in it on every laptop. `pophood kit OUT` is short for `pophood kit make OUT`. -q and
    -v print less and more.

    Example: pophood kit class --models smollm2 --train
    """


def _words(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Split the value of an option at its commas."""
    return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


words_option = functools.partial(model_option, callback=_words)


@verb()
@click.argument("out", type=click.Path(path_type=Path))
@words_option(
    "--models", default="smollm2", metavar="NAME,...", help="Models to carry, fetched if necessary."
)
@words_option(
    "--python",
    "pythons",
    default="all",
    metavar="X.Y,...",
    help="Python versions of the laptops; all: those from 3.11 to 3.14 that pophood's wheels fit.",
)
@model_option(
    "--platform", default="linux-x86_64", metavar="NAME", help="System and processor of the laptops."
)
@model_option("--train", is_flag=True, help="Carry torch too, as a build for CPUs, for `pophood tune`.")
@model_option(
    "--extra", "extras", multiple=True, metavar="NAME", help="Carry an extra, as in notebook; repeatable."
)
@model_option(
    "--wheel",
    "wheels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="pophood's own wheel or torch's, or a folder with them; repeatable (default: as it was installed).",
)
@output_option("--no-slides", is_flag=True, help="Leave out the slides, which take minutes to compute.")
@output_option("--language", default="en", metavar="CODE", help="The language of the course.")
@offline_option
def make_command(
    console: Console,
    out: Path,
    models: tuple[str, ...],
    pythons: tuple[str, ...],
    platform: str,
    train: bool,
    extras: tuple[str, ...],
    wheels: tuple[Path, ...],
    no_slides: bool,
    language: str,
    offline: bool | None,
) -> None:
    """Make a kit, or go on with one that was stopped.

    OUT becomes a folder with every wheel that such laptops need, models, the notebook, the slides, the
    hashes of all files and a set-up script. Wheels come by pip from the index that it uses; pophood's own is
    the one that it was installed from, the release of the same version, or what --wheel names. Run the same
    command again after Ctrl-C, a full disk or a lost network: what is there and whole stays.

    Example: pophood kit class --models smollm2 --train --python 3.12,3.13

    Example: make wheel && pophood kit class --wheel dist
    """
    from pophood import kit

    if not models or not pythons:
        raise click.UsageError("--models and --python take one name or more, with commas between them")
    target = kit.platform_named(platform)
    versions = None if pythons == ALL else tuple(kit.parse_python(text) for text in pythons)
    _check_offline(offline)
    located = tuple(locate(console, name, offline=offline) for name in models)
    chosen = tuple(dict.fromkeys([*(["train"] if train else []), *extras]))
    plan = kit.KitPlan(located, versions, target, chosen, wheels, not no_slides, language)
    try:
        manifest = kit.make_kit(plan, out, dialogue_of(console))
    except KeyboardInterrupt:
        console.say("run the same command again to go on")
        raise
    console.out(described(manifest, out))


def _check_offline(offline: bool | None) -> None:
    """Refuse --offline: pip is asked for wheels."""
    from pophood.errors import NotFound
    from pophood.system import offline as offline_by_environment

    if offline or offline_by_environment():
        raise NotFound("a kit is made with a network; connections are forbidden (--offline, POPHOOD_OFFLINE)")


def described(manifest: KitManifest, out: Path) -> str:
    """Return what a kit holds, and what to do with it, as two lines."""
    packages = count(max(len(packages) for packages in manifest.packages.values()), "package")
    pythons = ", ".join(manifest.pythons)
    models = ", ".join(model.name for model in manifest.models)
    size = size_text(sum(path.stat().st_size for path in out.rglob("*") if path.is_file()))
    return (
        f"{out}: {packages} for Python {pythons} on {manifest.platform}, {models}: {size}\n"
        "Copy it to the laptops, and run there: sh setup.sh (README.txt says more)"
    )


def dialogue_of(console: Console) -> KitDialogue:
    """Return the callbacks of work on a kit."""
    from pophood.kit import KitDialogue

    return KitDialogue(console.say, console.detail, functools.partial(Waiting, console))


@verb()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
def check_command(console: Console, folder: Path | None, as_json: bool) -> int:
    """Check this laptop, or the folder of a kit.

    Without FOLDER this laptop is checked against the kit that it was set up from: Python, every file of
    every package, the models, and whether the first model computes. With FOLDER (or in a kit's folder, on a
    machine that was not set up from one) every file of the kit is compared with its hash. Says "ready", or
    the one thing that is missing or damaged, with exit code 1.

    Example: pophood kit check
    """
    from pophood import kit

    dialogue = dialogue_of(console)
    manifest = None if folder else kit.laptop_manifest()
    if folder is None and manifest is None:
        folder = Path()
    if folder is not None:
        fault = kit.kit_fault(folder, dialogue)
        ready = f"the kit in {folder.absolute()} is whole"
    else:
        assert manifest is not None
        fault = kit.laptop_fault(manifest, dialogue)
        ready = f"pophood {manifest.pophood} with {', '.join(model.name for model in manifest.models)}"
    facts = {"ready": fault is None, "fault": fault, "kit": str(folder.absolute()) if folder else None}
    console.result(facts, f"not ready: {fault}" if fault else f"ready: {ready}", as_json=as_json)
    return FAILED if fault else DONE


@verb()
@click.argument("folder", type=click.Path(path_type=Path))
def models_command(console: Console, folder: Path) -> None:
    """Copy a kit's models to where pophood looks for them.

    `setup.sh` runs it. Each file is checked by its hash, and a model becomes visible when it is whole. What
    the kit holds is noted on this machine, for `pophood kit check`.

    Example: pophood kit models .
    """
    from pophood import kit

    manifest = kit.manifest_of(folder)
    kit.place_models(folder, manifest, dialogue_of(console))
    kit.remember(manifest)
