"""`pophood export MODEL --to PLACE`: writes a model or an adapter for other programs, and verifies it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.options.shared import (
    adapter_option,
    json_option,
    offline_option,
    output_option,
    threads_option,
    verb,
)
from pophood.cli.session import locate
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pophood.export.job import Receipt
    from pophood.model.bundle import Bundle

Places = tuple[tuple[str, float], ...]  # of adapters, each with its scale


@verb()
@click.argument("model", required=False)
@output_option(
    "--to",
    required=True,
    metavar="PLACE",
    help="A new folder (in Hugging Face's layout), or a file whose name ends in .gguf.",
)
@output_option(
    "--type",
    "kind",
    metavar="TYPE",
    help="f32, f16 or bf16; in GGUF also q8_0, q4_0, q4_1 (default: that of MODEL, f32 if quantised).",
)
@adapter_option("Merge this adapter (a PEFT folder or a GGUF file) into the weights; repeatable.")
@output_option("--peft", is_flag=True, help="Write only the adapter, as a PEFT folder or a GGUF file.")
@output_option("--ollama", is_flag=True, help="Write GGUF and a Modelfile for `ollama create`.")
@threads_option
@json_option
@offline_option
def export_command(
    console: Console,
    model: str | None,
    to: str,
    kind: str | None,
    adapters: Places,
    peft: bool,
    ollama: bool,
    threads: int | None,
    as_json: bool,
    offline: bool | None,
) -> None:
    """Export a model for other programs, and verify the result.

    The written files are read back and compared with the original: every tensor bit for bit; at f32 also the
    logits and 64 greedy tokens; for other types, the divergence of the predictions must stay below a bound. A
    receipt with hashes and figures is written beside them. MODEL may also be an adapter's folder, which names
    its base model.

    Example: pophood export smollm2 --adapter notes-lora --to notes.gguf --type q8_0
    """
    from pophood.config import tensor_shapes
    from pophood.export.job import export_adapter, export_model
    from pophood.export.types import types_of_base
    from pophood.model.bundle import open_bundle

    check(to, kind, peft=peft, ollama=ollama)
    if model is not None and (Path(model) / "adapter_config.json").is_file() and not adapters:
        adapters, model = ((model, 1.0),), base_of(model)
    check_adapters(to, adapters, alone=peft)
    try:
        located = locate(console, model, offline=offline)
    except NotFound as error:
        if not adapters or model in (None, adapters[0][0]):
            raise
        raise NotFound(
            f"{error}. The adapter {adapters[0][0]} was made for it; to use another copy, run"
            f" `pophood export MODEL --adapter {adapters[0][0]}`"
        ) from None
    bundle = open_bundle(located.path)
    for remark in bundle.remarks:
        console.say(remark)
    chosen, template = open_adapters(adapters, bundle)
    if peft:
        receipt = export_adapter(bundle.config, chosen[0][0], to, template=template)
    else:
        label = kind or types_of_base(bundle.weights, tensor_shapes(bundle.config)).label
        console.say(f"{located.name}: writing {label}, then reading it back")
        with Waiting(console, f"writing {Path(to).name}") as waiting:
            receipt = export_model(
                bundle, to, kind, chosen, template=template, ollama=ollama, threads=threads, progress=waiting
            )
    for note in receipt.notes:
        console.say(f"note: {note}")
    console.result(receipt.as_json() | {"path": str(receipt.path)}, summary(receipt), as_json=as_json)


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


def check_adapters(to: str, adapters: Places, *, alone: bool) -> None:
    """Raise BadInput if the export would replace an adapter that it reads.

    `alone` says that an adapter is exported by itself: there must be exactly one, without a scale.
    """
    for text, _ in adapters:
        place = Path(text).resolve()
        if Path(to).resolve() in (place, place.parent if place.is_file() else place):
            raise BadInput(f"{to}: is the adapter that is to be exported: name another place")
    if alone and len(adapters) != 1:
        raise BadInput(f"--peft writes one adapter, got {len(adapters)}: name it with --adapter DIR")
    if alone and adapters[0][1] != 1.0:
        raise BadInput("--peft writes an adapter as it is: leave the scale out, and give it where it is used")


def base_of(folder: str) -> str:
    """Return the name of the base model that an adapter's folder records."""
    from pophood.adapters import peft

    name = peft.base_of(folder)
    if not name:
        raise BadInput(
            f"{folder}: the adapter does not name its base model: run"
            f" `pophood export MODEL --adapter {folder}`"
        )
    return name


def open_adapters(adapters: Places, bundle: Bundle) -> tuple[list[tuple[Any, float]], str | None]:
    """Return the adapters with their scales, and the chat template of the last adapter that has one."""
    from pophood.adapters.open import open_adapter, template_of

    templates = [template for path, _ in adapters if (template := template_of(path)) is not None]
    chosen = [(open_adapter(path, bundle.config), scale) for path, scale in adapters]
    return chosen, templates[-1] if templates else None


def summary(receipt: Receipt) -> str:
    """Return text about the written files and the result of their verification."""
    size = sum(facts["bytes"] for facts in receipt.files.values())
    lines = [f"{receipt.path}: {receipt.made}, {receipt.format}, {receipt.type}, {size / 1e6:,.1f} MB"]
    proof = receipt.proof
    if proof is None:
        lines.append("proof: read back, every matrix changes as it should")
    elif proof.bits_equal:
        lines.append(
            f"proof: {proof.tensors} tensors bit-equal; logits of {proof.tokens} tokens bit-equal;"
            f" {proof.greedy} of {proof.greedy_of} greedy tokens equal"
        )
    else:
        lines += [
            f"proof: {proof.tensors} tensors bit-equal to what was written; against the weights at f32, over"
            f" {proof.tokens} tokens:",
            f"  divergence (KL) {proof.kl:.2g} nats per token, bound {proof.bound:g}; the same likeliest"
            f" token at {proof.same_top:.1%}; greedy text equal for {proof.greedy} of {proof.greedy_of}",
        ]
    return "\n".join(lines)
