"""The views as a form: which there are, what each is called, and its options with their bounds. No model.

A page or another program draws its controls from this; tests compare it with the functions of `views/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pophood.errors import BadInput, short

Kind = Literal["whole", "number", "words", "choice", "switch"]


@dataclass(frozen=True, slots=True)
class ViewOption:
    """One option: its kind, bounds and default (None: the view chooses).

    A bound is a number, or the name of the model's own: "layers", "heads", or "tokens" of the text.
    """

    name: str
    kind: Kind
    default: Any = None
    least: float | None = None
    most: float | str | None = None
    choices: tuple[str, ...] = ()

    def checked(self, value: Any) -> Any:
        """Return a value of the option's type. Raises BadInput. The model's own bounds are the view's."""
        right = {
            "whole": isinstance(value, int) and not isinstance(value, bool),
            "number": isinstance(value, int | float) and not isinstance(value, bool),
            "words": isinstance(value, str),
            "choice": value in self.choices,
            "switch": isinstance(value, bool),
        }[self.kind]
        high = self.most if isinstance(self.most, int | float) else None
        if right and self.kind in ("whole", "number"):
            right = (self.least is None or value >= self.least) and (high is None or value <= high)
        if not right:
            raise BadInput(f"{self.name}: got {short(value)}; wanted {self._wanted(high)}")
        return value

    def _wanted(self, high: float | None) -> str:
        if self.kind == "choice":
            return " or ".join(self.choices)
        if self.kind in ("words", "switch"):
            return "a text" if self.kind == "words" else "true or false"
        noun = f"a {'whole ' if self.kind == 'whole' else ''}number"
        if self.least is None:
            return noun
        return f"{noun} from {self.least:g}{'' if high is None else f' to {high:g}'}"


@dataclass(frozen=True, slots=True)
class ViewForm:
    """One view: what it shows, whether it reads a text, and its options."""

    title: str
    options: tuple[ViewOption, ...] = ()
    needs_text: bool = True

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of the right types, without those that are None. Raises BadInput."""
        known = {one.name: one for one in self.options}
        if unknown := sorted(set(options) - set(known)):
            there = ", ".join(known) or "none"
            raise BadInput(f"no option is called {short(unknown[0])}; there is {there}")
        given = {name: value for name, value in options.items() if value is not None}
        return {name: known[name].checked(value) for name, value in given.items()}


def _layer(default: int | None = 0) -> ViewOption:
    return ViewOption("layer", "whole", default, -1, "layers")


def _position(name: str) -> ViewOption:
    return ViewOption(name, "whole", -1, -1, "tokens")


NORMS = ("ln_1", "ln_1_post", "ln_2", "ln_2_post", "final")  # what a model has of them
K = ViewOption("k", "whole", 10, 1, 1000)

# In the order of the talk.
FORMS: Mapping[str, ViewForm] = {
    "architecture": ViewForm("Architecture", needs_text=False),
    "parameters": ViewForm("Where the parameters are", needs_text=False),
    "scale": ViewForm("Size beside other models", needs_text=False),
    "tokens": ViewForm("Tokens", (ViewOption("languages", "switch", False),)),
    "embeddings": ViewForm(
        "Words in the embedding",
        (
            ViewOption("words", "choice", "family", choices=("family", "cities")),
            ViewOption("spaced", "switch", False),
            ViewOption("word", "words"),
            ViewOption("k", "whole", 10, 1, 1000),
        ),
        needs_text=False,
    ),
    "positions": ViewForm("Positions", needs_text=False),
    "before": ViewForm("Before the first block"),
    "hidden": ViewForm("Hidden states"),
    "norm": ViewForm(
        "A norm in three steps",
        (_layer(), ViewOption("which", "choice", None, choices=NORMS)),
    ),
    "residual": ViewForm("What every block adds"),
    "dropout": ViewForm(
        "Dropout",
        (ViewOption("p", "number", 0.1, 0, 1), ViewOption("seed", "whole", 42, 0, 2**31), _layer()),
    ),
    "attention": ViewForm("Attention", (_layer(None), ViewOption("head", "whole", None, -1, "heads"))),
    "feedforward": ViewForm("Neurons of a token", (_layer(), _position("token"))),
    "output": ViewForm("From the last state to probabilities", (K,)),
    "next": ViewForm(
        "The next token",
        (
            K,
            ViewOption("temperature", "number", None, 0, 100),
            ViewOption("top_k", "whole", None, 0, 10**6),
            ViewOption("top_p", "number", None, 0, 1),
            ViewOption("min_p", "number", None, 0, 1),
        ),
    ),
    "surprise": ViewForm("Surprise", (ViewOption("window", "whole", None, 2),)),
    "lens": ViewForm(
        "The guess after every block",
        (ViewOption("token", "words"), _position("position"), ViewOption("most", "whole", 32, 1, 256)),
    ),
}
