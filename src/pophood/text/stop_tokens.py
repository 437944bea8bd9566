"""The ids that end a text, and the file that names each of them as an end.

Publishers name the end of a turn in up to five places that do not agree, so a token that any of them names is
a stop. The end that only the chat template knows is found by rendering the template, as late as possible:
text without special tokens never pays for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# Control tokens that end a turn by their publishers' convention; GGUF files seldom name them in a key.
END_NAMES = frozenset(
    {
        *("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>"),
        *("<end_of_turn>", "<end_of_utterance>", "</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]"),
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)

TemplateEnds = Callable[[Mapping[int, str]], Mapping[int, str]]  # special tokens -> ids that end a turn


@dataclass(eq=False, repr=False)
class Stops(Mapping[int, str]):
    """Stop ids, each with the place that names it as an end.

    `named` are the ends that files name; `template_ends` renders the chat template, if there is one.
    `id in stops` renders it only for a special id that no file names; listing the stops always does.
    """

    named: dict[int, str]
    specials: Mapping[int, str]
    template_ends: TemplateEnds | None

    def __contains__(self, id_: object) -> bool:
        if id_ in self.named:
            return True
        return self.template_ends is not None and id_ in self.specials and id_ in self._all()

    def __getitem__(self, id_: int) -> str:
        return self._all()[id_]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"Stops({self._all()!r})"

    def _all(self) -> dict[int, str]:
        if self.template_ends is not None:
            ends, self.template_ends = self.template_ends(self.specials), None
            for id_, where in ends.items():
                add_stop(self.named, id_, where)
        return self.named


def add_stop(stops: dict[int, str], id_: int, where: str) -> None:
    """Record one more place that names this id as an end: `{2: "config.json, the chat template"}`."""
    if where not in stops.get(id_, "").split(", "):
        stops[id_] = f"{stops[id_]}, {where}" if id_ in stops else where


def add_conventional_ends(stops: dict[int, str], specials: Mapping[int, str]) -> None:
    """Add the special tokens whose names mean "end" by convention (`END_NAMES`)."""
    for id_, text in specials.items():
        if text in END_NAMES:
            add_stop(stops, id_, "its name")
