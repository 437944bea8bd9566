"""What was written is read back: the bytes of every tensor, the values, the words, and what the model says.

At f32, and where every tensor keeps the type that it had, the engine on the written file must give the bits
of the engine on the weights that were meant, and the same greedy tokens. In the other types the written
model's next-token probabilities are compared with the meant ones on a bundled text: the mean Kullback-Leibler
divergence must stay below the bound of its type. A mismatch is an error, and the export is then not kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadFile, BadInput, EngineError
from pophood.export.hf.hf_folder import rounded
from pophood.export.merged import Merged
from pophood.export.proof_text import AWKWARD, PASSAGE
from pophood.export.types import Types
from pophood.formats import identify, open_gguf, open_safetensors
from pophood.model.bundle import Bundle, open_bundle
from pophood.model.engine import Engine, StoredWeights
from pophood.model.score import greedy

TOKENS = 256  # of the passage, at most
GREEDY = 64
PROMPT = 32
# Mean KL divergence in nats per token, against the merged weights at f32. SmolLM2-135M, whose file had 4 bits
# already, shows 5e-5 (bf16), 2e-6 (f16), 1e-3 and 0.33 (q4_0), larger models less; one wrong matrix gives
# whole nats.
BOUNDS = {"f32": 0.0, "bf16": 0.01, "f16": 1e-3, "q8_0": 0.03, "q4_0": 0.6, "q4_1": 0.6}


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine makes of the passage: `logits` [T, V], and its greedy continuation of the beginning."""

    logits: NDArray[np.float32]
    greedy: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """The figures of one comparison, for the receipt."""

    tensors: int  # whose bytes are those that were meant
    tokens: int
    bits_equal: bool  # of the logits
    largest_difference: float  # of a logit
    kl: float  # mean, nats per token
    bound: float
    same_top: float  # share of positions whose likeliest token is the same
    greedy: int  # tokens of the greedy continuation until the first difference
    greedy_of: int


def passage_ids(bundle: Bundle) -> list[int]:
    """The passage in a model's tokens, no longer than its context."""
    ids = bundle.tokenizer.encode(PASSAGE)[: min(TOKENS, bundle.config.n_positions)]
    if any(id_ >= bundle.config.vocab_size for id_ in ids):
        raise BadInput(
            "the tokenizer has more tokens than the model has rows: the files do not belong together"
        )
    return ids


def read_through(
    config: ModelConfig, weights: StoredWeights, ids: list[int], threads: int | None = None
) -> Reading:
    """Load the weights into an engine of its own (f32 arithmetic) and read the passage."""
    prompt = ids[: min(PROMPT, max(1, config.n_positions // 2))]
    steps = min(GREEDY, config.n_positions - len(prompt))
    context = min(config.n_positions, max(len(ids), len(prompt) + steps))
    engine = Engine(config, "f32", threads, context)
    engine.load(weights)
    with engine.sequence() as sequence:
        logits = engine.logits([(sequence, ids)], rows="all")
    return Reading(logits, tuple(tokens[0] for tokens in greedy(engine, [prompt], steps)))


def prove_bytes(path: Path, digests: Mapping[str, str]) -> None:
    """Raise BadFile unless the file holds exactly these tensors with these bytes (sha256)."""
    file = open_gguf(path) if identify(path) == "gguf" else open_safetensors(path)
    with file:
        if file.tensors.keys() != digests.keys():
            odd = sorted(file.tensors.keys() ^ digests.keys())
            raise _mismatch(path, f"the tensors {', '.join(odd[:4])} are missing or too many")
        for name, tensor in file.tensors.items():
            if hashlib.sha256(tensor.data.data).hexdigest() != digests[name]:
                raise _mismatch(path, f"the bytes of {name} are not those that were written")


def prove_values(written: Bundle, merged: Merged, kind: str) -> None:
    """Raise BadFile unless the config, and at f32, f16 and bf16 every canonical tensor, is the meant one."""
    odd = differences(merged.config, written.config)
    if odd:
        raise _mismatch(written.path, "; ".join(odd))
    for name in tensor_shapes(merged.config) if kind in ("f32", "f16", "bf16") else ():
        values = written.weights[name]
        stored = written.weights.stored_type(name).lower()
        if not np.array_equal(values, rounded(merged(name), stored, name)):
            raise _mismatch(written.path, f"the values of {name} are not those that were meant")


def differences(meant: ModelConfig, found: ModelConfig) -> list[str]:
    """What of an architecture was lost, in words; its name may change (GGUF calls Mistral llama)."""
    odd = [
        f"{field.name} {getattr(meant, field.name)!r} became {getattr(found, field.name)!r}"
        for field in fields(meant)
        if field.name not in ("architecture", "rope", "limit")
        and getattr(meant, field.name) != getattr(found, field.name)
    ]
    windows = [None if c.limit is None else c.limit.window for c in (meant, found)]
    if windows[0] != windows[1]:
        odd.append(f"the width of sliding attention {windows[0]} became {windows[1]}")
    turns = [None if c.rope is None else c.rope.frequencies(c.head_dim) for c in (meant, found)]
    if not np.array_equal(*turns):  # type: ignore[arg-type]
        odd.append("its rotary positions turn by other angles")
    return odd


def prove_words(written: Bundle, meant: Bundle, template: str | None) -> None:
    """Raise BadFile unless the written tokenizer makes the same ids, stops and chats of the meant one."""
    for text in (PASSAGE, AWKWARD):
        ours = [_ids(bundle, text) for bundle in (meant, written)]
        if ours[0] != ours[1]:
            place = next((i for i, (a, b) in enumerate(zip(*ours, strict=False)) if a != b), "the end")
            raise _mismatch(written.path, f"the tokenizer makes other ids, from token {place} of a text on")
    stops = [set(bundle.tokenizer.stops) for bundle in (meant, written)]
    if not stops[0] <= stops[1]:
        raise _mismatch(written.path, f"the stop tokens {sorted(stops[0] - stops[1])} were lost")
    wanted = meant.chat_template.source if template is None and meant.chat_template else template
    found = written.chat_template.source if written.chat_template else None
    if (wanted or None) != found:
        raise _mismatch(written.path, "the chat template is not the one that was meant")


def _ids(bundle: Bundle, text: str) -> list[int]:
    try:
        return bundle.tokenizer.encode(text)
    except BadInput:  # a small vocabulary may lack bytes of it
        return bundle.tokenizer.encode("".join(c for c in text if " " <= c < "\x7f"))


def prove_model(
    path: Path,
    types: Types,
    digests: Mapping[str, str],
    bundle: Bundle,
    merged: Merged,
    template: str | None = None,
    threads: int | None = None,
) -> Proof:
    """Read a written model back and compare it with what was meant; raises BadFile or EngineError.

    `path` is a folder or a .gguf file; `digests` are of its tensors' bytes as they were written. At f32, and
    where nothing was rounded, the engine must give the same bits.
    """
    weights = path / "model.safetensors" if path.is_dir() else path
    prove_bytes(weights, digests)
    written = open_bundle(path)
    prove_values(written, merged, types.label)
    prove_words(written, bundle, template)
    ids = passage_ids(bundle)
    meant = read_through(merged.config, merged, ids, threads)
    found = read_through(written.config, written.weights, ids, threads)
    exact = types.label == "f32" or (bool(types.own) and not merged.adapters)
    proof = compare(meant, found, len(digests), "f32" if exact else types.label)
    same = proof.bits_equal and proof.greedy == proof.greedy_of
    if (exact and not same) or not proof.kl <= proof.bound:
        raise EngineError(
            f"{path}: the written model is not the meant one: KL {proof.kl:.3g} nats per token (bound"
            f" {proof.bound:g}), logits differ by up to {proof.largest_difference:.3g}, {proof.greedy} of"
            f" {proof.greedy_of} greedy tokens equal: it was not kept"
        )
    return proof


def compare(meant: Reading, found: Reading, tensors: int, kind: str) -> Proof:
    """The figures of two readings of the same text."""
    rows = len(meant.logits)
    differences = [float(np.abs(a - b).max()) for a, b in zip(meant.logits, found.logits, strict=True)]
    kl = [divergence(a, b) for a, b in zip(meant.logits, found.logits, strict=True)]
    top = np.count_nonzero(meant.logits.argmax(axis=1) == found.logits.argmax(axis=1))
    equal = [a == b for a, b in zip(meant.greedy, found.greedy, strict=True)]
    return Proof(
        tensors=tensors,
        tokens=rows,
        bits_equal=np.array_equal(meant.logits, found.logits),
        largest_difference=max(differences),
        kl=float(np.mean(kl)),
        bound=BOUNDS[kind],
        same_top=int(top) / rows,
        greedy=equal.index(False) if False in equal else len(equal),
        greedy_of=len(equal),
    )


def divergence(meant: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Kullback-Leibler divergence of softmax(found) from softmax(meant), in nats, never below 0.

    >>> divergence(np.zeros(4, np.float32), np.zeros(4, np.float32))
    0.0
    """
    p, q = (_log_softmax(row.astype(np.float64)) for row in (meant, found))
    return max(0.0, float(np.sum(np.exp(p) * (p - q))))


def _log_softmax(row: NDArray[np.float64]) -> NDArray[np.float64]:
    row = row - row.max()
    result: NDArray[np.float64] = row - np.log(np.exp(row).sum())
    return result


def _mismatch(path: Path, what: str) -> BadFile:
    return BadFile(f"{path}: read back, it is not what was meant: {what}: it was not kept; export it again")
