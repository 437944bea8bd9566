"""Bad lines: 1 % of 10,000 lines are bad in every way we know, and each is reported by its number."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pophood.errors import BadFile
from tests.train.data.samples import byte_level, opened

BAD: dict[str, tuple[bytes, str]] = {
    "utf-8": (b'{"prompt": "a\xff", "completion": "b"}', "is not UTF-8: byte 0xFF at byte 14"),
    "nul": (b'{"prompt": "a\x00", "completion": "b"}', "has a NUL byte at byte 14"),
    "escaped nul": (b'{"prompt": "a\\u0000", "completion": "b"}', "has a NUL character in prompt"),
    "cut": (b'{"prompt": "a", "compl', "is not JSON: Unterminated string starting at at character 17"),
    "wrong keys": (b'{"question": "a", "answer": "b"}', "has no 'prompt'; it has 'question', 'answer'"),
    "brace": (b"}", "is not JSON: Expecting value at character 1 of 1"),
    "words": (b"plain words", "is not JSON: Expecting value at character 1 of 11"),
    "empty answer": (b'{"prompt": "a", "completion": " "}', "has an empty completion"),
    "not an object": (b"[1, 2]", "is a list; wanted an object"),
    "half a character": (b'{"prompt": "\\ud83d", "completion": "b"}', "the text has half a character"),
    "number": (b'{"prompt": 1, "completion": "b"}', "has a number as prompt; wanted text"),
    "deep": (b"[" * 200_000, "is not usable JSON: nested too deeply"),
}
HUGE = b'{"prompt": "' + b"x" * 50_000_000 + b'", "completion": "b"}'
TOLERATED = (b"\xef\xbb\xbf", b"\r")  # a byte order mark before a line, CRLF after it


def good_line(number: int) -> bytes:
    record = {"prompt": f"What is {number}?", "completion": f"It is {number}."}
    line = json.dumps(record).encode()
    if number % 500 == 0:
        line = TOLERATED[0] + line
    return line + TOLERATED[1] * (number % 7 == 0)


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    """Write 10,000 lines with 100 bad ones at random places: 99 of the kinds above and one of 50 MB."""
    rng = random.Random(6)
    places = sorted(rng.sample(range(1, 10_001), 100))
    kinds = [*BAD] * 9
    chosen = {place: kinds[i % len(BAD)] for i, place in enumerate(places)}
    huge = rng.choice(places)
    path = tmp_path_factory.mktemp("t6") / "corrupted.jsonl"
    expected = {}
    with path.open("wb") as file:
        for number in range(1, 10_001):
            if number == huge:
                expected[number] = f"has {len(HUGE) + 1:,} bytes; a record may have at most 16,777,216"
                file.write(HUGE + b"\n")
            elif number in chosen:
                line, expected[number] = BAD[chosen[number]]
                file.write(line + b"\n")
            else:
                file.write(good_line(number) + b"\n")
    return path, expected


def test_every_bad_line_is_named_and_every_other_used(corrupted: tuple[Path, dict[int, str]]) -> None:
    path, expected = corrupted
    data = opened(path, length=64, joined=True)  # the template is not what is tested here
    report = data.report
    assert (report.good, report.bad_count, report.total) == (9_900, 100, 10_000)
    assert [bad.line for bad in report.bad] == sorted(expected)
    for bad in report.bad:
        assert bad.why.startswith(expected[bad.line]), bad
        assert str(bad).startswith(f"{path}:{bad.line}: ")
    assert report.documents == len(data.train) + len(data.validation) == 9_900
    lines = {int(e.source.rpartition(":")[2]) for side in (data.train, data.validation) for e in side}
    assert lines == set(range(1, 10_001)) - expected.keys()
    assert "100 of 10,000 lines are bad and left out" in report.warnings
    assert report.bad_table()[0]["line"] == min(expected)
    example = data.train[0]
    number = int(example.source.rpartition(":")[2])
    learned = byte_level().decode(example.ids[example.trained].tolist(), special=True)
    assert learned == f"It is {number}.<|im_end|>"


def test_strict_stops_at_the_first_bad_line(corrupted: tuple[Path, dict[int, str]], tmp_path: Path) -> None:
    path, expected = corrupted
    first = min(expected)
    for cache in (tmp_path, path.parent / "kept"):  # first encoded, then read from the cache
        with pytest.raises(BadFile) as caught:
            opened(path, strict=True, cache=cache, joined=True)
        assert f"{path}:{first}: {expected[first][:20]}" in str(caught.value)
        assert "leave out --strict" in str(caught.value)
    assert not [*tmp_path.glob("*/ids.bin"), *tmp_path.glob(".*.tmp")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(kinds=st.lists(st.sampled_from([None, None, *BAD]), min_size=1, max_size=60))
def test_good_and_bad_are_all(kinds: list[str | None], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("g")
    lines = [good_line(i) if kind is None else BAD[kind][0] for i, kind in enumerate(["", *kinds][1:], 1)]
    lines.append(good_line(len(lines) + 1))
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))  # no line end at the end
    report = opened(folder / "a.jsonl", format="prompt", joined=True).report
    assert [bad.line for bad in report.bad] == [i for i, kind in enumerate(kinds, 1) if kind is not None]
    assert report.total == len(lines)


def test_bad_lines_of_a_text_are_left_out_alone(tmp_path: Path) -> None:
    """The rest of a text is used, and its lines are counted."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntw\xffo\r\nthree\r\nfo\x00ur\r\nfive")
    data = opened(path, validation=0)
    assert byte_level().decode(data.train[0].ids.tolist()) == "one\nthree\nfive"
    assert (data.report.good, data.report.bad_count, [bad.line for bad in data.report.bad]) == (3, 2, [2, 4])
    with pytest.raises(BadFile, match=r"notes\.txt:2: is not UTF-8"):
        opened(path, strict=True)


def test_a_line_that_the_vocabulary_cannot_say_is_bad(smollm2: Any, tmp_path: Path) -> None:
    """SmolLM2's vocabulary lacks eight bytes; a text with one of them loses that line only."""
    from pophood.model.bundle import open_bundle

    tokenizer = open_bundle(smollm2).tokenizer
    lost = next(c for c in map(chr, range(1, 256)) if not _can(tokenizer, c))
    path = tmp_path / "a.txt"
    text = "".join(f"line {i}\n" for i in range(20_000))  # more than one stretch
    path.write_text(text.replace("line 15000\n", f"line {lost}\n"), encoding="utf-8")
    data = opened(path, tokenizer=tokenizer, validation=0)
    assert [bad.line for bad in data.report.bad] == [15_001]
    assert "no token for the byte" in data.report.bad[0].why
    assert data.report.total == 20_000
    assert tokenizer.decode(data.train[0].ids.tolist()) == text.replace("line 15000\n", "")


def _can(tokenizer: Any, text: str) -> bool:
    from pophood.errors import BadInput

    try:
        tokenizer.encode(text)
    except BadInput:
        return False
    return True
