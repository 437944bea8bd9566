"""The source of a view: the model, its precision and the text, and how titles write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from pophood.hub import KnownModel, catalogue
from pophood.phrases import later, phrase

if TYPE_CHECKING:
    from pophood.model.lm import LM, Text

PROMPT = "The capital of Spain is"  # from the talk; the default text of every view


@dataclass(frozen=True, slots=True)
class ViewSource:
    """The model, the precision of its arithmetic, and the text as the model reads it."""

    model: str
    precision: str  # of the view's numbers
    run_precision: str  # the one that `pophood run` uses for this model
    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()  # the text of each token, with its leading space
    adapters: tuple[tuple[str, float], ...] = ()  # paths as the user gave them, each with its scale
    context: int | None = None  # tokens; None for the model's own
    adapter_titles: tuple[str, ...] = ()  # what titles call the adapters, if that is not their paths

    @classmethod
    def of(cls, lm: LM, text: Text | None = None) -> ViewSource:
        """Return the source of a view of a text, or of token ids; None for a view of the model alone."""
        precision, own = lm.engine.precision, lm.config.n_positions
        run_precision = getattr(lm, "run_precision", precision)
        # look.architecture also accepts a stand-in that has only a configuration, and neither of these.
        context = getattr(lm.engine, "context", own)
        adapters = getattr(lm, "adapter_places", ())
        source = cls(
            lm.name,
            precision,
            run_precision,
            adapters=adapters,
            context=None if context == own else context,
            adapter_titles=getattr(lm, "adapter_titles", ()),
        )
        if text is None:
            return source
        spell = lm.bundle.tokenizer.token_text
        ids = tuple(lm.tokenize(text) if isinstance(text, str) else lm.config.check_ids(text))
        words = text if isinstance(text, str) else lm.detokenize(ids, special=True)
        return replace(source, text=words, ids=ids, tokens=tuple(spell(id_) for id_ in ids))

    def with_adapters(self) -> str:
        """Return the end of a title: `", with the adapter notes-lora x 0.5"`, or "" without adapters."""
        if not self.adapters:
            return ""
        words = later(
            ", with the adapter {names}" if len(self.adapters) == 1 else ", with the adapters {names}"
        )
        return phrase(words, names=phrase(" and ").join(self.adapter_names()))

    def adapter_names(self) -> list[str]:
        """Return each adapter with its scale unless that is 1: `["notes-lora x 0.5"]`."""
        titles = self.adapter_titles or [place for place, _ in self.adapters]
        scales = [scale for _, scale in self.adapters]
        return [t if scale == 1 else f"{t} x {scale:g}" for t, scale in zip(titles, scales, strict=True)]


def is_text(text: object) -> bool:
    """Return whether this is one text, as words or as token ids, and not a list of texts.

    >>> is_text("a"), is_text([464, 3139]), is_text(["color", "colour"])
    (True, True, False)
    """
    return isinstance(text, str) or (isinstance(text, Sequence) and all(type(one) is int for one in text))


def known_model(model: str, parameters: int | None = None) -> KnownModel | None:
    """Return the catalogue's entry for a model or folder name, unless its number of parameters differs."""
    entry = catalogue.get(PurePath(model).name)
    return entry if entry is None or parameters in (None, entry.n_params) else None


def model_title(model: str) -> str:
    """Return a model's name as people write it; for a path, only the last part.

    >>> model_title("gpt2"), model_title("gpt2-xl"), model_title("models/mine.gguf")
    ('GPT-2', 'GPT-2 XL', 'mine')
    """
    entry = known_model(model)
    return PurePath(model).name.removesuffix(".gguf") if entry is None else entry.title.removesuffix(" small")


def quoted_end(text: str, most: int = 48) -> str:
    """Return a text for a title: in quotes, on one line, and only its end if it is long.

    >>> quoted_end("The capital of Spain is"), quoted_end("x" * 60, most=5)
    ('"The capital of Spain is"', '"…xxxxx"')
    """
    line = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'"{line}"' if len(line) <= most else f'"…{line[-most:]}"'


def quoted(text: str) -> str:
    r"""Return a token's text for titles and sentences: in quotes, on one line, control characters escaped.

    >>> quoted(" Madrid"), quoted("\n")
    ('" Madrid"', '"\\n"')
    """
    return f'"{repr(text)[1:-1]}"'


def quoted_token(source: ViewSource, position: int) -> str:
    r"""Return a token for titles and sentences: in quotes, stripped, with control characters escaped.

    >>> quoted_token(ViewSource("m", "f32", "f32", "a b", (64, 275), ("a", " b")), 1)
    '"b"'
    """
    text = source.tokens[position]
    return f'"{repr(text.strip() or text)[1:-1]}"'
