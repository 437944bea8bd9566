"""Proves an export by reading it back: bytes and values of every tensor, tokenizer, and the model's output.

At f32, and if every tensor keeps its type, the engine must compute the same bits and greedy tokens from the
written file as from the original weights. For other types, next-token probabilities on a bundled text are
compared: the mean Kullback-Leibler divergence must stay below the bound of the type. A mismatch is an error,
and the export is deleted.
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
from pophood.export.types import Types
from pophood.formats import identify, open_gguf, open_safetensors
from pophood.model.bundle import Bundle, open_bundle
from pophood.model.engine import Engine, StoredWeights
from pophood.model.score import greedy

TOKENS = 256  # at most, of the passage
GREEDY = 64
PROMPT = 32
# Bounds of the mean KL divergence in nats per token, relative to the merged weights at f32. SmolLM2-135M,
# from a file of 4 bits, shows 5e-5 (bf16), 2e-6 (f16), 1e-3 (q8_0) and 0.33 (q4_0), larger models less. One
# wrong matrix gives several nats.
BOUNDS = {"f32": 0.0, "bf16": 0.01, "f16": 1e-3, "q8_0": 0.03, "q4_0": 0.6, "q4_1": 0.6}


@dataclass(frozen=True, slots=True)
class Reading:
    """An engine's results on the passage: `logits` [T, V], and a greedy continuation of its beginning."""

    logits: NDArray[np.float32]
    greedy: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """The figures of one comparison, for the receipt."""

    tensors: int  # number of tensors, all with the right bytes
    tokens: int
    bits_equal: bool  # of the logits
    largest_difference: float  # of a logit
    kl: float  # mean, nats per token
    bound: float
    same_top: float  # share of positions whose likeliest token is the same
    greedy: int  # tokens of the greedy continuation until the first difference
    greedy_of: int


def passage_ids(bundle: Bundle) -> list[int]:
    """Return the passage in a model's tokens, cut to its context."""
    ids = bundle.tokenizer.encode(PASSAGE)[: min(TOKENS, bundle.config.n_positions)]
    if any(id_ >= bundle.config.vocab_size for id_ in ids):
        raise BadInput(
            "the tokenizer has more tokens than the model has rows: the files do not belong together"
        )
    return ids


def read_through(
    config: ModelConfig, weights: StoredWeights, ids: list[int], threads: int | None = None
) -> Reading:
    """Load the weights into a new engine (f32 arithmetic) and run it on the passage."""
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
            raise _mismatch(path, f"the tensors {', '.join(odd[:4])} are missing or unexpected")
        for name, tensor in file.tensors.items():
            if hashlib.sha256(tensor.data.data).hexdigest() != digests[name]:
                raise _mismatch(path, f"the bytes of {name} are not those that were written")


def prove_values(written: Bundle, merged: Merged, kind: str) -> None:
    """Raise BadFile unless the config and (at f32, f16 and bf16) all canonical tensors are the original's."""
    odd = differences(merged.config, written.config)
    if odd:
        raise _mismatch(written.path, "; ".join(odd))
    for name in tensor_shapes(merged.config) if kind in ("f32", "f16", "bf16") else ():
        values = written.weights[name]
        stored = written.weights.stored_type(name).lower()
        if not np.array_equal(values, rounded(merged(name), stored, name)):
            raise _mismatch(written.path, f"the values of {name} differ")


def differences(original: ModelConfig, written: ModelConfig) -> list[str]:
    """Describe the differences of two architectures, except their names (GGUF calls Mistral llama)."""
    changes = [
        f"{field.name} {getattr(original, field.name)!r} became {getattr(written, field.name)!r}"
        for field in fields(original)
        if field.name not in ("architecture", "rope", "attention", "limit")
        and getattr(original, field.name) != getattr(written, field.name)
    ]
    ours, theirs = original.rotations(written.most_positions), written.rotations()
    if len(ours) != len(theirs):
        return changes
    if [block[0] for block in ours] != [block[0] for block in theirs]:
        changes.append("its blocks have other windows")
    elif ours != theirs:
        changes.append("its rotary positions have other frequencies")
    return changes


def prove_words(written: Bundle, original: Bundle, template: str | None) -> None:
    """Raise BadFile unless the written tokenizer has the original's ids, stops and chat template."""
    for text in (PASSAGE, AWKWARD):
        ours = [_ids(bundle, text) for bundle in (original, written)]
        if ours[0] != ours[1]:
            place = next((i for i, (a, b) in enumerate(zip(*ours, strict=False)) if a != b), "the end")
            raise _mismatch(written.path, f"the tokenizer gives other ids from token {place} of a text on")
    stops = [set(bundle.tokenizer.stops) for bundle in (original, written)]
    if not stops[0] <= stops[1]:
        raise _mismatch(written.path, f"the stop tokens {sorted(stops[0] - stops[1])} were lost")
    wanted = original.chat_template.source if template is None and original.chat_template else template
    source = written.chat_template.source if written.chat_template else None
    if (wanted or None) != source:
        raise _mismatch(written.path, "the chat template differs")


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
    """Read a written model back and compare it with the original; raises BadFile or EngineError.

    `path` is a folder or a .gguf file; `digests` are the hashes of the bytes that were written. At f32, and
    if nothing was rounded, the engine must compute the same bits.
    """
    weights = path / "model.safetensors" if path.is_dir() else path
    prove_bytes(weights, digests)
    written = open_bundle(path)
    prove_values(written, merged, types.label)
    prove_words(written, bundle, template)
    ids = passage_ids(bundle)
    expected = read_through(merged.config, merged, ids, threads)
    actual = read_through(written.config, written.weights, ids, threads)
    exact = types.label == "f32" or (bool(types.own) and not merged.adapters)
    proof = compare(expected, actual, len(digests), "f32" if exact else types.label)
    same = proof.bits_equal and proof.greedy == proof.greedy_of
    if (exact and not same) or not proof.kl <= proof.bound:
        raise EngineError(
            f"{path}: the written model differs from the original: KL {proof.kl:.3g} nats per token (bound"
            f" {proof.bound:g}), logits differ by up to {proof.largest_difference:.3g}, {proof.greedy} of"
            f" {proof.greedy_of} greedy tokens are equal: it was deleted"
        )
    return proof


def compare(expected: Reading, actual: Reading, tensors: int, kind: str) -> Proof:
    """Compare two readings of the same text."""
    rows = len(expected.logits)
    differences = [float(np.abs(a - b).max()) for a, b in zip(expected.logits, actual.logits, strict=True)]
    kl = [divergence(a, b) for a, b in zip(expected.logits, actual.logits, strict=True)]
    top = np.count_nonzero(expected.logits.argmax(axis=1) == actual.logits.argmax(axis=1))
    equal = [a == b for a, b in zip(expected.greedy, actual.greedy, strict=True)]
    return Proof(
        tensors=tensors,
        tokens=rows,
        bits_equal=np.array_equal(expected.logits, actual.logits),
        largest_difference=max(differences),
        kl=float(np.mean(kl)),
        bound=BOUNDS[kind],
        same_top=int(top) / rows,
        greedy=equal.index(False) if False in equal else len(equal),
        greedy_of=len(equal),
    )


def divergence(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Return the Kullback-Leibler divergence of softmax(actual) from softmax(expected) in nats, at least 0.

    >>> divergence(np.zeros(4, np.float32), np.zeros(4, np.float32))
    0.0
    """
    p, q = (_log_softmax(row.astype(np.float64)) for row in (expected, actual))
    return max(0.0, float(np.sum(np.exp(p) * (p - q))))


def _log_softmax(row: NDArray[np.float64]) -> NDArray[np.float64]:
    row = row - row.max()
    result: NDArray[np.float64] = row - np.log(np.exp(row).sum())
    return result


def _mismatch(path: Path, what: str) -> BadFile:
    return BadFile(f"{path}: read back, the export is wrong: {what}: it was deleted; export again")


# The texts on which an export is tried: prose, numbers, code and other scripts, written for this purpose.

PASSAGE = """\
The tide mill at the mouth of the river had stood idle for nineteen years when Marta bought it. She did not
know how to grind flour, and she said so to everyone who asked, which in a village of four hundred people
was everyone. What she knew was water: how it fills a pond twice a day, how much of it a gate can hold, and
what a wheel 3.6 metres wide does when 850 litres pass beneath it every second.

"You will need stones," the baker told her. "And patience."

She ordered the stones from the south and found the patience on her own. In the first winter the axle broke.
In the second, the sluice froze open and the pond emptied itself into the harbour overnight. By the third
she had a notebook full of small figures, and one line that she read aloud to visitors:

    def power(flow, height): return 1000 * 9.81 * flow * height  # in watts

On the morning the wheel first turned, the postman, the baker and both of the schoolteachers came down to
see it. Nobody spoke. The water went in, the stones began to hum, and a little grey flour fell into the
sack. "Das Brot wird gut," said the baker's mother, who was ninety-one: the bread will be good. It was not,
at first; but it was theirs, and by Easter it was better than what the lorry brought from the city on
Tuesdays.
"""
AWKWARD = "  Two  spaces,\ttab\n\n\n1234567 naïve café Ωμέγα 日本語 🙂 don't WE'LL <|im_end|> </s> x_y==z\r\n"
