"""docs/taps.md agrees with src/pophood/taps.py: names, order, shapes, models, aliases, code that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pophood.config import ModelConfig
from pophood.model.lm import load
from pophood.model.trace import plan_trace
from pophood.taps import alias, taps_of
from tests.conftest import ROOT
from tests.look.golden.recipe import CASES as GOLDEN
from tests.look.golden.recipe import read_golden
from tests.tiny import gpt2_config, tiny_config, tiny_folder

PAGE = (ROOT / "docs" / "taps.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `"
]
BLOCK_NAMES = [row[0].strip("`").removeprefix("blocks.i.") for row in ROWS]
CONFIGS = {family: tiny_config(family) for family in ("gpt2", "llama", "qwen2", "qwen3")}
LETTERS = {"token": "T", "feature": "C", "head": "H", "kv_head": "K", "dim": "D", "neuron": "F"}
LETTERS["vocabulary"] = "V"


def in_block_0(cell: str) -> str:
    """Return a name of the table for block 0."""
    return cell.strip("`").replace("blocks.i.", "blocks.0.")


@pytest.mark.parametrize("family", CONFIGS)
def test_the_table_lists_every_tap_in_order(family: str) -> None:
    config = CONFIGS[family]
    first_block = [name for name in taps_of(config) if not re.match(r"blocks\.[1-9]", name)]
    assert [in_block_0(row[0]) for row in ROWS if fits(row[3], config)] == first_block


def fits(models: str, config: ModelConfig) -> bool:
    """Return whether the table says that such a model has the tap."""
    return {
        "all": True,
        "learned positions": config.rope is None,
        "rotary": config.rope is not None,
        "gated": config.gated_mlp,
    }[models]


def test_the_table_has_their_shapes() -> None:
    taps = {name: tap for config in CONFIGS.values() for name, tap in taps_of(config).items()}
    for name, shape, where, *_ in ROWS:
        axes = taps[in_block_0(name)].axes
        letters = ["H", "T", "T"] if axes[-1] == "key" else [LETTERS[axis] for axis in axes]
        assert shape == f"`[{', '.join(letters)}]`", name
        assert where


def test_the_table_has_every_alias() -> None:
    given = {in_block_0(row[4]): in_block_0(row[0]) for row in ROWS if row[4] != "-"}
    compared = {
        hook
        for case in GOLDEN.values()
        for hook in read_golden(case)
        if re.match(r"blocks\.0\.|[^b]", hook) and not hook.endswith("hook_scale") and hook != "logits"
    }
    assert set(given) == compared
    assert {hook: alias(hook) for hook in given} == given


def test_the_drawing_has_every_tap() -> None:
    drawing = PAGE.split("## Where the taps are")[1].split("```")[1]
    missing = [
        name for name in BLOCK_NAMES if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", drawing)
    ]
    assert not missing


def test_the_figures_for_memory_are_right() -> None:
    config = gpt2_config("gpt2")
    few = ["*", "!*.scores", "!*.pattern", "!*.result", "!logits"]
    for taps in (["*"], few):
        assert plan_trace(config, 512, taps).describe().split(", ")[-1] in " ".join(PAGE.split())


def test_the_code_runs(tmp_path: Path) -> None:
    lm = load(tiny_folder(tmp_path / "model", "gpt2"))
    names: dict[str, object] = {"lm": lm}
    lines = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0].splitlines()
    exec(lines[0], names)
    results = [eval(line, names) for line in lines[1:]]
    pattern, axes, stream, plan = results
    assert (pattern.shape, stream.shape) == ((4, 5, 5), (2, 5, 64))
    assert axes == ("head", "query", "key") and "MiB" in plan


def test_the_code_of_edits_runs(tmp_path: Path) -> None:
    lm = load(tiny_folder(tmp_path / "model", "gpt2"))
    names: dict[str, Any] = {"lm": lm}
    exec(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1], names)
    assert names["before"].shape == names["after"].shape
    assert (names["before"] != names["after"]).any()
