"""The report card as one HTML file that needs no network; the frame is that of look's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pophood.look.figures.page import data_uri, escaped, fill
from pophood.table import Table

if TYPE_CHECKING:
    from pophood.train.report import Card


def page(card: Card, svg: str) -> str:
    """The whole page as text; `svg`: the curve of the loss."""
    title = svg.partition("<title>")[2].partition("</title>")[0]
    facts = {
        "Model": card.model,
        "Data": card.data,
        "Method": card.method,
        "Weights kept": f"after step {card.step:,} of {card.plan.steps:,} planned",
    }
    notes = [*card.warnings, *card.remarks]
    body = [
        f'<figure>\n<div class="picture"><img src="{data_uri(svg.encode())}" alt="{title}"></div>\n'
        f"<figcaption>{''.join(f'<p>{escaped(note)}</p>' for note in notes)}</figcaption>\n</figure>",
        "<h2>Before and after</h2>",
        _table("Losses, in nats per token", card.losses()),
        *_samples(card),
        "<h2>What changed where</h2>",
        _table("The change of the matrices, means over blocks", card.changed()),
        "<h2>What it took</h2>",
        _table("Predicted and actual", card.costs()),
    ]
    return fill(f"Tuned: {card.name}", facts, "\n".join(body))


def _samples(card: Card) -> list[str]:
    parts = []
    for prompt, before, after in zip(card.prompts, card.before.samples, card.after.samples, strict=True):
        parts.append(f"<h3>{escaped(_short(prompt))}</h3>")
        for words, text in (("Before", before), ("After", after)):
            parts.append(f'<p>{words}</p><div class="code"><pre>{escaped(text)}</pre></div>')
    return parts


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
