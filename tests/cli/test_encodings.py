"""Text files in every command: a byte order mark is skipped, and other encodings are named in the error."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, Program

WORDS = (
    "The capital of Spain is Madrid, and the capital of France is Paris. Once upon a time there was a king. "
)
CHAT = json.dumps({"prompt": "Which city?", "completion": "Madrid"})
# The command (FILE is the text's path; without FILE the text is piped in), the text, and the model.
COMMANDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "run --file": (("run", "--file", "FILE", "--max-tokens", "3", "--greedy", "--json"), WORDS, "base"),
    "run -": (("run", "-", "--max-tokens", "3", "--greedy", "--json"), WORDS, "base"),
    "run, piped": (("run", "--max-tokens", "3", "--greedy", "--json"), WORDS, "base"),
    "chat -": (("chat", "-", "--max-tokens", "3", "--greedy", "--json"), WORDS, "talker"),
    "chat, by turns": (("chat", "--max-tokens", "3", "--greedy"), "Hello\nAnd you?\n", "talker"),
    "look tokens": (("look", "tokens", "--file", "FILE", "--json"), WORDS, "base"),
    "look surprise": (("look", "surprise", "--file", "FILE", "--json"), WORDS, "base"),
    "look next, piped": (("look", "next", "-", "--json"), WORDS, "base"),
    "look embeddings": (
        ("look", "embeddings", "--words", "FILE", "--json"),
        "Spain Madrid France Paris",
        "base",
    ),
    "play": (("play", "FILE", "--rounds", "2", "--seed", "1", "--json"), 3 * WORDS, "base"),
    "eval": (("eval", "MODEL", "FILE", "--json"), WORDS, "base"),
    "eval, JSONL": (("eval", "MODEL", "FILE", "--json", "--format", "prompt"), f"{CHAT}\n{CHAT}\n", "base"),
    "eval, CSV": (
        ("eval", "MODEL", "FILE", "--json", "--format", "prompt"),
        "prompt,completion\nWhich city?,Madrid\n",
        "base",
    ),
    "tune --show": (("tune", "FILE", "--show", "--json"), WORDS, "base"),
    "tune --show, lines": (("tune", "FILE", "--show", "--json", "--format", "lines"), WORDS, "base"),
}


def _ended(
    name: str,
    data: bytes,
    program: Program,
    request: pytest.FixtureRequest,
    folder: Path,
    ending: str = "txt",
) -> Ended:
    arguments, _, kind = COMMANDS[name]
    model = str(request.getfixturevalue(kind))
    ending = "csv" if "CSV" in name else "jsonl" if "JSONL" in name else ending
    (folder / f"text.{ending}").write_bytes(data)
    put = [{"FILE": f"text.{ending}", "MODEL": model}.get(argument, argument) for argument in arguments]
    put += [] if "MODEL" in arguments else ["-m", model]
    return program(*put, stdin=b"" if "FILE" in arguments else data)


def _told(ended: Ended) -> bytes:
    """Return a command's result without times, random seed and the path of the id cache."""
    try:
        value = json.loads(ended.out)
    except ValueError:
        return ended.out
    for changing in ("seconds", "tokens_per_second", "seed", "cache"):
        _drop(value, changing)
    return json.dumps(value).encode()


def _drop(value: object, name: str) -> None:
    if isinstance(value, dict):
        value.pop(name, None)
        for inner in value.values():
            _drop(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _drop(inner, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_byte_order_mark_is_no_text(
    name: str, program: Program, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = COMMANDS[name][1].encode()
    plain, marked = (_ended(name, mark + data, program, request, tmp_path) for mark in (b"", codecs.BOM_UTF8))
    assert plain.code == marked.code == 0, (plain.said, marked.said)
    assert _told(plain) == _told(marked)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le"])
def test_utf16_is_named(
    name: str, codec: str, program: Program, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ended = _ended(name, COMMANDS[name][1].encode(codec), program, request, tmp_path)
    wanted = codec.upper().replace("-LE", "LE")
    assert ended.code != 0
    assert f"is {wanted}; wanted UTF-8: convert it (`iconv -f {wanted} -t UTF-8`" in ended.said[-1]


def test_utf16_is_not_replaced_into_garbage(program: Program, base: Path) -> None:
    ended = program("run", "--replace-invalid", "-m", str(base), stdin=WORDS.encode("utf-16"))
    assert ended.code == 2 and ended.out == b"" and "stdin is UTF-16" in ended.said[-1]


def test_a_mark_on_the_command_line_is_no_text(program: Program, base: Path) -> None:
    """A byte order mark in an argument, as in `pophood run "$(cat notes.txt)"`, is skipped."""
    arguments = ("--max-tokens", "3", "--greedy", "-m", str(base))
    assert program("run", "\ufeffHello", *arguments).out == program("run", "Hello", *arguments).out


def test_answers_of_a_game_may_have_a_mark(program: Program, base: Path, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(3 * WORDS, encoding="utf-8")
    arguments = ("play", "story.txt", "-m", str(base), "--rounds", "1", "--seed", "1", "--json")
    plain, marked = (program(*arguments, stdin=mark + b"q\n") for mark in (b"", codecs.BOM_UTF8))
    assert json.loads(plain.out) == json.loads(marked.out)
    assert json.loads(marked.out)["rounds"] == [] or json.loads(marked.out)["ended"] == "quit"
