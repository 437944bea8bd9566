"""Which ids end a text, and which file said so.

Publishers name the end of a turn in up to five places that do not agree. A stop that one of them names is
a stop. What only the chat template knows is found by rendering it, as late as possible: text that has
no special token in it never pays for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

# Control tokens that end a turn by the convention of their publishers; GGUF files seldom name them in a key.
END_NAMES = frozenset(
    {
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<end_of_turn>",
        "</s>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<eos>",
        "<end_of_utterance>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)


class Stops(Mapping[int, str]):
    """Id -> where it is named as an end.

    `id in stops` renders the template only for a special id that no file names; to list the stops does too.
    """

    def __init__(
        self,
        named: Mapping[int, str],
        specials: Mapping[int, str],
        template_ends: Callable[[], Mapping[int, str]] | None,
    ) -> None:
        self._named = dict(named)
        self._specials = specials
        self._template_ends = template_ends

    def __contains__(self, id_: object) -> bool:
        if id_ in self._named:
            return True
        return self._template_ends is not None and id_ in self._specials and id_ in self._all()

    def __getitem__(self, id_: int) -> str:
        return self._all()[id_]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"Stops({self._all()!r})"

    def _all(self) -> dict[int, str]:
        if self._template_ends is not None:
            ends, self._template_ends = self._template_ends(), None
            for id_, where in ends.items():
                add_stop(self._named, id_, where)
        return self._named


def add_stop(stops: dict[int, str], id_: int, where: str) -> None:
    """Remember one more place that names this id: `{2: "config.json, the chat template"}`."""
    if where not in stops.get(id_, "").split(", "):
        stops[id_] = f"{stops[id_]}, {where}" if id_ in stops else where


def add_conventional_ends(stops: dict[int, str], specials: Mapping[int, str]) -> None:
    """The special tokens that are called what ends are called."""
    for id_, text in specials.items():
        if text in END_NAMES:
            add_stop(stops, id_, "its name")
