"""Three tasks for lm-eval, from WikiText-2 and the seed tasks: their items, and the YAML about them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data"
ITEMS = 200
CHOICES = 4

MULTIPLE_CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
LOG_LIKELIHOOD = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{context}}}}"
doc_to_target: "{{{{choices[0]}}}}"
target_delimiter: ""
metric_list: [{{metric: perplexity}}, {{metric: acc}}]
"""


def write_tasks(folder: Path, items: int = ITEMS) -> list[str]:
    """Write the tasks to a folder; return their names."""
    tasks = {
        "wikitext_endings": (MULTIPLE_CHOICE, _endings(_sentences(), items)),
        "seed_answers": (MULTIPLE_CHOICE, _endings(_answers(), items)),
        "wikitext_rest": (LOG_LIKELIHOOD, _endings(_sentences(), items)),
    }
    for name, (template, found) in tasks.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(item) + "\n" for item in found), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(template.format(name=name, file=file), encoding="utf-8")
    return list(tasks)


def _sentences() -> list[tuple[str, str]]:
    """Sentences of WikiText-2, each cut in two places."""
    text = (DATA / "wikitext2" / "valid-20000.txt").read_text(encoding="utf-8")
    sentences = [one.strip() for one in re.split(r"(?<= \.) |\n", text) if len(one.split()) > 11]
    found = []
    for part in (2, 3):
        for words in (one.split() for one in sentences):
            place = len(words) // part
            found.append((" ".join(words[:place]), " " + " ".join(words[place:])))
    return found


def _answers() -> list[tuple[str, str]]:
    """Instructions of the seed tasks, and their answers."""
    lines = (DATA / "seed_tasks" / "seed-tasks.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for task in map(json.loads, lines):
        for instance in task["instances"]:
            asked = "\n".join(part for part in (task["instruction"], instance["input"]) if part)
            found.append((f"{asked[:600]}\nAnswer:", " " + instance["output"][:200].strip()))
    return found


def _endings(pairs: list[tuple[str, str]], items: int) -> list[dict[str, object]]:
    """Items with the right ending and three of others; an item more than the pairs has other endings."""
    draw = np.random.default_rng(4)
    found: list[dict[str, object]] = []
    for i in range(items):
        context, right = pairs[i % len(pairs)]
        others = [other for _, other in pairs if other != right]
        wrong = [others[j] for j in draw.choice(len(others), CHOICES - 1, replace=False)]
        place = int(draw.integers(CHOICES))
        choices = [*wrong[:place], right, *wrong[place:]]
        found.append({"context": context, "choices": choices, "answer": place})
    return found
