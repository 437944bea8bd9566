"""`view.widget()`: figures and script for a notebook, drawn in a real browser as anywidget would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import pophood
from pophood import look
from pophood.errors import NotFound
from pophood.look.figures import has_drawings
from pophood.web import built_script
from tests.cli.browser import chromium
from tests.look.pictures import picture_model

RENDER = """
(async () => {
  const script = URL.createObjectURL(new Blob([%s], {type: "text/javascript"}));
  const module = (await import(script)).default;
  const calls = {};
  const model = {
    figures: %s,
    get(name) { return this[name] },
    on(event, call) { calls[event] = call },
    off(event) { delete calls[event] },
  };
  const el = document.createElement("div");
  document.body.append(el);
  const end = module.render({model, el});
  const labels = () => [...el.querySelectorAll(".ph-stage")].map(one => one.getAttribute("aria-label"));
  const first = labels();
  model.figures = model.figures.slice(1);
  calls["change:figures"]();
  const second = labels();
  end();
  return JSON.stringify([first, second, Object.keys(calls).length, el.querySelectorAll("h4").length]);
})()
"""


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    if not has_drawings():
        pytest.skip("needs tool: a built studio (make studio)")
    return picture_model(tmp_path_factory)


def test_a_widget_holds_figures_and_script(lm: pophood.LM) -> None:
    view = look.lens(lm)
    made = view.widget()
    assert made.figures == look.figures_data(view)
    assert str(made._esm) == built_script("widget")


def test_the_script_draws_figures_and_follows_changes(lm: pophood.LM, tmp_path: Path) -> None:
    figures = look.figures_data(look.lens(lm))
    expression = RENDER % (json.dumps(built_script("widget")), json.dumps(figures))
    with chromium(tmp_path / "profile") as tab:
        answer = tab.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
    first, second, calls, _ = json.loads(answer["result"]["value"])
    assert [label.partition(".")[0] for label in first] == [figure["title"] for figure in figures]
    assert second == first[1:]
    assert calls == 0


def test_what_is_missing_is_named(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    view = look.next(lm)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "anywidget", None)
        with pytest.raises(NotFound, match=r"pip install 'pophood\[notebook\]'"):
            view.widget()
    monkeypatch.setattr("pophood.look.figures.notebook.built_script", lambda name: None)
    with pytest.raises(NotFound, match="make studio"):
        view.widget()
