"""TextStream: whole characters only, and in total exactly the text of `decode`."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from pophood.text.load import load_text_folder, load_text_gguf
from pophood.text.tokenizer import TextStream, Tokenizer
from tests.text.texts import strings
from tests.text.vocabularies import byte_level_metadata, pieces_metadata
from tests.tiny_vocabulary import MERGES


def tokenizers(folder: Path) -> dict[str, Tokenizer]:
    shutil.copy(MERGES, folder / "vocab.bpe")
    return {
        "gpt2": load_text_folder(folder).tokenizer,
        "qwen2": load_text_gguf(byte_level_metadata("qwen2")).tokenizer,
        "pieces": load_text_gguf(pieces_metadata()).tokenizer,
    }


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "pieces"])
@pytest.mark.parametrize("special", [False, True])
def test_pushed_text_is_the_decoded_text(kind: str, special: bool, tmp_path: Path) -> None:
    tokenizer = tokenizers(tmp_path)[kind]
    rng = random.Random(kind)
    sequences = [tokenizer.encode(text) for text in strings(600, seed=30)]
    # Random ids: incomplete characters, special tokens, ids beyond the vocabulary.
    sequences += [rng.choices(range(tokenizer.vocab_size + 3), k=rng.randint(0, 30)) for _ in range(300)]
    short = [id_ for id_ in range(tokenizer.vocab_size) if len(tokenizer.token_bytes(id_)) == 1]
    sequences += [rng.choices([*short, *tokenizer.specials], k=rng.randint(1, 40)) for _ in range(600)]
    for ids in sequences:
        stream, shown = TextStream(tokenizer, special), ""
        whole = tokenizer.decode(ids, special=special)
        for id_ in ids:
            shown += stream.push(id_)
            assert whole.startswith(shown)  # text that was shown never changes
        assert shown + stream.flush() == whole


def test_a_character_of_several_tokens_is_shown_once(tmp_path: Path) -> None:
    gpt2 = tokenizers(tmp_path)["gpt2"]
    stream = TextStream(gpt2)
    assert [stream.push(id_) for id_ in gpt2.encode("a😀b")] == ["a", "", "😀", "b"]
    assert stream.flush() == ""
    assert stream.push(gpt2.encode("😀")[0]) == "" and stream.flush() == "\ufffd" and stream.flush() == ""


def test_an_id_without_a_token_is_no_start() -> None:
    tokenizer = load_text_gguf(pieces_metadata()).tokenizer
    ids = [tokenizer.vocab_size, *tokenizer.encode("the", add_start=False)]
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, ids)) == tokenizer.decode(ids) == "the"


def test_a_continuation_keeps_its_first_space() -> None:
    tokenizer = load_text_gguf(pieces_metadata()).tokenizer
    ids = tokenizer.encode("the", add_start=False)
    assert tokenizer.decode(ids) == "the"
    for continues, text in ((False, "the"), (True, " the")):
        stream = TextStream(tokenizer, continues=continues)
        assert "".join(map(stream.push, ids)) + stream.flush() == text
