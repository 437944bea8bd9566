"""Parses the names that a user may type for a model: a short name or a hub id. No disk, no network.

Everything that later becomes part of a path is checked here, so no name can lead out of a folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pophood.errors import BadInput
from pophood.formats.parts import one_of_each
from pophood.hub.known_models import CATALOGUE

# The hub's own rules: letters, digits, - _ .; no "--" or ".."; neither end is "-" or "."; 96 at most.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_PART}/{_PART}")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,119}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # devices, not files, on Windows
SMOLLM2 = "smollm2"


@dataclass(frozen=True, slots=True)
class ModelName:
    """A checked name. `repo` is None for a model that is known only by its path in a model folder."""

    text: str  # the shortest spelling
    repo: str | None = None
    file: str | None = None  # a .gguf file of the repo; the first part of a split model

    @property
    def places(self) -> tuple[str, ...]:
        """The paths below a model folder where the model may be; `pull` writes to the first."""
        if self.repo is None:
            return (self.text,)
        if self.file is not None:
            stem = self.file.rsplit("/", 1)[-1].removesuffix(".gguf")
            return (f"{self.repo}+{stem}", f"{self.repo}/{self.file}")
        return tuple(dict.fromkeys((self.repo, self.text)))

    @property
    def key(self) -> str:
        """The first place as one part of a path, for lock files and unfinished downloads."""
        return self.places[0].replace("/", "--")


def parse_name(text: str) -> ModelName:
    """Check a typed name; BadInput, with similar names, for a text that is not a model's name.

    >>> parse_name("gpt2").repo
    'openai-community/gpt2'
    >>> parse_name("owner/name:file.gguf").file
    'file.gguf'
    """
    if text in CATALOGUE:  # a packaged model is one fixed file, not the hub's repo of that title
        return ModelName(text, None if CATALOGUE[text].packaged else CATALOGUE[text].repo)
    repo, _, file = text.partition(":")
    if is_repo(repo) and (not file or is_repo_file(file)):
        if file and not file.endswith(".gguf"):
            raise BadInput(f"{text}: wanted a .gguf after the colon, as in owner/name:model-Q8_0.gguf")
        if ":" in text and not file:
            raise BadInput(f"{text}: nothing follows the colon; wanted a .gguf file of the repo")
        file = one_of_each([file])[0]
        text = f"{repo}:{file}" if file else repo
        for known in CATALOGUE.values():
            if known.repo == repo and not file and not known.packaged:
                return ModelName(known.name, repo)
        return ModelName(text, repo, file or None)
    parts = text.split("/")
    if 1 <= len(parts) <= 3 and all(is_plain(part) for part in parts):
        return ModelName(text)
    raise BadInput(f"{text[:100]!r} is not a model's name: {advice(text)}")


_ADDRESS = re.compile(
    r"(?:https?://|hf://)?(?:www\.)?(?:huggingface\.co/|hf\.co/|(?<=hf://))(?:models/)?"
    r"(?P<repo>[^/:?#]+/[^/:?#]+)(?:/(?:resolve|blob|raw)/[^/]+/(?P<file>[^?#]+)|:(?P<tag>.*))?.*"
)


def name_in(text: str) -> str | None:
    """Return the name of the model at an address on the hub, or None.

    >>> name_in("https://huggingface.co/owner/name/resolve/main/m.gguf?download=true")
    'owner/name:m.gguf'
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not is_repo(match["repo"]):
        return None
    file = match["file"] or match["tag"] or ""
    return f"{match['repo']}:{file}" if file.endswith(".gguf") else match["repo"]


def advice(text: str) -> str:
    """Suggest what to type instead, similar names first."""
    import difflib

    name = name_in(text)
    if name is not None:
        return f"wanted the name in this address: {name}"
    near = difflib.get_close_matches(text.lower(), CATALOGUE, n=2, cutoff=0.6)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}wanted one of {', '.join(CATALOGUE)}, a hub id owner/name, a folder, or a .gguf file"


def is_repo(text: str) -> bool:
    """Return whether a text is a hub id owner/name."""
    if len(text) > 96 or not _REPO.fullmatch(text) or "--" in text or ".." in text or text.endswith(".git"):
        return False
    return not any(_RESERVED.fullmatch(part) for part in text.split("/"))


def is_plain(part: str) -> bool:
    """Return whether one part of a path is a safe file or folder name on every operating system."""
    return bool(_PLAIN.fullmatch(part)) and part[-1] not in ". " and not _RESERVED.fullmatch(part)


def is_repo_file(path: str) -> bool:
    """Return whether a file's path inside a repo is safe as a path below a local folder."""
    return len(path) <= 300 and all(is_plain(part) for part in path.split("/"))


def check_revision(text: str) -> str:
    """Return a branch, tag or commit if it is safe in an address; BadInput otherwise."""
    if not _REVISION.fullmatch(text) or ".." in text or "//" in text or text.endswith(("/", ".lock")):
        raise BadInput(
            f"{text[:100]!r} is not a revision: wanted a branch, tag or commit, as in --revision main"
        )
    return text
