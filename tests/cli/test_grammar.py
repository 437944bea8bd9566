"""--json-object, --json-schema, --grammar and --regex of `run` and `chat`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Program

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"size": {"enum": [1, 22]}},
        "required": ["size"],
        "additionalProperties": False,
    }
)
FORMS: dict[str, tuple[tuple[str, ...], str]] = {
    "a schema": (("--json-schema", SCHEMA), r'\{"size": (1|22)\}'),
    "a file": (("--json-schema", "schema.json"), r'\{"size": (1|22)\}'),
    "GBNF": (("--grammar", "answer.gbnf"), "yes|no"),
    "Lark": (("--grammar", "answer.lark"), "yes|no"),
    "an expression": (("--regex", "[a-c]{3}"), "[a-c]{3}"),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(SCHEMA)
    (tmp_path / "answer.gbnf").write_text('root ::= "yes" | "no"')
    (tmp_path / "answer.lark").write_text('start: "yes" | "no"')
    (tmp_path / "broken.gbnf").write_text('root ::= "yes')
    (tmp_path / "latin").write_bytes(b"\xe9")


@pytest.mark.parametrize("name", FORMS)
def test_run_and_chat_follow_it(program: Program, base: Path, talker: Path, name: str) -> None:
    options, form = FORMS[name]
    done = program("run", "Once", "-m", str(base), "--no-prompt", "-q", *options)
    assert done.code == 0 and re.fullmatch(form, done.text.rstrip("\n")), done
    done = program("chat", "Really?", "-m", str(talker), "-q", *options)
    assert done.code == 0 and re.fullmatch(form, done.text.rstrip("\n")), done


def test_any_object(program: Program, base: Path) -> None:
    done = program("run", "Once", "-m", str(base), "--json-object", "--json", "-n", "30", "--seed", "1")
    told = json.loads(done.out)
    assert told["outputs"][0]["completion"].startswith("{")
    assert told["grammar"] == {"kind": "json_schema", "text": '{"type": "object"}'}


def test_samples_follow_it_each(program: Program, base: Path) -> None:
    done = program("run", "Once", "-m", str(base), "--regex", "[a-z]{5}", "--samples", "3", "--json")
    texts = [one["completion"] for one in json.loads(done.out)["outputs"]]
    assert len(set(texts)) > 1 and all(re.fullmatch("[a-z]{5}", text) for text in texts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--json-object", "--regex", "a"), "--json-object and --regex both say"),
        (("--json-schema", "missing.json"), "missing.json: cannot be read"),
        (("--json-schema", "latin"), "latin: cannot be read: it is not UTF-8"),
        (("--json-schema", "{"), "is no JSON"),
        (("--json-schema", '{"not": {}}'), "Unimplemented keys"),
        (("--grammar", "broken.gbnf"), "the grammar cannot be used"),
        (("--grammar", "missing.gbnf"), "does not exist"),
        (("--regex", "("), "the regular expression cannot be used"),
        (("--regex", "a", "--pick"), "--pick"),
    ],
)
def test_a_wrong_one_is_told(program: Program, base: Path, options: tuple[str, ...], said: str) -> None:
    done = program("run", "Once", "-m", str(base), *options)
    assert done.code == 2 and done.out == b""
    assert said in done.said[-1]
