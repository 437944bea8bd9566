"""The report card as one HTML file that needs no network; the frame is that of look's pages."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pophood.look.figures.page import data_uri, escaped, fill
from pophood.table import Table
from pophood.train.report.samples import SEED

if TYPE_CHECKING:
    from pophood.train.commands import Command
    from pophood.train.report.report_card import Card

NOTHING = "(nothing: the model ended its text at once)"
LONG, LETTERS = 40, 30  # lines of a sample that scrolls, letters of a line where the window is narrow


def page(card: Card, wide: str, narrow: str) -> str:
    """The whole page as text; `wide` and `narrow`: the curve of the loss for two widths of a window."""
    facts = {
        "Result": card.name,
        "Model": card.model,
        "Data": card.data,
        "Method": card.method,
        "Weights kept": card.kept,
    }
    body = [
        _curve(wide, narrow, [*_meaning(card), *card.warnings, *card.remarks]),
        *_samples(card),
        *_commands(card),
        "<h2>Before and after in numbers</h2>",
        _table("Losses are in nats per token", card.losses()),
        "<h2>What changed where</h2>",
        _table("The change of the matrices, means over blocks", card.changed()),
        "<h2>What it took</h2>",
        _table("Predicted and actual", card.costs()),
    ]
    return fill(f"{card.name}: {card.headline}", facts, "\n".join(body), heading=card.headline)


def _meaning(card: Card) -> list[str]:
    """What the perplexity of the headline is."""
    if card.loss_before is None or card.loss_after is None:
        return []
    return [
        "Perplexity: e to the power of the validation loss, which is measured on text that the run does not"
        " learn from. Lower is better."
    ]


def _curve(wide: str, narrow: str, notes: list[str]) -> str:
    title = wide.partition("<title>")[2].partition("</title>")[0]
    return (
        f'<figure>\n<div class="picture"><picture>'
        f'<source media="(max-width: 44rem)" srcset="{data_uri(narrow.encode())}">'
        f'<img src="{data_uri(wide.encode())}" alt="{title}"></picture></div>\n'
        f"<figcaption>{''.join(f'<p>{escaped(note)}</p>' for note in notes)}</figcaption>\n</figure>"
    )


def _samples(card: Card) -> list[str]:
    """What the model made of each prompt, before beside after."""
    if not card.prompts:
        return []
    parts = [
        "<h2>Samples before and after</h2>",
        f"<p>Both go on where the prompt ends, with the same random numbers (seed {SEED}).</p>",
    ]
    samples = zip(card.prompts, card.before.samples, card.after.samples, strict=True)
    for number, (prompt, before, after) in enumerate(samples, 1):
        title = f"Prompt {number}" if len(card.prompts) > 1 else "Prompt"
        parts.append(f'<h3 class="prompt">{title}: <bdi>{escaped(_short(prompt))}</bdi></h3>')
        halves = [_sample(title, *half) for half in (("Before", before), ("After", after))]
        parts.append(f'<div class="pair">\n{chr(10).join(halves)}\n</div>')
    return parts


def _sample(prompt: str, when: str, text: str) -> str:
    """One half of a pair; a long text scrolls, and takes the focus so that keys scroll it too."""
    shown = f"<p>{NOTHING}</p>"
    if text.strip():
        lines = sum(1 + len(line) // LETTERS for line in text.splitlines())
        scrolls = f' class="long" tabindex="0" role="region" aria-label="{prompt}, {when.lower()}"'
        shown = f'<pre dir="auto"{scrolls if lines > LONG else ""}>{escaped(text.rstrip())}</pre>'
    return f"<div><h4>{when}</h4>{shown}</div>"


def _commands(card: Card) -> list[str]:
    """What to do next, each with a button that copies it."""
    parts = ["<h2>Try next</h2>", "<p>In a terminal, in the folder where the run was started:</p>"]
    for number, command in enumerate(card.commands, 1):
        parts.append(
            f'<p class="purpose">{escaped(command.purpose)}</p>'
            f'<div class="code"><pre id="command{number}">{_line(command)}</pre>'
            f'<button type="button" data-copy="command{number}"'
            f' aria-label="Copy: {escaped(command.purpose)}" hidden>Copy</button></div>'
        )
    return parts


def _line(command: Command) -> str:
    """A command line that is wrapped between words, not at the dashes inside them."""
    first, *rest = command.words
    words = [escaped(word) for word in (first, *map(shlex.quote, rest))]
    return " ".join(word if " " in word else f"<span>{word}</span>" for word in words)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"…{line[-160:]}"


def _table(title: str, table: Table) -> str:
    right = [" class=number" if table.numeric(i) else "" for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{css}>{escaped(name.replace("_", " "))}</th>'
        for name, css in zip(table.columns, right, strict=True)
    )
    rows = [
        "<tr>"
        + "".join(f"<td{css}>{escaped(cell)}</td>" for cell, css in zip(table.cells(i), right, strict=True))
        + "</tr>"
        for i in range(len(table))
    ]
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(title)}"><table>'
        f"<caption>{escaped(title)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>"
    )
