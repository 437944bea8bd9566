"""One export from beginning to end: written to a hidden folder, proved, given a receipt, moved into place.

A receipt lists the files (sha256, bytes), their source, and the results of the proof. Nothing in it depends
on the time, so the same export writes the same receipt.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pophood.adapters.adapter import Adapter
from pophood.adapters.gguf_adapter import read_adapter_gguf
from pophood.adapters.peft import read_adapter
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadFile, BadInput
from pophood.export.adapter_writers import write_adapter, write_adapter_gguf
from pophood.export.gguf.gguf_model import write_model
from pophood.export.hf.hf_folder import write_folder
from pophood.export.merged import Merged, source_weights
from pophood.export.ollama import modelfile
from pophood.export.proof import Proof, prove_bytes, prove_model
from pophood.export.staging import is_file, receipt_of, staged
from pophood.export.types import chosen
from pophood.model.bundle import Bundle
from pophood.system import atomic_write

Progress = Callable[[int, int], object]
Adapters = Sequence[tuple[Adapter, float]]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of an export: `path` is the folder or file, `files` maps names to {"bytes", "sha256"}."""

    path: Path
    made: str  # "model" or "adapter"
    format: str  # "safetensors", "gguf" or "peft"
    type: str
    source: str
    adapters: list[dict[str, Any]]
    parameters: int
    files: dict[str, dict[str, Any]]
    proof: Proof | None  # None for an adapter: its tensors were compared bit for bit
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the content of receipt.json, which does not include the path."""
        document = asdict(self)
        del document["path"]
        versions = {
            "pophood": version("pophood"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
        return document | {"versions": versions}


def export_model(
    bundle: Bundle,
    to: str | Path,
    kind: str | None = None,
    adapters: Adapters = (),
    *,
    template: str | None = None,
    ollama: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Write a model with adapters merged in, and prove it: a .gguf file, or a Hugging Face folder.

    `kind` is f32, f16, bf16, and in GGUF also q8_0, q4_0 or q4_1; None keeps the type of each tensor in the
    model's own file, with quantised ones as f32. `template` replaces the chat template. `ollama` adds a
    Modelfile; a folder then holds a GGUF file. Raises BadInput and Unsupported, BadFile and EngineError if
    the proof fails, and PophoodError for a full disk. After an error nothing is left behind, and an older
    export stays in place.

    Example: `export_model(open_bundle("gpt2"), "gpt2-q8.gguf", "q8_0").proof.kl`.
    """
    to, as_file = Path(to), is_file(to)
    merged = Merged(bundle.config, bundle.weights, adapters)
    types = chosen(kind, bundle.weights, tensor_shapes(bundle.config), gguf=as_file or ollama)
    source = source_weights(bundle).resolve()
    if to.exists() and (to.resolve() == source or to.resolve() in source.parents):
        raise BadInput(f"{to}: holds the model to export: name another place")
    with staged(to) as folder:
        notes: list[str] = []
        if as_file or ollama:
            path = folder / (to.name if as_file else f"{to.name}.gguf")
            digests, notes = write_model(bundle, merged, path, types, template, progress)
            if ollama:
                text, more = modelfile(bundle, path.name, template)
                atomic_write(folder / (f"{to.stem}.Modelfile" if as_file else "Modelfile"), text.encode())
                notes += more
        else:
            path = folder
            digests, notes = write_folder(bundle, merged, folder, types, template, progress)
        return _receipt(
            to,
            folder,
            made="model",
            format="gguf" if as_file or ollama else "safetensors",
            type=types.label,
            source=bundle.name,
            adapters=adapters,
            parameters=bundle.config.n_params,
            proof=prove_model(path, types, digests, bundle, merged, template, threads),
            notes=notes,
        )


def export_adapter(
    config: ModelConfig, adapter: Adapter, to: str | Path, *, template: str | None = None
) -> Receipt:
    """Write only an adapter and read it back: as llama.cpp's GGUF file, or as a PEFT folder.

    Raises what `export_model` raises.
    """
    to, as_file = Path(to), is_file(to)
    with staged(to) as folder:
        notes: list[str] = []
        if as_file:
            prove_bytes(folder / to.name, write_adapter_gguf(folder / to.name, adapter, config))
            back = read_adapter_gguf(folder / to.name, config)
            if template is not None:
                notes.append(
                    "an adapter's GGUF file cannot hold a chat template: pass it to llama.cpp yourself"
                )
        else:
            write_adapter(folder, adapter, config, template)
            back = read_adapter(folder, config)
        if largest := _largest_difference(adapter, back, to):
            notes.append(
                f"read back, the largest relative difference of a matrix is {largest:.1e} (rounding)"
            )
        return _receipt(
            to,
            folder,
            made="adapter",
            format="gguf" if as_file else "peft",
            type="f32",
            source=adapter.base.get("name", ""),
            adapters=[(adapter, 1.0)],
            parameters=adapter.n_params,
            proof=None,
            notes=notes,
        )


def _largest_difference(original: Adapter, written: Adapter, to: Path) -> float:
    """Return the largest relative difference of a matrix's change; BadFile if it exceeds float32 rounding."""
    zero = {target for target, (_, b) in original.targets.items() if not b.any()}
    if zero != original.targets.keys() and original.targets.keys() - zero != written.targets.keys() - zero:
        raise BadFile(f"{to}: read back, the adapter changes other matrices than the original")
    largest = 0.0
    for target, (a, b) in written.targets.items():
        original_a, original_b = original.targets.get(target, (a, np.zeros_like(b)))
        ours, theirs = (
            scale * (right.astype(np.float64) @ left)
            for scale, left, right in ((original.scale, original_a, original_b), (written.scale, a, b))
        )
        size = np.abs(ours).max(initial=0.0)
        difference = float(np.abs(ours - theirs).max(initial=0.0) / size) if size else 0.0
        if not difference < 1e-6:
            raise BadFile(
                f"{to}: read back, the change of {target} differs: the export was deleted; export again"
            )
        largest = max(largest, difference)
    return largest


def _receipt(to: Path, folder: Path, *, adapters: Adapters, **results: Any) -> Receipt:
    """Return the receipt of what is in the hidden folder, and write it there."""
    used = [
        {
            "name": adapter.name,
            "scale": scale,
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "matrices": len(adapter.targets),
        }
        for adapter, scale in adapters
    ]
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.name] = {"bytes": path.stat().st_size, "sha256": digest}
    receipt = Receipt(path=to.absolute(), adapters=used, files=files, **results)
    document = json.dumps(receipt.as_json(), indent=2, ensure_ascii=False)
    atomic_write(folder / receipt_of(to).name, f"{document}\n".encode())
    return receipt


def __getattr__(name: str) -> Any:
    """Return `open_adapter` from its old module, with a DeprecationWarning; it goes in 0.3."""
    if name != "open_adapter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    from pophood.adapters.open import open_adapter

    warnings.warn(
        "pophood.export.job.open_adapter is now in pophood.adapters.open", DeprecationWarning, stacklevel=2
    )
    return open_adapter
