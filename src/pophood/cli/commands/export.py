"""`pophood export MODEL --to PLACE`: write a model or an adapter for other programs, and verify it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.options.shared import json_option, offline_option, option, verb, with_scale
from pophood.cli.session import ask
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Transfer, Waiting
from pophood.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pophood.export.job import Receipt
    from pophood.model.bundle import Bundle


@verb()
@click.argument("model", required=False)
@option(
    "--to",
    "to",
    required=True,
    metavar="PLACE",
    section="Output",
    help="A new folder (Hugging Face's layout), or a file whose name ends in .gguf.",
)
@option(
    "--type",
    "kind",
    metavar="TYPE",
    section="Output",
    help="f32, f16 or bf16; in GGUF also q8_0, q4_0, q4_1 (default: what MODEL stores, f32 if quantised).",
)
@option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="DIR[:SCALE]",
    section="Model",
    help="Fold this adapter (a PEFT folder or a GGUF file) into the weights; may be repeated.",
)
@option("--peft", is_flag=True, section="Output", help="Write the adapter alone: a PEFT folder, or as GGUF.")
@option("--ollama", is_flag=True, section="Output", help="Write GGUF and a Modelfile for `ollama create`.")
@option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    section="Model",
    help="Threads of the proof (default: the physical cores this process may use).",
)
@json_option
@offline_option
def command(
    console: Console,
    model: str | None,
    to: str,
    kind: str | None,
    adapters: tuple[str, ...],
    peft: bool,
    ollama: bool,
    threads: int | None,
    as_json: bool,
    offline: bool | None,
) -> None:
    """Write a model for other programs, and prove it.

    What was written is read back: every tensor bit for bit, at f32 also the engine's logits and 64 greedy
    tokens; in the other types the divergence of its probabilities must stay below a bound. A receipt with
    hashes and figures lies beside it. MODEL may be the folder of an adapter, which names its base.

    Example: pophood export smollm2 --adapter notes-lora --to notes.gguf --type q8_0
    """
    from pophood import hub
    from pophood.model.bundle import open_bundle

    check(to, kind, peft=peft, ollama=ollama)
    if model is not None and (Path(model) / "adapter_config.json").is_file() and not adapters:
        adapters, model = (model,), base_of(model)
    refuse_input(to, adapters)
    with Transfer(console, model or "model") as transfer, named_by(adapters, model):
        found = hub.locate(
            model,
            offline=offline,
            announce=console.say,
            detail=console.detail,
            confirm=ask(console),
            progress=transfer,
        )
    bundle = open_bundle(found.path)
    for remark in bundle.remarks:
        console.say(remark)
    if peft:
        receipt = adapter_alone(bundle, adapters, to)
    else:
        receipt = whole_model(console, bundle, found.name, to, kind, adapters, ollama, threads)
    for note in receipt.notes:
        console.say(f"note: {note}")
    if as_json:
        console.json(receipt.as_json() | {"path": str(receipt.path)})
    else:
        console.out(said(receipt))


def check(to: str, kind: str | None, *, peft: bool, ollama: bool) -> None:
    """Raise UsageError or BadInput for an impossible export, before a model is downloaded or opened."""
    from pophood.export.staging import check_destination, is_file
    from pophood.export.types import check_type

    if peft and ollama:
        raise click.UsageError("--peft writes an adapter, --ollama a model: give one of them")
    if peft and kind is not None:
        raise click.UsageError("--peft writes an adapter in f32: leave out --type")
    if kind is not None:
        check_type(kind, gguf=ollama or is_file(to))
    check_destination(to)


def whole_model(
    console: Console,
    bundle: Bundle,
    name: str,
    to: str,
    kind: str | None,
    adapters: tuple[str, ...],
    ollama: bool,
    threads: int | None,
) -> Receipt:
    """Write a model with these adapters merged into it, and print the type of its tensors."""
    from pophood.config import tensor_shapes
    from pophood.export.job import export_model
    from pophood.export.types import types_of_base

    chosen, template = opened(adapters, bundle)
    label = kind or types_of_base(bundle.weights, tensor_shapes(bundle.config)).label
    console.say(f"{name}: writing {label}, then reading it back")
    with Waiting(console, f"writing {Path(to).name}") as waiting:
        return export_model(
            bundle, to, kind, chosen, template=template, ollama=ollama, threads=threads, progress=waiting
        )


def refuse_input(to: str, adapters: tuple[str, ...]) -> None:
    """Raise BadInput for an export that would replace an adapter that it reads."""
    for text in adapters:
        place = Path(with_scale(text)[0]).resolve()
        if Path(to).resolve() in (place, place.parent if place.is_file() else place):
            raise BadInput(f"{to}: is the adapter that is to be exported: name another place")


@contextmanager
def named_by(adapters: tuple[str, ...], model: str | None) -> Iterator[None]:
    """Add to a NotFound error that the missing model was named by the adapter's folder."""
    try:
        yield
    except NotFound as error:
        if adapters and model is not None and model != adapters[0]:
            raise NotFound(
                f"{error}. The adapter {adapters[0]} was made for it; another copy is named with"
                f" `pophood export MODEL --adapter {adapters[0]}`"
            ) from None
        raise


def base_of(folder: str) -> str:
    """Return the name of the base model that an adapter's folder records."""
    from pophood.adapters.peft import read_adapter

    name = read_adapter(folder).base.get("name")
    if not name:
        raise BadInput(
            f"{folder}: the adapter does not name its base: `pophood export MODEL --adapter {folder}` does"
        )
    return name


def opened(adapters: tuple[str, ...], bundle: Bundle) -> tuple[list[tuple[Any, float]], str | None]:
    """Return the adapters with their scales, and the chat template of the last adapter that has one."""
    from pophood.adapters.open import open_adapter, template_of

    places = [with_scale(text) for text in adapters]
    templates = [template for path, _ in places if (template := template_of(path)) is not None]
    chosen = [(open_adapter(path, bundle.config), scale) for path, scale in places]
    return chosen, templates[-1] if templates else None


def adapter_alone(bundle: Bundle, adapters: tuple[str, ...], to: str) -> Receipt:
    """Write one adapter unmerged and unscaled."""
    from pophood.export.job import export_adapter

    if len(adapters) != 1:
        raise BadInput(f"--peft writes one adapter, got {len(adapters)}: name it with --adapter DIR")
    if with_scale(adapters[0])[1] != 1.0:
        raise BadInput("--peft writes an adapter as it is: leave the scale out, and give it where it is used")
    chosen, template = opened(adapters, bundle)
    return export_adapter(bundle.config, chosen[0][0], to, template=template)


def said(receipt: Receipt) -> str:
    """Return the written files and the result of the verification as text."""
    size = sum(facts["bytes"] for facts in receipt.files.values())
    lines = [f"{receipt.path}: {receipt.made}, {receipt.format}, {receipt.type}, {size / 1e6:,.1f} MB"]
    proof = receipt.proof
    if proof is None:
        lines.append("proof: read back, every matrix changes as it was meant to")
    elif proof.bits_equal:
        lines.append(
            f"proof: {proof.tensors} tensors bit-equal; logits of {proof.tokens} tokens bit-equal;"
            f" {proof.greedy} of {proof.greedy_of} greedy tokens equal"
        )
    else:
        lines += [
            f"proof: {proof.tensors} tensors bit-equal to what was meant; against the weights at f32, over"
            f" {proof.tokens} tokens:",
            f"  divergence (KL) {proof.kl:.2g} nats per token, bound {proof.bound:g}; the same likeliest"
            f" token at {proof.same_top:.1%}; greedy text equal for {proof.greedy} of {proof.greedy_of}",
        ]
    return "\n".join(lines)
