"""Training from scratch: sizes of models, a vocabulary trained on the data, and random initial weights.

The vocabulary is a byte-level BPE like GPT-2's (Sennrich et al. 2016; Radford et al. 2019), trained by the
tokenizers library. No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig, Rope, tensor_shapes
from pophood.errors import BadInput
from pophood.families import config_from_hf
from pophood.system import atomic_write
from pophood.table import Table
from pophood.text.hf.bpe import library_errors
from pophood.text.load import load_text_folder
from pophood.text.tokenizer import Tokenizer
from pophood.train.data.read.files import DataFile, find_files
from pophood.train.data.read.layouts import WrongRecord, items_of
from pophood.train.data.read.lines import read_lines, read_segments
from pophood.train.settings import DataOptions

END = "<|endoftext|>"
LEAST_VOCABULARY = 257  # every byte, and the end token
MOST_READ = 512 << 20  # characters, from the start of the data, that the vocabulary is trained on


def _gpt2(n_layer: int, n_head: int, n_embd: int, n_positions: int, vocab_size: int) -> ModelConfig:
    sizes = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "n_positions": n_positions}
    return config_from_hf({"model_type": "gpt2", "vocab_size": vocab_size, **sizes})


def _llama(n_layer: int, n_head: int, n_kv_head: int, n_embd: int, n_inner: int, vocab: int) -> ModelConfig:
    return replace(
        _gpt2(n_layer, n_head, n_embd, 512, vocab),
        architecture="llama",
        n_kv_head=n_kv_head,
        n_inner=n_inner,
        norm="rms",
        activation="silu",
        gated_mlp=True,
        rope=Rope(),
        qkv_bias=False,
        attn_out_bias=False,
        mlp_bias=False,
    )


# Name -> config. The vocabulary is the largest number of tokens; a short text gives fewer.
SIZES: dict[str, ModelConfig] = {
    "gpt2-nano": _gpt2(3, 3, 48, 128, 512),
    "gpt2-tiny": _gpt2(4, 4, 128, 256, 2048),
    "gpt2-mini": _gpt2(6, 6, 384, 256, 4096),
    "gpt2-small": _gpt2(12, 12, 768, 1024, 16_384),
    "llama-tiny": _llama(4, 4, 2, 128, 352, 2048),
    "llama-mini": _llama(6, 6, 2, 384, 1024, 4096),
}


def scratch_config(size: str, vocab_size: int | None = None) -> ModelConfig:
    """Return the config of a size, with this vocabulary: `scratch_config("gpt2-tiny", 300).n_layer == 4`."""
    if size not in SIZES:
        raise BadInput(f"no size is called {size!r}; wanted one of {', '.join(SIZES)}")
    return SIZES[size] if vocab_size is None else replace(SIZES[size], vocab_size=vocab_size)


def scratch_rate(config: ModelConfig) -> float:
    """Return the peak learning rate of a model from scratch, which falls with its parameters.

    0.003239 - 0.0001395 ln N, N without the embeddings (Kaplan et al. 2020, equation D.1), to two digits.

    >>> scratch_rate(SIZES["gpt2-tiny"]), scratch_rate(SIZES["gpt2-small"])
    (0.0013, 0.00069)
    """
    embeddings = sum(math.prod(s) for name, s in tensor_shapes(config).items() if name.startswith("embed."))
    return float(f"{0.003239 - 0.0001395 * math.log(config.n_params - embeddings):.2g}")


def sizes_table() -> Table:
    """Return the sizes as a table; parameters and learning rate are those of the largest vocabulary."""
    columns = ("size", "blocks", "heads", "features", "positions", "vocabulary", "parameters", "rate")
    rows = tuple(
        (name, c.n_layer, c.n_head, c.n_embd, c.n_positions, c.vocab_size, c.n_params, scratch_rate(c))
        for name, c in SIZES.items()
    )
    return Table(columns, rows, decimals={"rate": 5})


def train_tokenizer(
    paths: Sequence[str | PathLike[str]],
    folder: Path,
    vocab_size: int,
    options: DataOptions | None = None,
) -> Tokenizer:
    """Train a byte-level BPE on the data, write tokenizer.json and its settings, and read them back.

    The vocabulary holds the 256 bytes, merges in order, and finally `<|endoftext|>`. It ends early when no
    further merge occurs twice in the text. Raises BadInput for too small a vocabulary.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as LibraryTokenizer

    if vocab_size < LEAST_VOCABULARY:
        raise BadInput(f"a vocabulary has at least {LEAST_VOCABULARY} tokens, got {vocab_size}")
    files = find_files([Path(path) for path in paths], options or DataOptions()).files
    with library_errors(BadInput, "the tokenizer cannot be trained on this data"):
        library = LibraryTokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        library.train_from_iterator(_limited(_texts(files, options or DataOptions())), trainer)
        library.add_special_tokens([AddedToken(END, special=True)])
        document = library.to_str(pretty=True)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    settings = {"tokenizer_class": "GPT2Tokenizer", **ends, "add_prefix_space": False}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "tokenizer.json", document.encode())
    atomic_write(folder / "tokenizer_config.json", json.dumps(settings, indent=2).encode())
    return load_text_folder(folder).tokenizer


def initial_weights(config: ModelConfig, seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield canonical names and random weights, initialized like GPT-2 (Radford et al. 2019).

    The standard deviation is 0.02, divided by the root of 2 L for the two matrices of a block that write to
    the residual stream. Gains are one and biases zero.
    """
    for number, (name, shape) in enumerate(tensor_shapes(config).items()):
        if len(shape) == 1:
            fill = 0.0 if name.endswith(".bias") else 1.0
            yield name, np.full(shape, fill, np.float32)
            continue
        random = np.random.Generator(np.random.PCG64([seed, number]))
        writes = name.endswith(("attn.out.weight", "mlp.down.weight"))
        deviation = 0.02 / math.sqrt(2 * config.n_layer) if writes else 0.02
        yield name, random.standard_normal(shape, np.float32) * np.float32(deviation)


def _texts(files: Sequence[DataFile], options: DataOptions) -> Iterator[str]:
    """Yield the texts of all readable documents, without what a template would write around them."""
    for file in files:
        if file.container == "text":
            yield from (segment.text for segment in read_segments(file.path) if segment.why is None)
        elif file.container == "lines":
            yield from (line.text for line in read_lines(file.path) if line.why is None)
        else:
            for raw in file.records():
                yield from _texts_of(raw.value, file.layout, options) if raw.why is None else ()


def _texts_of(value: Any, layout: str, options: DataOptions) -> Iterator[str]:
    try:
        items = items_of(value, layout, options.columns)
    except WrongRecord:
        return
    for item in items:
        if item.text is not None:
            yield item.text
        yield from (m["content"] for m in item.messages if isinstance(m.get("content"), str))


def _limited(texts: Iterator[str]) -> Iterator[str]:
    total = 0
    for text in texts:
        yield text
        total += len(text)
        if total > MOST_READ:
            return
