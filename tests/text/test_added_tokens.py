"""Files beside a vocabulary, as transformers 5.23 reads them: added and special tokens, starts, classes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, Unsupported
from pophood.hub.net.listing import SMALL_FILES
from pophood.text.load import load_text_folder
from pophood.text.tokenizer import Tokenizer
from tests.text.test_authorities import llama2_like
from tests.text.test_tokenizer import start_with
from tests.text.vocabularies import folder_of, library_tokenizer
from tests.tiny_vocabulary import byte_symbols, vocabulary

TEXTS = (
    "a<tool>b",
    "<|im_end|> x",
    " <tool>  <mask> y",
    "<|endoftext|>",
    "the hello 1234 don't WE'LL \u00e9x e\u0301x",
    "",
)
SIZE = 800  # tokens of vocab.json
Files = dict[str, Any]


def pair_files(folder: Path, **files: Any) -> Path:
    """Write vocab.json and merges.txt with 800 tokens, and JSON files named by keyword."""
    folder.mkdir(exist_ok=True)
    words = vocabulary("gpt2", SIZE)
    (folder / "vocab.json").write_text(json.dumps(words.ids, ensure_ascii=False), encoding="utf-8")
    merges = "\n".join(("#version: 0.2", *words.merges)) + "\n"
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def transformers_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    logging.getLogger("transformers").setLevel(logging.ERROR)
    return AutoTokenizer.from_pretrained(folder)


def same(ours: Tokenizer, theirs: Any) -> None:
    for text in TEXTS:
        # theirs parses special tokens wherever they are typed, and puts an end after a text where asked
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, parse_special=True, add_start=False) == expected, text
    start = (
        []
        if theirs.encode("Hi") == theirs.encode("Hi", add_special_tokens=False)
        else theirs.encode("Hi")[:1]
    )
    assert list(ours.start_ids) == [id_ for id_ in start if id_ == theirs.bos_token_id]


GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
QWEN = {"tokenizer_class": "Qwen2Tokenizer"}
QWEN_MODEL = {"model_type": "qwen2"}
ADDED = {"<tool>": SIZE, "<|im_end|>": SIZE + 1}
ROWS = {"model_type": "gpt2", "vocab_size": 1_000}
MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
ALIKE: dict[str, Files] = {
    "nothing": {},
    "added tokens": {"added_tokens": ADDED, "tokenizer_config": GPT2},
    "added tokens of Qwen": {"added_tokens": ADDED, "tokenizer_config": QWEN, "config": QWEN_MODEL},
    "one that the normalizer changes": {
        "added_tokens": {"e\u0301x": SIZE}, "tokenizer_config": QWEN, "config": QWEN_MODEL
    },
    "a special one": {"added_tokens": ADDED, "special_tokens_map": {"eos_token": "<|im_end|>"}},
    "a special one in the settings": {"added_tokens": ADDED, "tokenizer_config": {"pad_token": "<tool>"}},
    "one that the vocabulary has": {"added_tokens": {"he": vocabulary("gpt2", SIZE).ids["he"]}},
    "in the newer file": {
        "tokenizer_config": {"added_tokens_decoder": {str(SIZE): {"content": "<tool>", "special": False}}}
    },
    "the newer file counts": {
        "added_tokens": ADDED,
        "tokenizer_config": GPT2 | {"added_tokens_decoder": {str(SIZE): {"content": "<q>", "special": True}}},
    },
    "an empty newer file counts": {
        "added_tokens": ADDED,
        "special_tokens_map": {"eos_token": "<tool>"},
        "tokenizer_config": GPT2 | {"added_tokens_decoder": {}},
    },
    "a mask that takes the space before it": {"special_tokens_map": {"mask_token": MASK}},
    "named and in no vocabulary": {"special_tokens_map": {"eos_token": "<|im_end|>", "pad_token": "<tool>"}},
    "the map before the settings": {
        "special_tokens_map": {"eos_token": "<|im_end|>"},
        "tokenizer_config": GPT2 | {"eos_token": "<tool>"},
    },
    "several, listed": {"tokenizer_config": GPT2 | {"extra_special_tokens": ["<tool>", "<mask>"]}},
    "a space before the text": {"tokenizer_config": GPT2 | {"add_prefix_space": True}},
    "a start token": {"tokenizer_config": GPT2 | {"add_bos_token": True}},
    "a start token by name": {
        "tokenizer_config": GPT2 | {"add_bos_token": True, "bos_token": "<|im_end|>"},
        "added_tokens": ADDED,
    },
    "no start token": {"tokenizer_config": GPT2 | {"add_bos_token": False, "bos_token": "<|endoftext|>"}},
    "an end token": {"tokenizer_config": GPT2 | {"add_eos_token": True}},
    "a start token of Qwen without a name": {"tokenizer_config": QWEN | {"add_bos_token": True}},
    "a start token of Qwen": {
        "tokenizer_config": QWEN | {"add_bos_token": True, "bos_token": "<|endoftext|>"}
    },
    "the class by the model": {"config": {"model_type": "qwen3", "vocab_size": 1_000}},
    "another class than the model's": {"config": {"model_type": "qwen2"}, "tokenizer_config": GPT2},
    "the fast class": {"tokenizer_config": {"tokenizer_class": "GPT2TokenizerFast"}, "added_tokens": ADDED},
}  # fmt: skip


@pytest.mark.parametrize("kind", ALIKE)
def test_vocab_and_merges_are_read_as_transformers_reads_them(kind: str, tmp_path: Path) -> None:
    folder = pair_files(tmp_path, **({"config": ROWS} | ALIKE[kind]))
    same(load_text_folder(folder).tokenizer, transformers_tokenizer(folder))


def test_qwen35_cuts_as_its_class(tmp_path: Path) -> None:
    """AutoTokenizer of 5.23 cannot read the pair of files for it, but its class can."""
    from transformers.models.qwen3_5 import Qwen3_5Tokenizer

    folder = pair_files(tmp_path, config={"model_type": "qwen3_5_text"})
    words = vocabulary("gpt2", SIZE)
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in words.merges)]
    theirs = Qwen3_5Tokenizer(vocab=words.ids, merges=pairs)
    ours = load_text_folder(folder).tokenizer
    for text in (*TEXTS, "e\u0301le\u0301 12", "\u0915\u094d\u0937 x"):
        assert ours.encode(text, parse_special=True) == theirs.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("kind", ["added tokens", "a special one", "named and in no vocabulary"])
def test_they_count_beside_tokenizer_json_too(kind: str, tmp_path: Path) -> None:
    files = {stem: content for stem, content in ALIKE[kind].items() if stem != "tokenizer_config"}
    reference = library_tokenizer("gpt-2")
    size = reference.get_vocab_size()
    if "added_tokens" in files:
        files["added_tokens"] = {"<tool>": size, "<new>": size + 1}
    config = {"model_type": "gpt2", "vocab_size": size + 8}
    folder = folder_of(tmp_path, reference, config=config, **files)
    ours, theirs = load_text_folder(folder).tokenizer, transformers_tokenizer(folder)
    same(ours, theirs)
    assert ours.encode("x<new>y", parse_special=True) == theirs.encode("x<new>y")


def test_special_ones_are_hidden_and_others_shown(tmp_path: Path) -> None:
    folder = pair_files(tmp_path, **ALIKE["a special one"])
    tokenizer = load_text_folder(folder).tokenizer
    assert tokenizer.specials[SIZE + 1] == "<|im_end|>" and SIZE not in tokenizer.specials
    assert SIZE + 1 in tokenizer.stops
    assert tokenizer.decode(tokenizer.encode("a<tool>b<|im_end|>", parse_special=True)) == "a<tool>b"
    assert SIZE + 1 not in tokenizer.encode("a<|im_end|>") and SIZE in tokenizer.encode("a<tool>")


def test_the_ids_are_the_files_own(tmp_path: Path) -> None:
    """transformers 5.23 numbers them consecutively, but the rows of the model follow the ids in the files."""
    folder = pair_files(tmp_path, added_tokens={"<tool>": 900, "<|im_end|>": 850})
    tokenizer = load_text_folder(folder).tokenizer
    assert (tokenizer.id_of("<tool>"), tokenizer.id_of("<|im_end|>")) == (900, 850)
    assert tokenizer.encode("a<tool>")[-1] == 900


def test_a_named_token_without_a_row_is_none(tmp_path: Path) -> None:
    files = {"special_tokens_map": {"pad_token": "[PAD]"}}
    full = pair_files(tmp_path, config={"model_type": "gpt2", "vocab_size": SIZE}, **files)
    assert load_text_folder(full).tokenizer.vocab_size == SIZE
    wider = pair_files(tmp_path, config={"model_type": "gpt2", "vocab_size": SIZE + 1}, **files)
    assert load_text_folder(wider).tokenizer.specials[SIZE] == "[PAD]"


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ({"<tool>": "800"}, "'<tool>' the id '800'"),
        ({"<tool>": -1}, "'<tool>' the id '-1'"),
        ({"<tool>": 800.0}, "the id '800.0'"),
        ({"": 800}, "'' the id"),
        ({"<a>": 800, "<b>": 800}, "the id 800 to two tokens"),
        ({"he": 7}, "'he' has id 7"),
        ({"<a>": 5}, "have id 5"),
        (["<a>"], "holds list, not an object"),
        ({"<a>": 2**40}, "ids from"),
    ],
)
def test_broken_added_tokens_are_refused_by_name(added: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=words):
        load_text_folder(pair_files(tmp_path, added_tokens=added))


@pytest.mark.parametrize(
    "files",
    [
        {"config": {"model_type": "llama"}},
        {"tokenizer_config": {"tokenizer_class": "LlamaTokenizer"}},
        {"tokenizer_config": {"tokenizer_class": "TokenizersBackend"}, "config": {"model_type": "mistral"}},
        {"config": {"model_type": "mistral", "tokenizer_class": "CodeGenTokenizer"}},
    ],
)
def test_a_class_whose_cut_is_unknown_is_refused_by_name(files: Files, tmp_path: Path) -> None:
    """Guessing GPT-2's pattern for a folder that names no class would give wrong ids."""
    with pytest.raises(Unsupported, match=r"(llama|Llama|TokenizersBackend|CodeGen).* is in tokenizer\.json"):
        load_text_folder(pair_files(tmp_path, **files))


# Start tokens ------------------------------------------------------------------------------------------

CLASSES = (
    *(("PreTrainedTokenizerFast", "llama"), ("TokenizersBackend", "llama"), ("GPT2Tokenizer", "gpt2")),
    *(("Qwen2Tokenizer", "qwen2"), ("LlamaTokenizer", "llama"), ("LlamaTokenizerFast", "mistral")),
    *((None, "llama"), (None, "qwen3"), ("CohereTokenizer", "cohere"), ("GemmaTokenizer", "gemma")),
)


@pytest.mark.parametrize("spaces", [False, True], ids=["bytes", "spaces"])
@pytest.mark.parametrize(("name", "model"), CLASSES)
def test_the_post_processor_says_how_texts_begin(
    name: str | None, model: str, spaces: bool, tmp_path: Path
) -> None:
    """With a tokenizer.json, add_bos_token and add_eos_token of tokenizer_config.json do not count."""
    start = "<s>" if spaces else "<|im_start|>"
    for place, (processor, flags) in enumerate(
        (processor, flags)
        for processor in (False, True)
        for flags in ({}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True})
    ):
        reference = llama2_like() if spaces else library_tokenizer("llama-bpe")
        reference = start_with(start, reference) if processor else reference
        config = {"bos_token": start, "eos_token": "<|im_end|>", **flags}
        config |= {} if name is None else {"tokenizer_class": name}
        folder = folder_of(
            tmp_path / str(place), reference, tokenizer_config=config, config={"model_type": model}
        )
        ours = load_text_folder(folder).tokenizer
        begins = transformers_tokenizer(folder).encode("Hi")
        assert ours.start_ids == ((reference.token_to_id(start),) if processor else ())
        assert (begins[0] == reference.token_to_id(start)) == processor
        assert begins[-1] != reference.token_to_id("<|im_end|>")
        disagree = flags.get("add_bos_token", processor) != processor
        assert [("add_bos_token" in note, "tokenizer.json counts" in note) for note in ours.notes] == (
            [(True, True)] if disagree else []
        )


def test_a_wanted_start_token_that_is_none_is_said(tmp_path: Path) -> None:
    tokenizer = load_text_folder(
        pair_files(tmp_path, tokenizer_config=QWEN | {"add_bos_token": True})
    ).tokenizer
    assert tokenizer.start_ids == () and ["begin without one" in note for note in tokenizer.notes] == [True]


# Files that are fetched --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_FILES)
def test_every_file_that_is_fetched_is_opened(name: str, tmp_path: Path) -> None:
    """A file on the hub's list that is never read would be fetched in vain, and its content ignored."""
    from pophood.text.chat.chat_template import load_template_folder

    pair = (
        {"encoder.json", "vocab.bpe"}
        if name in ("encoder.json", "vocab.bpe")
        else {"vocab.json", "merges.txt"}
    )
    folder = pair_files(tmp_path) if "vocab.json" in pair else tmp_path
    if "vocab.bpe" in pair:
        symbols = {symbol: id_ for id_, symbol in enumerate(byte_symbols())}
        (folder / "encoder.json").write_text(json.dumps(symbols), encoding="utf-8")
        (folder / "vocab.bpe").write_text("#version: 0.2\n", encoding="utf-8")
    load_text_folder(folder)
    (folder / name).write_bytes(b"\xff{")
    with pytest.raises(BadFile, match=name):
        load_text_folder(folder)
        load_template_folder(folder, {})
