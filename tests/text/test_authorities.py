"""Many strings against each authority: tiktoken, the tokenizers library, transformers, llama.cpp."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadInput, Unsupported
from pophood.formats import open_gguf
from pophood.text.gguf.pretokenizers import CUT_BY_NAME, CUTS, ELSEWHERE
from pophood.text.hf.hf_tokenizers import NEVER_IN_UTF8
from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import Tokenizer
from pophood.text.vocabulary import byte_characters
from tests.text.texts import (
    NEWER_SIGNS,
    NEWER_THAN_LLAMA_CPP,
    all_codes,
    batches,
    cut_strings,
    strings,
)
from tests.text.vocabularies import (
    LlamaCpp,
    byte_level_metadata,
    library_tokenizer,
    pairs_metadata,
    pieces_metadata,
    write_gguf,
)
from tests.tiny_vocabulary import MERGES


@pytest.fixture(params=[40_000, pytest.param(200_000, marks=pytest.mark.full)])
def n_strings(request: pytest.FixtureRequest) -> int:
    """Strings for each kind of authority, in all its vocabularies together."""
    count: int = request.param
    return count


def first_difference(
    texts: Iterable[str], ours: Callable[[str], list[int]], theirs: Callable[[Sequence[str]], list[list[int]]]
) -> tuple[int, str, list[int], list[int]] | None:
    """Return (which, text, our ids, their ids) for the first text that differs, or None if all agree."""
    seen = 0
    for batch in batches(iter(texts)):
        for text, expected in zip(batch, theirs(batch), strict=True):
            found = ours(text)
            if found != expected:
                return seen, text, found, expected
            seen += 1
    assert seen > 0
    return None


def each(encode: Callable[[str], list[int]]) -> Callable[[Sequence[str]], list[list[int]]]:
    return lambda batch: [encode(text) for text in batch]


# tiktoken ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Load GPT-2's tokenizer from OpenAI's vocab.bpe alone."""
    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copy(MERGES, folder / "vocab.bpe")
    return load_text_folder(folder).tokenizer


@pytest.fixture(scope="module")
def tiktoken_gpt2(gpt2: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build tiktoken's encoding from the bytes and merges of vocab.bpe, read here without pophood."""
    tiktoken = pytest.importorskip("tiktoken", reason="needs Python package: tiktoken")
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    printed = [byte for byte, character in enumerate(byte_characters()) if ord(character) == byte]
    order = [*printed, *(byte for byte in range(256) if byte not in printed)]
    ranks = {bytes([byte]): rank for rank, byte in enumerate(order)}
    for line in MERGES.read_text(encoding="utf-8").splitlines()[1:]:
        ranks[bytes(byte_of[character] for character in line.replace(" ", ""))] = len(ranks)
    return tiktoken.Encoding(
        name="gpt2-from-vocab.bpe",
        explicit_n_vocab=50_257,
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50_256},
    )


def test_gpt2_is_tiktoken(gpt2: Tokenizer, tiktoken_gpt2: Any, n_strings: int) -> None:
    def theirs(batch: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tiktoken_gpt2.encode_ordinary_batch(list(batch), num_threads=2)
        return ids

    assert first_difference(strings(n_strings, seed=1), gpt2.encode, theirs) is None


def test_gpt2_special_tokens_are_tiktokens(gpt2: Tokenizer, tiktoken_gpt2: Any) -> None:
    text = "one<|endoftext|> two <|endoftext|>"
    assert gpt2.encode(text, parse_special=True) == tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.encode(text) == tiktoken_gpt2.encode(text, disallowed_special=())


def test_vocab_bpe_gives_the_vocabulary_of_encoder_json(gpt2: Tokenizer) -> None:
    """OpenAI's rule, applied to vocab.bpe, gives its encoder.json, which has the sha256 below."""
    from pophood.text.hf.folder import _merge_lines, _vocab_of_merges
    from pophood.text.hf.tokenizer_json import read_merges

    vocab = _vocab_of_merges(read_merges(_merge_lines(MERGES)))
    text = json.dumps(vocab).encode()
    assert hashlib.sha256(text).hexdigest().startswith("196139668be63f3b5d6574427317ae82")
    assert gpt2.vocab_size == 50_257


def test_every_way_to_gpt2_gives_the_same_ids(gpt2: Tokenizer, tmp_path: Path) -> None:
    from transformers import GPT2Tokenizer

    from pophood.text.hf.folder import _merge_lines, _vocab_of_merges
    from pophood.text.hf.tokenizer_json import read_merges

    vocab = json.dumps(_vocab_of_merges(read_merges(_merge_lines(MERGES))))
    for name, files in (("openai", ("encoder.json", "vocab.bpe")), ("hub", ("vocab.json", "merges.txt"))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / files[0]).write_text(vocab, encoding="utf-8")
        shutil.copy(MERGES, folder / files[1])
    reference = GPT2Tokenizer.from_pretrained(tmp_path / "hub")
    reference.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    texts = list(strings(4_000, seed=2))
    expected = reference(texts, split_special_tokens=True)["input_ids"]
    for name in ("openai", "hub", "saved"):
        tokenizer = load_text_folder(tmp_path / name).tokenizer
        assert [tokenizer.encode(text) for text in texts] == expected, name
        assert tokenizer.specials == {50_256: "<|endoftext|>"}, name
        assert 50_256 in tokenizer.stops and tokenizer.start_ids == (), name


# tokenizers --------------------------------------------------------------------------------------------


def llama2_like() -> Any:
    """Build a tokenizer of the library like Llama 2's: spaces as U+2581, bytes for unknown characters."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    metadata = pieces_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {token: id_ for id_, token in enumerate(tokens)}
    order = sorted(
        (
            token
            for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
            if kind == 1
        ),
        key=lambda token: -metadata["tokenizer.ggml.scores"][ids[token]],
    )
    merges = [
        (token[:cut], token[cut:])
        for token in order
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return tokenizer


def qwen_like() -> Any:
    from tokenizers import normalizers

    tokenizer = library_tokenizer("qwen2")
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


LIBRARY = {
    "gpt-2": lambda: library_tokenizer("gpt-2"),
    "smollm": lambda: library_tokenizer("smollm"),
    "llama-3": lambda: library_tokenizer("llama-bpe", ignore_merges=True),
    "qwen2": qwen_like,
    "llama-2": llama2_like,
}


@pytest.mark.parametrize("kind", LIBRARY)
def test_tokenizer_json_is_the_library(kind: str, tmp_path: Path, n_strings: int) -> None:
    reference = LIBRARY[kind]()
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = load_text_folder(tmp_path).tokenizer
    for parse_special, count in ((False, n_strings // len(LIBRARY)), (True, 4_000)):
        reference.encode_special_tokens = not parse_special

        def theirs(batch: Sequence[str]) -> list[list[int]]:
            return [one.ids for one in reference.encode_batch_fast(list(batch), add_special_tokens=False)]

        def encode(text: str, parse_special: bool = parse_special) -> list[int]:
            return ours.encode(text, parse_special=parse_special)

        assert first_difference(strings(count, seed=3), encode, theirs) is None
    for text in strings(500, seed=4):
        ids = ours.encode(text)
        assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True)


def test_long_texts_take_the_same_way(tmp_path: Path) -> None:
    """From 20,000 characters on, another call of the library is used."""
    reference = library_tokenizer("qwen2")
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = load_text_folder(tmp_path).tokenizer
    text = "".join(strings(3_000, seed=5))
    assert len(text) > 20_000
    reference.encode_special_tokens = True
    assert ours.encode(text) == reference.encode(text, add_special_tokens=False).ids


# llama.cpp ---------------------------------------------------------------------------------------------


def same_as_llama_cpp(
    ours: Tokenizer, path: Path, count: int, seed: int, codes: Any = None, parse_special: bool = False
) -> None:
    reference = LlamaCpp(path)
    try:
        difference = first_difference(
            strings(count, seed, NEWER_THAN_LLAMA_CPP, codes),
            lambda text: ours.encode(text, add_start=False, parse_special=parse_special),
            each(lambda text: reference.encode(text, parse_special=parse_special)),
        )
        assert difference is None
        assert ours.encode("Hello there") == reference.encode("Hello there", add_start=True)
    finally:
        reference.close()


def test_smollm2_is_llama_cpp(smollm2: Path, n_strings: int) -> None:
    with open_gguf(smollm2) as file:
        ours = load_text_gguf(file.metadata).tokenizer
    # Its vocabulary has no token for some bytes; llama.cpp drops them from the text, pophood refuses it.
    tokens = set(file.metadata["tokenizer.ggml.tokens"])  # type: ignore[call-overload]
    lost = {byte for byte, character in enumerate(byte_characters()) if character not in tokens}
    controls = {byte for byte in lost if byte < 0x80}
    assert lost - controls - NEVER_IN_UTF8 == {0xF1, 0xF2}  # lead bytes of planes 4 to 11, which are empty
    codes = all_codes(
        (*NEWER_THAN_LLAMA_CPP, (0x40000, 0xBFFFF), *((byte, byte) for byte in sorted(controls)))
    )
    same_as_llama_cpp(ours, smollm2, n_strings * 3 // 20, seed=6, codes=codes)
    same_as_llama_cpp(ours, smollm2, 2_000, seed=7, codes=codes, parse_special=True)
    for text in ("a\x04b", "\U00040000"):
        with pytest.raises(BadInput, match=r"no token for the byte 0x(04|F1)"):
            ours.encode(text)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_gguf_is_llama_cpp(pre: str, tmp_path: Path, n_strings: int) -> None:
    metadata = byte_level_metadata(pre)
    path = write_gguf(tmp_path / "vocabulary.gguf", metadata)
    ours = load_text_gguf(metadata).tokenizer
    same_as_llama_cpp(ours, path, n_strings * 3 // 20, seed=8)
    same_as_llama_cpp(ours, path, 2_000, seed=9, parse_special=True)


@pytest.mark.parametrize(
    ("count", "random_count"),
    [(120, 30), pytest.param(14_000, 6_000, marks=pytest.mark.full)],
    ids=["few", "20000"],
)
@pytest.mark.parametrize("pre", [*(cut.names[0] for cut in CUTS), None, ""])
def test_every_way_to_cut_words_is_llama_cpps(
    pre: str | None, count: int, random_count: int, tmp_path: Path
) -> None:
    """The vocabulary gives other ids for every other split; None and "" mean llama.cpp's default."""
    metadata = pairs_metadata(pre)
    ours, reference = load_text_gguf(metadata).tokenizer, LlamaCpp(write_gguf(tmp_path / "v.gguf", metadata))
    try:
        for texts in (
            cut_strings(count, seed=10),
            strings(random_count, 11, NEWER_THAN_LLAMA_CPP + NEWER_SIGNS),
        ):
            for text in texts:
                assert ours.encode(text, add_start=False) == reference.encode(text), text
        assert ours.encode("Hi there") == reference.encode("Hi there", add_start=True)
    finally:
        reference.close()


def test_names_of_one_group_are_one_cut(tmp_path: Path) -> None:
    """A name in the table that llama.cpp does not know could not be opened there."""
    texts = list(cut_strings(12, seed=12))
    metadata = byte_level_metadata("qwen2")
    for name in CUT_BY_NAME:
        given = metadata | {"tokenizer.ggml.pre": name}
        ours, reference = load_text_gguf(given).tokenizer, LlamaCpp(write_gguf(tmp_path / "v.gguf", given))
        for text in texts:
            assert ours.encode(text) == reference.encode(text, add_start=True), name
        reference.close()


@pytest.mark.parametrize("pre", sorted(ELSEWHERE))
def test_names_that_are_refused_are_known_to_llama_cpp(pre: str, tmp_path: Path) -> None:
    given = byte_level_metadata("qwen2") | {"tokenizer.ggml.pre": pre}
    with pytest.raises(Unsupported, match=f"'{pre}'"):
        load_text_gguf(given)
    if pre not in ("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"):  # another byte alphabet
        LlamaCpp(write_gguf(tmp_path / "v.gguf", given)).close()


def test_a_name_that_nobody_knows_is_the_default_and_said(tmp_path: Path) -> None:
    """llama.cpp refuses such a file; programs that patch it warn and use its default."""
    metadata = pairs_metadata("qwen9")
    with pytest.raises(ValueError, match="Failed to load"):
        LlamaCpp(write_gguf(tmp_path / "v.gguf", metadata))
    ours = load_text_gguf(metadata).tokenizer
    assert [("'qwen9'" in note, "default way" in note) for note in ours.notes] == [(True, True)]
    reference = LlamaCpp(write_gguf(tmp_path / "default.gguf", pairs_metadata("default")))
    for text in cut_strings(300, seed=13):
        assert ours.encode(text, add_start=False) == reference.encode(text), text
    reference.close()
    assert load_text_gguf(pairs_metadata("default")).tokenizer.notes == ()


@pytest.mark.parametrize("add_space", [True, False])
def test_sentencepiece_gguf_is_llama_cpp(add_space: bool, tmp_path: Path, n_strings: int) -> None:
    metadata = pieces_metadata(**{"tokenizer.ggml.add_space_prefix": add_space})
    path = write_gguf(tmp_path / "vocabulary.gguf", metadata)
    ours = load_text_gguf(metadata).tokenizer
    same_as_llama_cpp(ours, path, n_strings // 8, seed=11)
    same_as_llama_cpp(ours, path, 2_000, seed=12, parse_special=True)


@pytest.mark.parametrize("seed", range(6))
def test_scores_in_any_order_merge_as_llama_cpp_merges(seed: int, tmp_path: Path) -> None:
    """Vocabularies that no trainer would make: random scores, many equal, merges that enable better ones."""
    import random

    rng = random.Random(seed)
    words = sorted({"".join(rng.choices("abc▁", k=rng.randint(1, 6))) for _ in range(150)} | set("abc▁"))
    base = pieces_metadata()
    size = 259
    metadata = base | {
        "tokenizer.ggml.tokens": base["tokenizer.ggml.tokens"][:size] + words,
        "tokenizer.ggml.token_type": base["tokenizer.ggml.token_type"][:size] + [1] * len(words),
        "tokenizer.ggml.scores": [0.0] * size + [float(-rng.randint(0, 12)) for _ in words],
    }
    path = write_gguf(tmp_path / "vocabulary.gguf", metadata)
    ours, reference = load_text_gguf(metadata).tokenizer, LlamaCpp(path)
    for _ in range(400):
        text = "".join(rng.choices("abc d", k=rng.randint(1, 60)))
        assert ours.encode(text, add_start=False) == reference.encode(text), text
    reference.close()


def test_the_authorities_would_see_a_difference(tmp_path: Path) -> None:
    """The comparison can fail: a vocabulary with the wrong pre-tokenizer is noticed at once."""
    metadata = byte_level_metadata("qwen2")
    path = write_gguf(tmp_path / "vocabulary.gguf", metadata)
    wrong = load_text_gguf(metadata | {"tokenizer.ggml.pre": "smollm"}).tokenizer
    with pytest.raises(AssertionError):
        same_as_llama_cpp(wrong, path, 400, seed=8)
