"""Scale: the number of parameters of language models over the years, the loaded model among them.

Only open models have published sizes; the other figures are estimates and are marked as such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pophood.errors import BadInput
from pophood.hub import catalogue
from pophood.look.blocks import Block, Lines, Points
from pophood.look.source import ViewSource, known_model, model_title
from pophood.look.view import View
from pophood.model.lm import LM
from pophood.phrases import later, phrase
from pophood.table import Table

X_LABEL = later("Approximate Launch Year")
Y_LABEL = later("Number of Parameters (log scale)")
YEARS = range(1950, 2101)
MOST_PARAMETERS = 1e18
PUBLISHED, ESTIMATE, ADDED, LOCAL = map(later, ("published", "estimate", "added", "this model"))
ABOUT_GPT2 = later(
    "GPT-2: OpenAI's second major GPT model; announced 14 February 2019, its full "
    "weights public on 5 November 2019; 124 million parameters in the small one; "
    "trained on WebText, 8 million documents, 40 GB of text; context window 1,024 "
    "tokens; vocabulary 50,257; four sizes: small, medium, large, XL."
)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """One point of the plot; a model of unknown year (None) is drawn as a horizontal line."""

    name: str
    parameters: float
    year: int | None
    source: str  # PUBLISHED, ESTIMATE, ADDED or LOCAL


TALK = (
    ModelSize("GPT-2", 124e6, 2019, PUBLISHED),
    ModelSize("GPT-3", 175e9, 2020, PUBLISHED),
    ModelSize("GPT-4", 1e12, 2023, ESTIMATE),
    ModelSize("Claude 3.5", 180e9, 2024, ESTIMATE),
    ModelSize("Llama-3 8B (Ollama)", 8e9, 2024, PUBLISHED),
    ModelSize("GPT-5.2", 2e12, 2026, ESTIMATE),
)


@dataclass(frozen=True)
class ScaleView(View):
    """Models by year and size."""

    models: tuple[ModelSize, ...]

    @property
    def headline(self) -> str:
        return phrase("Language Model Scale")

    @property
    def alt(self) -> str:
        points = "; ".join(
            phrase(
                "{name} {parameters} parameters{what} ({source})",
                name=model.name,
                parameters=short_number(model.parameters),
                what=phrase(" in {year}", year=model.year) if model.year else "",
                source=phrase(model.source),
            )
            for model in self.models
        )
        return phrase(
            "Scatter plot, years against parameters on a logarithmic scale: {points}.", points=points
        )

    @property
    def notes(self) -> tuple[str, ...]:
        guessed = ", ".join(model.name for model in self.models if model.source == ESTIMATE)
        published = ", ".join(model.name for model in self.models if model.source == PUBLISHED)
        return (
            phrase(
                "Published figures: {published}. Estimates, since their makers publish none: {guessed}.",
                published=published,
                guessed=guessed,
            ),
            phrase(ABOUT_GPT2),
        )

    def tables(self) -> dict[str, Table]:
        """Return `scale` (every point) and `gpt2` (the four sizes of GPT-2)."""
        rows = tuple(
            (model.name, round(model.parameters), model.year, phrase(model.source)) for model in self.models
        )
        sizes = tuple(
            (size.title, size.n_params, size.n_layer, size.n_head, size.n_embd, size.weights_public)
            for size in (catalogue[name] for name in catalogue["gpt2"].family)
        )
        columns = ("model", "parameters", "blocks", "heads", "embedding_size", "weights_public")
        return {
            "scale": Table(("model", "parameters", "year", "figure"), rows, title=self.title),
            "gpt2": Table(columns, sizes, title=phrase("The four sizes of GPT-2")),
        }

    def picture(self) -> tuple[Block, ...]:
        points = tuple(
            (float(model.year), math.log10(model.parameters), model.name, phrase(model.source))
            for model in self.models
            if model.year is not None
        )
        across = [
            phrase("{name}: {parameters:,.0f} parameters", name=model.name, parameters=model.parameters)
            for model in self.models
            if model.year is None
        ]
        lines = (Lines(phrase(LOCAL), "\n".join(across), "\n".join(across)),) if across else ()
        above = phrase("{label}: 10 to the power of", label=phrase(Y_LABEL))
        shown = Points(self.title, points, phrase(X_LABEL), above)
        return (shown, *lines, *self.tables().values())


def scale(lm: LM | None = None, *, add: Sequence[str | tuple[str, float, int]] = ()) -> ScaleView:
    """Compare the talk's six models, the loaded one, and those in `add`.

    look.scale(lm, add=["Mine,1.5B,2025"]).figure()

    `add` takes "NAME,PARAMS,YEAR" or (name, params, year). Raises BadInput for anything else.
    """
    added = [parse_model(one) if isinstance(one, str) else _checked(*one) for one in add]
    if lm is None:
        return ScaleView(ViewSource(phrase("no model"), "-", "-"), (*TALK, *added))
    return ScaleView(ViewSource.of(lm), (*TALK, _local(lm), *added))


def parse_model(text: str) -> ModelSize:
    """Read a point from "NAME,PARAMS,YEAR"; PARAMS may be 1500000000, 1.5e9, 1.5B or 135M.

    >>> parse_model("SmolLM2,135M,2024")
    ModelSize(name='SmolLM2', parameters=135000000.0, year=2024, source='added')
    """
    parts = [part.strip() for part in text.rsplit(",", 2)]
    if len(parts) != 3:
        raise BadInput(f"{text!r} is not NAME,PARAMS,YEAR: write for example 'SmolLM2,135M,2024'")
    name, numbers, year = parts
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kKmMbBtT]?)", numbers)
    if match is None:
        raise BadInput(
            f"{numbers!r} in {text!r} is not a number of parameters: write 124000000, 124e6 or 124M"
        )
    if re.fullmatch(r"\d{1,6}", year) is None:
        raise BadInput(f"{year!r} in {text!r} is not a year: write for example 2024")
    factor = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[match[2].lower()]
    return _checked(name, float(match[1].replace("_", "")) * factor, int(year))


def short_number(number: float) -> str:
    """Format a count with three digits: `short_number(124_439_808) == "124M"`."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _checked(name: str, parameters: float, year: int) -> ModelSize:
    if not name:
        raise BadInput("a model to add has no name: write NAME,PARAMS,YEAR")
    if not 1 <= parameters <= MOST_PARAMETERS:
        raise BadInput(f"{name}: {parameters:,.0f} parameters; wanted 1 to {MOST_PARAMETERS:g}")
    if year not in YEARS:
        raise BadInput(f"{name}: year {year}; wanted {YEARS[0]} to {YEARS[-1]}")
    return ModelSize(name, float(parameters), year, ADDED)


def _local(lm: LM) -> ModelSize:
    entry = known_model(lm.name, lm.n_params)
    year = None if entry is None else int(entry.announced[:4])
    return ModelSize(
        phrase("this model: {model}", model=model_title(lm.name)), float(lm.n_params), year, LOCAL
    )
