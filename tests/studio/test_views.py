"""Every view through its route: computed in the model's process, with the numbers of `look`."""

from __future__ import annotations

import inspect
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood import look
from pophood.cli.commands.look.views import VIEW_COMMANDS
from pophood.errors import BadInput
from pophood.look.answer import answer
from pophood.look.forms import FORMS
from tests import processes
from tests.studio.server import StudioCommand

TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> pophood.LM:
    return pophood.load(tiny_model)


def test_the_forms_are_those_of_the_functions() -> None:
    assert tuple(FORMS) == look.VIEWS == tuple(VIEW_COMMANDS)
    for name, form in FORMS.items():
        parameters = inspect.signature(getattr(look, name)).parameters
        assert form.needs_text == ("text" in parameters) == VIEW_COMMANDS[name].reads_text
        for option in form.options:
            assert option.default == parameters[option.name].default, (name, option.name)
        left = parameters.keys() - {option.name for option in form.options} - {"lm", "text"}
        assert left <= {"sentences", "add"}, name


SLOW = {"architecture", "dropout", "parameters", "scale", "positions", "embeddings", "residual", "hidden"}
EVERY = [pytest.param(name, marks=pytest.mark.full if name in SLOW else ()) for name in FORMS]


@pytest.mark.parametrize("name", EVERY)
def test_a_view_is_the_librarys(running: StudioCommand, lm: pophood.LM, name: str) -> None:
    asked: dict[str, Any] = {"text": TEXT} if FORMS[name].needs_text else {}
    sent = running.post(f"/views/{name}", asked)
    assert sent == json.loads(json.dumps(answer(lm, name, asked.get("text"))))
    assert sent["title"] and sent["command"].startswith(f"pophood look {name}")
    assert "pophood.load" in sent["python"]
    assert sent["figure"] is not None or sent["table"] is not None


def same(one: Any, other: Any) -> bool:
    """Return True for equal values, and for numbers that are equal within what another process rounds."""
    numbers = isinstance(one, float) and isinstance(other, int | float)
    return one == other or (numbers and one == pytest.approx(other, rel=1e-4, abs=1e-4))


@pytest.mark.full
@pytest.mark.parametrize("name", FORMS)
def test_the_command_and_the_python_of_a_view_do_the_same(running: StudioCommand, name: str) -> None:
    """Both are run as a person would, in processes of their own, and give the tables that the page shows."""
    sent = running.post(f"/views/{name}", {"text": TEXT} if FORMS[name].needs_text else {})
    words = [sys.executable, "-m", *shlex.split(sent["command"]), "--json"]
    code = f"{sent['python']}\nprint(view.to_json())"
    for command in (words, [sys.executable, "-c", code]):
        done = processes.run(command, capture_output=True, text=True, check=True)
        tables = json.loads(done.stdout)["tables"]
        assert len(tables) == len(sent["tables"])
        for own, shown in zip(tables.values(), sent["tables"], strict=True):
            assert len(own) == len(shown["rows"]) + shown["left_out"]
            for row, there in zip(own, shown["rows"], strict=False):
                assert list(row) == shown["columns"]
                assert all(map(same, row.values(), there)), (row, there)


def test_the_list_has_what_a_page_needs(running: StudioCommand) -> None:
    views = {one["name"]: one for one in running.get("/views")["views"]}
    assert list(views) == list(FORMS)
    (layer, head) = views["attention"]["options"]
    assert (layer["name"], layer["least"], layer["most"]) == ("layer", -1, "layers")
    assert (head["kind"], head["default"]) == ("whole", None)


@pytest.mark.parametrize("name", ["next", "lens", "attention", "tokens"])
def test_a_point_of_a_conversation_is_looked_at_by_its_ids(
    running: StudioCommand, lm: pophood.LM, name: str
) -> None:
    ids = [*lm.tokenize(TEXT), 1, 5]
    sent = running.post(f"/views/{name}", {"ids": ids})
    assert [token["id"] for token in sent["tokens"]] == ids
    assert f"--ids {','.join(map(str, ids))}" in sent["command"]
    if name in ("next", "lens"):
        view = getattr(look, name)(lm, ids)
        assert sent["table"]["rows"][0][:1] == [next(iter(view.tables().values())).rows[0][0]]


def test_another_precision_is_another_engine(running: StudioCommand, lm: pophood.LM) -> None:
    asked = {"text": TEXT, "options": {"k": 3}}
    plain, exact = (running.post("/views/next", asked | {"precision": p}) for p in ("q8", "f32"))
    assert (plain["precision"], exact["precision"]) == ("q8", "f32")
    assert exact["table"]["rows"] == [list(row) for row in look.next(lm.at("f32"), TEXT, k=3).top.rows]
    assert plain["table"]["rows"] != exact["table"]["rows"]


@pytest.mark.parametrize(
    ("name", "body", "status", "says"),
    [
        ("nothing", {}, 404, "no view is called"),
        ("lens", {}, 400, "needs a text"),
        ("scale", {"text": "x"}, 400, "leave the text out"),
        ("lens", {"text": "x", "ids": [1]}, 400, "either"),
        ("lens", {"ids": []}, 400, "ids"),
        ("lens", {"ids": [10**6]}, 400, "not in the vocabulary"),
        ("lens", {"text": ""}, 400, "empty"),
        ("lens", {"text": "a " * 5000}, 400, "maximum context length"),
        ("attention", {"text": "x", "options": {"layer": 99}}, 400, "no layer 99"),
        ("attention", {"text": "x", "options": {"layer": "1"}}, 400, "whole number from -1"),
        ("next", {"text": "x", "options": {"top_p": 2}}, 400, "from 0 to 1"),
        ("next", {"text": "x", "options": {"no": 2}}, 400, "no option is called"),
        ("next", {"text": "x", "adapter": "none"}, 404, "does not exist"),
        ("next", {"text": "x", "model": "none"}, 404, "does not exist"),
        ("next", {"text": "x", "precision": "f16"}, 400, "precision"),
    ],
)
def test_a_wrong_view_is_refused_by_name(
    running: StudioCommand, name: str, body: dict[str, Any], status: int, says: str
) -> None:
    refused = running.ask(f"/views/{name}", body)
    assert refused.status == status, refused.body
    assert says in refused.json["error"]["message"]


def test_options_are_checked_without_a_model() -> None:
    with pytest.raises(BadInput, match="true or false"):
        FORMS["tokens"].checked({"languages": 1})
    with pytest.raises(BadInput, match="ln_1 or ln_1_post or ln_2"):
        FORMS["norm"].checked({"which": "ln_3"})
    assert FORMS["norm"].checked({"which": None, "layer": 0}) == {"layer": 0}


def test_answers_go_on_beside_views(running: StudioCommand) -> None:
    """A view and an answer have the bits that they have alone."""
    body = {"prompt": TEXT, "max_tokens": 8, "temperature": 0, "logprobs": 1}
    alone = running.post("/v1/completions", body)["choices"]
    running.post("/views/attention", {"text": TEXT})
    assert running.post("/v1/completions", body)["choices"] == alone
