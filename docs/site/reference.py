"""The pages of the Python interface, and the check that every public name on them has a docstring.

A page lists names; mkdocstrings writes their signatures and docstrings. `undocumented` walks the same names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import griffe

from pophood.look import DATA, VIEWS

# page, title, introduction, names
PAGES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "models",
        "Models and text",
        "`pophood.load` opens a model; everything else is a method of `LM`, or a record that one returns.",
        (
            "pophood.load", "pophood.LM", "pophood.Generation", "pophood.Token", "pophood.Table",
            "pophood.Score", "pophood.GenerateSettings", "pophood.SamplingSettings", "pophood.Grammar",
            "pophood.CancelFlag",
        ),
    ),
    (
        "look",
        "Looking inside",
        "A view is a function of `pophood.look`; [the gallery](../look.md) shows each with its command.",
        (
            "pophood.look.view.View", "pophood.look.answer.answer",
            *(f"pophood.look.{name}" for name in (*VIEWS, *DATA)),
        ),
    ),
    (
        "inside",
        "Traces, taps and edits",
        "The arrays of a forward pass, by the names that [taps](../taps.md) lists.",
        (
            "pophood.model.trace.Trace", "pophood.model.trace.TracePlan", "pophood.taps.Tap",
            "pophood.model.engine.Edit", "pophood.generate.Inspect", "pophood.generate.Inside",
        ),
    ),
    (
        "tune",
        "Tuning and measuring",
        "Training needs torch: `pip install 'pophood[train]'`. [Tuning](../tune.md) has methods and data.",
        (
            "pophood.tune", "pophood.train.run.tuning.Tuning", "pophood.train.settings.TrainSettings",
            "pophood.train.settings.LoraSettings", "pophood.evaluate", "pophood.benchmark",
        ),
    ),
    (
        "files",
        "Files and the engine",
        "What lies under `LM`: the files of a model, its configuration, the engine, adapters.",
        (
            "pophood.Bundle", "pophood.open_bundle", "pophood.ModelConfig", "pophood.Engine",
            "pophood.adapters.adapter.Adapter", "pophood.hub.pull", "pophood.hub.locate",
        ),
    ),
    (
        "batch",
        "Files of requests",
        "What `pophood batch` is made of; [its page](../batch.md) describes lines and answers.",
        (
            "pophood.batch.answering.Answering", "pophood.batch.lines.LineSource",
            "pophood.batch.model.BatchModel", "pophood.batch.model.LineDefaults",
        ),
    ),
    (
        "errors",
        "Errors",
        "Errors are a `PophoodError`, and their text is one line: what, got, wanted, next step.",
        ("pophood.errors",),
    ),
)  # fmt: skip
INTRODUCTION = """# Python

`import pophood` brings the names of these pages. They change only as
[the deprecation policy](../contributing.md#what-may-change) says. Other modules may change without notice.

| name | page |
|---|---|
"""


def write_pages(folder: Path) -> list[tuple[str, str]]:
    """Write the pages of the reference; return (title, path below the site) of each, the overview first."""
    folder.mkdir(parents=True)
    rows = []
    for name, title, introduction, names in PAGES:
        blocks = [f"# {title}", introduction, *(f"::: {one}" for one in names)]
        (folder / f"{name}.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        rows += [f"| [`{one}`]({name}.md#{one}) | {title} |" for one in names]
    (folder / "index.md").write_text(INTRODUCTION + "\n".join(rows) + "\n", encoding="utf-8")
    return [("Overview", "python/index.md"), *((title, f"python/{name}.md") for name, title, _, _ in PAGES)]


def undocumented(source: Path) -> list[str]:
    """Return the public names of the reference that have no docstring."""
    package = griffe.load("pophood", search_paths=[source], allow_inspection=False)
    found = []
    for _, _, _, names in PAGES:
        for name in names:
            found += [
                one.path for one in _public(package[name.removeprefix("pophood.")]) if not _documented(one)
            ]
    return sorted(set(found))


def _public(thing: griffe.Object | griffe.Alias) -> Iterator[griffe.Object | griffe.Alias]:
    """Yield a name and the classes, functions and properties in it; a class describes its fields itself."""
    yield thing
    for member in thing.members.values():
        if member.is_alias or member.name.startswith("_"):
            continue
        if member.is_class or member.is_function or "property" in member.labels:
            yield from _public(member)


def _documented(thing: griffe.Object | griffe.Alias) -> bool:
    if thing.has_docstring or not thing.parent or not thing.parent.is_class:
        return bool(thing.has_docstring)
    bases = thing.parent.mro() if isinstance(thing.parent, griffe.Class) else []
    return any(thing.name in base.members and base.members[thing.name].has_docstring for base in bases)
