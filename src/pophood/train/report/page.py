"""The report card as one HTML page: the curve of the loss, samples before and after, commands, numbers."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pophood.train.report.curve import NARROW, curve, curve_data
from pophood.train.report.lens import lens_figures, lens_table
from pophood.train.report.measures import SEED
from pophood.train.report.report_card import Card
from pophood.train.run.folder import RunFolder
from pophood.web import built_script, data_uri, json_block, render_page

NOTHING = "(nothing: the model ended its text at once)"
LONG, LETTERS = 40, 30  # lines above which a sample scrolls; letters of a line in a narrow window
LONGEST = 160  # letters of a prompt; a longer one is cut to its end
PERPLEXITY = (
    "Perplexity: e to the power of the validation loss, which is measured on text that the run does not"
    " learn from. Lower is better."
)


def write_report(folder: RunFolder, card: Card) -> None:
    """Write report.json, report.html, and the curve of the loss as loss.svg."""
    folder.write("report.json", json.dumps(card.as_dict(), indent=2, ensure_ascii=False))
    events = folder.events()
    folder.write("loss.svg", curve(events))
    curves = curve(events), curve(events, width=NARROW)
    folder.write("report.html", page(card, *curves, curve_data(events), lens_figures(events)))


def page(
    card: Card,
    wide: str,
    narrow: str,
    figure: dict[str, Any] | None = None,
    lenses: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the whole page; `wide` and `narrow` are the curve of the loss for two widths of a window.

    `figure` is the same curve as data, which the page draws where its script is built, as it does the
    `lenses`; pictures and tables are for readers without scripts.
    """
    drawn = figure is not None and built_script("view") is not None
    measured = card.loss_before is not None and card.loss_after is not None
    title = wide.partition("<title>")[2].partition("</title>")[0]
    samples = zip(card.prompts, card.before.samples, card.after.samples, strict=True)
    return render_page(
        __package__,
        document=True,
        drawn="view" if drawn else None,
        data=json_block([figure, *lenses]) if drawn else "",
        title=f"{card.name}: {card.headline}",
        heading=card.headline,
        facts={
            "Result": card.name,
            "Model": card.model,
            "Data": card.data,
            "Method": card.method,
            "Weights kept": card.kept,
        },
        curve={
            "wide": data_uri(wide.encode()),
            "narrow": data_uri(narrow.encode()),
            "title": html.unescape(title),
        },
        notes=[*([PERPLEXITY] if measured else []), *card.warnings, *card.remarks],
        seed=SEED,
        nothing=NOTHING,
        samples=[(_shortened(prompt), _sample(before), _sample(after)) for prompt, before, after in samples],
        lenses=[(_shortened(lens["prompt"]), lens_table(lens)) for lens in lenses],
        commands=[(command.purpose, command.quoted) for command in card.commands],
        tables=[
            ("Before and after in numbers", "Losses are in nats per token", card.losses()),
            ("What changed where", "The change of the matrices, means over blocks", card.changed()),
            ("What it took", "Predicted and actual", card.costs()),
        ],
    )


def _sample(text: str) -> dict[str, Any]:
    """Return a sample; a long one scrolls, and takes the focus so that keys scroll it too."""
    lines = sum(1 + len(line) // LETTERS for line in text.splitlines())
    return {"text": text.rstrip(), "long": lines > LONG}


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"…{line[-LONGEST:]}"
