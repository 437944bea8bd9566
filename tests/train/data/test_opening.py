"""open_data: the split and its leak check, warnings, and the preview before the first step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate
from pophood.train.data import Examples, previews
from pophood.train.data.dataset.dataset import mixed, split_documents
from pophood.train.data.dataset.store import DOCUMENT
from tests.train.data.samples import (
    SHAKESPEARE,
    TASKS,
    byte_level,
    gpt2,
    opened,
    sentence_pieces,
    write_lines,
)


def texts_of(side: Examples) -> set[str]:
    return {byte_level().decode(example.ids.tolist()) for example in side}


# The split ----------------------------------------------------------------------------------------------


def rows_of(groups: list[int], sizes: list[int]) -> Any:
    rows = np.zeros(len(groups), DOCUMENT)
    rows["group"], rows["end"] = groups, sizes
    return rows


@settings(deadline=None, max_examples=200)
@given(
    documents=st.lists(st.tuples(st.integers(0, 30), st.integers(2, 500)), min_size=1, max_size=60),
    share=st.sampled_from([0.05, 0.1, 0.3, 1, 5, 1000]),
    seed=st.integers(0, 5),
)
def test_equal_documents_are_never_on_both_sides(
    documents: list[tuple[int, int]], share: float, seed: int
) -> None:
    groups = [group for group, _ in documents]
    held = split_documents(rows_of(groups, [size for _, size in documents]), share, seed)
    assert {g for g, h in zip(groups, held, strict=True) if h}.isdisjoint(
        g for g, h in zip(groups, held, strict=True) if not h
    )
    distinct = len(set(groups))
    assert held.any() == (distinct > 1)  # at least one if there are two
    assert not held.all()
    if share >= 1 and distinct > 1 and len(groups) == distinct:
        assert held.sum() == min(share, distinct - 1)


def test_the_share_is_kept_and_the_seed_decides() -> None:
    sizes = np.random.default_rng(0).integers(10, 400, 20_000)
    rows = rows_of(list(range(20_000)), sizes.tolist())
    held = split_documents(rows, 0.1, 0)
    assert sizes[held].sum() / sizes.sum() == pytest.approx(0.1, abs=0.002)
    other = split_documents(rows, 0.1, 1)
    assert 0.05 < (held & other).sum() / held.sum() < 0.16  # as chance has it
    assert np.array_equal(held, split_documents(rows, 0.1, 0))
    assert not split_documents(rows, 0, 0).any()


def test_a_large_document_does_not_validate_by_chance() -> None:
    for seed in range(20):
        held = split_documents(rows_of([1, 2, 3], [1_000_000, 500, 600]), 0.1, seed)
        assert not held[0] and held.any()


@pytest.mark.parametrize("sizes", [[10, 10], [10, 10, 10], [1, 500], [7, 400, 3], [5] * 1001])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.99, 0.999999, 1, 2, 3, 5000])
def test_something_is_left_to_train_on(sizes: list[int], share: float) -> None:
    """For any share, two groups or more leave at least one on each side."""
    for seed in range(8):
        held = split_documents(rows_of(list(range(len(sizes))), sizes), share, seed)
        assert held.any() and not held.all()
        if share >= 0.9 and len(set(sizes)) == 1:
            wanted = share if share >= 1 else share * len(sizes)
            assert held.sum() == min(math.ceil(wanted), len(sizes) - 1)


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("share", [0.1, 5])
def test_a_prompt_with_many_answers_does_not_validate_by_chance(few: bool, share: float) -> None:
    """If one prompt has nine tenths of the documents, the others validate."""
    others = 50 if few else 2000
    groups = [0] * (9 * others) + list(range(1, others + 1))
    for seed in range(20):
        held = split_documents(rows_of(groups, [10] * len(groups)), share, seed)
        assert not held[0]
        assert held.sum() == (5 if share == 5 else others)


def test_hashes_are_turned_as_published() -> None:
    """The first outputs of SplitMix64 for the state 1234567 are those of its authors' code."""
    state = np.array([1234567], np.uint64)
    assert mixed(state, 0)[0] == 6457827717110365317
    assert mixed(state, 1)[0] == 3203168211198807973


def test_twenty_of_the_seed_tasks_are_held_out(tmp_path: Path) -> None:
    data = opened(TASKS, cache=tmp_path, validation=20)
    assert (len(data.train), len(data.validation)) == (155, 20)
    again = opened(TASKS, cache=tmp_path, validation=20, seed=1)
    assert {e.source for e in data.validation} != {e.source for e in again.validation}


def test_the_end_of_a_single_text_validates(tmp_path: Path) -> None:
    data = opened(SHAKESPEARE, cache=tmp_path)
    (train,), (validation,) = data.train, data.validation
    text = byte_level().decode([*train.ids.tolist(), *validation.ids.tolist()])
    assert text == SHAKESPEARE.read_text(encoding="utf-8")
    assert byte_level().decode(train.ids.tolist()).endswith("\n\n")
    assert 0.08 < len(validation.ids) / (len(train.ids) + len(validation.ids)) < 0.15
    assert "validation: the last 10% of the only document" in data.report.notes
    assert data.report.trained_tokens == len(train.ids) - 1


def test_files_of_their_own_validate(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "a.jsonl", [{"text": f"document {i}"} for i in range(30)])
    held = write_lines(tmp_path / "b.jsonl", [{"text": "DOCUMENT  3"}, {"text": "another"}])
    data = opened(train, validation_paths=(held,))
    assert texts_of(data.validation) == {"DOCUMENT  3", "another"}
    assert "document 3" not in texts_of(data.train) and len(data.train) == 29
    assert data.report.overlap == 1
    assert any("in the validation files, too: left out" in warning for warning in data.report.warnings)


def test_the_same_file_cannot_do_both(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": f"document {i}"} for i in range(30)])
    with pytest.raises(BadInput, match="all 30 documents are in the validation files, too: use other"):
        opened(path, validation_paths=(path,))


def test_nothing_validates_if_so_wanted(tmp_path: Path) -> None:
    data = opened(TASKS, cache=tmp_path, validation=0)
    assert len(data.validation) == 0 and len(data.train) == 175
    assert any("there is no validation data" in warning for warning in data.report.warnings)


# Warnings -----------------------------------------------------------------------------------------------


def warned(data: Any, words: str) -> bool:
    return any(words in warning for warning in data.report.warnings)


def test_few_lines_work_and_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one line\n", encoding="utf-8")
    data = opened(path)
    assert len(data.train) == 1
    assert warned(data, "only 1 lines or documents (fewer than 20): the model will learn them by heart")
    assert not warned(opened(SHAKESPEARE, cache=tmp_path / "k"), "by heart")
    few = write_lines(tmp_path / "a.jsonl", [{"text": f"t{i}"} for i in range(19)])
    enough = write_lines(tmp_path / "b.jsonl", [{"text": f"t{i}"} for i in range(20)])
    assert warned(opened(few), "only 19") and not warned(opened(enough), "by heart")
    assert len(opened(few).validation) >= 1


def test_repetitions_are_counted(tmp_path: Path) -> None:
    records = [{"text": text} for text in ("a b", "A  b\n", "c", "a b", *map(str, range(20)))]
    data = opened(write_lines(tmp_path / "a.jsonl", records), validation=0.5)
    assert data.report.duplicates == 2
    assert warned(data, "2 documents (8.3%) repeat another one")
    sides = [
        {text.lower().replace(" ", "").strip() for text in texts_of(s)} for s in (data.train, data.validation)
    ]
    assert not sides[0] & sides[1]


def test_cuts_are_counted_and_their_ends_missed(tmp_path: Path) -> None:
    long = {"prompt": "p", "completion": "many words " * 40}
    silent = {"prompt": "many words " * 40, "completion": "c"}
    short = {"prompt": "p", "completion": "c"}
    data = opened(write_lines(tmp_path / "a.jsonl", [long, silent, *[short] * 18]), validation=0, length=40)
    report = data.report
    cut = [example.cut for example in data.train]
    assert report.truncated == 2 and cut[0] > 0 and cut[1] > 0 and not any(cut[2:])
    assert report.tokens_cut == sum(cut)
    assert warned(
        data, f"2 of 20 documents (10.0%) are longer than 40 positions: {sum(cut):,} tokens at their ends"
    )
    assert warned(data, "1 document is cut before the part that is learned")
    end = byte_level().id_of("<|im_end|>")
    assert end not in data.train[0].ids[data.train[0].trained]
    assert len(data.train[0].ids) == 41
    from pophood.train.data import IGNORED, PackedSampler

    targets = PackedSampler(data.train, 64, 40, 0).batch(0, 0).targets
    assert np.count_nonzero(targets != IGNORED) == report.trained_tokens
    whole = opened(tmp_path / "a.jsonl", validation=0, length=40, long="split")
    assert whole.report.truncated == 0 and whole.report.split == 2
    assert whole.report.trained_tokens > report.trained_tokens


def test_exactly_as_long_as_a_row_is_not_cut(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "some words here"}])
    needed = int(np.flatnonzero(opened(path, validation=0).train[0].trained)[-1])
    assert opened(path, validation=0, length=needed).report.truncated == 0
    assert opened(path, validation=0, length=needed - 1).report.truncated == 1


def test_ends_and_starts_are_watched(tmp_path: Path) -> None:
    records = [{"prompt": "p", "completion": f"c{i}"} for i in range(20)]
    path = write_lines(tmp_path / "a.jsonl", records)
    endless = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    data = opened(path, template=endless)
    assert warned(data, "in 20 conversations the chat template writes no end token after the last answer")
    doubled = ChatTemplate(
        "{{ bos_token * 2 }}{{ messages[0].content }} {{ messages[1].content }}</s>", "<s>", "</s>"
    )
    found = opened(path, template=doubled, tokenizer=sentence_pieces())
    assert warned(found, "20 documents begin with two start tokens")
    assert not warned(opened(path), "start tokens") and not warned(opened(path), "end token")
    spelled = write_lines(
        tmp_path / "b.jsonl", [{"text": "<|im_end|> " * 2}, *({"text": str(i)} for i in range(20))]
    )
    assert warned(opened(spelled), "1 document spells out special tokens such as '<|im_end|>'")
    assert not warned(opened(spelled, special=True), "spell out")


def test_text_has_no_completions(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is plain text, which has no completions"):
        opened(SHAKESPEARE, cache=tmp_path, completions_only=True)


def test_only_a_base_model_needs_a_template_to_travel(tmp_path: Path) -> None:
    tasks = opened(TASKS, cache=tmp_path, template=None, tokenizer=gpt2())
    assert tasks.template is not None and "### Instruction:" in tasks.template
    assert "'<|endoftext|>'" in tasks.template or '"<|endoftext|>"' in tasks.template
    assert (
        ChatTemplate(tasks.template).render([{"role": "user", "content": "Hi"}]).endswith("### Response:\n")
    )
    assert opened(TASKS, cache=tmp_path).template is None
    assert opened(SHAKESPEARE, cache=tmp_path, template=None, tokenizer=gpt2()).template is None
    assert opened(TASKS, cache=tmp_path, template=None, tokenizer=gpt2(), joined=True).template is None


@pytest.mark.parametrize("blank", [0.2, 0.6, 0.8, 0.89])
def test_the_only_document_is_cut_near_its_share(tmp_path: Path, blank: float) -> None:
    """The cut is at a blank line within a quarter of the share; one farther away would take too much."""
    lines = [f"Line {number} of the only document there is." for number in range(1000)]
    lines[round(1000 * blank)] = ""
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    data = opened(tmp_path / "a.txt", validation=0.1, length=64)
    start, end = (int(data.validation.fields(name)[0][0]) for name in ("start", "end"))
    assert 0.87 <= start / end <= 0.9
    text = byte_level().decode(data.validation.store.ids[start : start + 8].tolist())
    assert text.startswith(f"Line {round(1000 * blank) + 1} of" if blank == 0.89 else "Line ")


# Shown before the first step ----------------------------------------------------------------------------


def test_examples_are_shown_token_by_token(tmp_path: Path) -> None:
    long = {"prompt": "p", "completion": "many words " * 40}
    short = {"prompt": "Why é?", "completion": "Because \U0001f44d."}
    data = opened(write_lines(tmp_path / "a.jsonl", [short, short, short, long]), validation=0, length=40)
    first, last = previews(data.train, byte_level(), 2)
    assert first.source == f"{tmp_path / 'a.jsonl'}:1"
    assert [(piece.text, piece.state) for piece in first.pieces] == [
        ("<|im_start|>user\nWhy é?<|im_end|>\n<|im_start|>assistant\n", "ignored"),
        ("Because \U0001f44d.", "trained"),
        ("<|im_end|>", "end"),
        ("\n", "ignored"),
    ]
    assert first.table.columns == ("position", "token_id", "token_text", "state")
    assert first.table.column("token_id") == data.train[0].ids.tolist()
    assert first.table[0] == {
        "position": 0,
        "token_id": byte_level().id_of("<|im_start|>"),
        "token_text": "<|im_start|>",
        "state": "ignored",
    }
    tokens = len(byte_level().encode("Because \U0001f44d."))
    ignored = len(data.train[0].ids) - tokens - 1
    assert first.counts == {"trained": tokens, "ignored": ignored, "end": 1, "cut": 0}
    assert last.source.endswith(":4")  # one that is cut is among them
    assert last.counts["cut"] == data.train[3].cut > 0 and last.counts["end"] == 0
    assert last.pieces[-1].state == "cut"
    (some,) = previews(data.train, byte_level(), 1, most=5)
    assert len(some.table) == 5 and some.left_out == sum(some.counts.values()) - 5
    assert [one.source[-2:] for one in previews(data.train, byte_level())] == [":1", ":2", ":4"]
    (alone,) = previews(data.train, byte_level(), 1)
    assert alone.source.endswith(":4")
    assert len(previews(data.train, byte_level(), 9)) == len(data.train)


def test_a_text_is_trained_but_for_its_first_token(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "Once upon a time"}])
    (shown,) = previews(opened(path, validation=0).train, byte_level())
    states = shown.table.column("state")
    assert states[0] == "ignored" and states[-1] == "end" and set(states[1:-1]) == {"trained"}
