"""BenchSettings: how much to measure, and `plan`, which fits it to a model's context and to the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pophood.errors import BadInput
from pophood.settings import setting

PROMPT, TOKENS, DEPTHS, BATCHES = 512, 128, (16, 800), (1, 4, 8)
MOST_THREADS, MOST_BATCH, MOST_ROUNDS = 1024, 256, 100
THREADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # tried up to the machine's number

Kind = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """The settings of a benchmark, checked when they are made; None stands for the default in `plan`."""

    prompt: int | None = setting(
        None, "Tokens of the prompt that is read", usual="512, or half the context window if that is less"
    )
    tokens: int | None = setting(
        None,
        "Tokens that are generated, or with --quality compared",
        usual="128, or a quarter of the window if that is less; 4,096",
    )
    depth: tuple[int, ...] | None = setting(
        None, "Tokens before the generated ones; each depth is measured", usual="16,800", metavar="N,N..."
    )
    batch: tuple[int, ...] | None = setting(
        None, "Sequences that are decoded together", usual="1,4,8", metavar="N,N..."
    )
    threads: tuple[int, ...] | None = setting(
        None, "Numbers of threads to try", usual="1 up to this machine's", metavar="N,N..."
    )
    rounds: int = setting(3, "Rounds; each measures everything once")
    no_start: bool = setting(False, "Do not start new processes, to measure their time and memory")

    def __post_init__(self) -> None:
        for name, values, least, most in (
            ("prompt", self.prompt, 1, None),
            ("tokens", self.tokens, 1, None),
            ("depth", self.depth, 0, None),
            ("batch", self.batch, 1, MOST_BATCH),
            ("threads", self.threads, 1, MOST_THREADS),
            ("rounds", self.rounds, 1, MOST_ROUNDS),
        ):
            for value in _listed(name, values):
                if value < least or (most is not None and value > most):
                    wanted = f"{least} to {most:,}" if most else f"at least {least}"
                    raise BadInput(f"{name} is {value:,}; wanted {wanted}")


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work whose rate is measured, in tokens per second.

    "prefill" reads `tokens` tokens at once; "decode" generates as many, one by one, after `depth` others, in
    each of `batch` sequences.
    """

    kind: Kind
    threads: int
    tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        """The work without the number of threads: "decode after 16", "decode of 8 after 16"."""
        if self.kind == "prefill":
            return f"prefill of {self.tokens:,}"
        several = f" of {self.batch}" if self.batch > 1 else ""
        return f"decode{several} after {self.depth:,}"


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """Everything that is measured in each round, and the number of threads that other commands take."""

    works: tuple[Work, ...]
    threads: tuple[int, ...]
    usual: int  # the number of threads at which depths and batches are measured
    rounds: int
    start: bool


def plan(settings: BenchSettings, context: int, available: int) -> BenchPlan:
    """Return what to measure on a model with this context window and a machine with these threads.

    Raises BadInput for a prompt or a text that exceeds the window.

    >>> [work.name for work in plan(BenchSettings(batch=(2,)), context=1024, available=1).works]
    ['prefill of 512', 'decode after 16', 'decode after 800', 'decode of 2 after 16']
    """
    prompt = min(PROMPT, max(1, context // 2)) if settings.prompt is None else settings.prompt
    tokens = min(TOKENS, max(1, context // 4)) if settings.tokens is None else settings.tokens
    depths = settings.depth
    if depths is None:
        depths = tuple(depth for depth in DEPTHS if depth + tokens <= context) or (1,)
    if prompt > context:
        raise BadInput(f"a prompt of {prompt:,} tokens exceeds the context window, {context:,}: lower it")
    if (most := max(1, *depths) + tokens) > context:
        raise BadInput(
            f"{max(depths):,} tokens and {tokens:,} generated ones are {most:,}; the context window holds "
            f"{context:,}: lower the depth or the tokens"
        )
    threads = settings.threads
    if threads is None:
        threads = (*(n for n in THREADS if n < available), available)
    threads, depths = _distinct(threads), _distinct(depths)
    usual = available if available in threads else threads[-1]
    works = [
        work for n in threads for work in (Work("prefill", n, prompt), Work("decode", n, tokens, depths[0]))
    ]
    works += [Work("decode", usual, tokens, depth) for depth in depths[1:]]
    batches = _distinct(BATCHES if settings.batch is None else settings.batch)
    works += [Work("decode", usual, tokens, depths[0], batch) for batch in batches if batch > 1]
    return BenchPlan(tuple(works), threads, usual, settings.rounds, not settings.no_start)


def _distinct(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


def _listed(name: str, values: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the numbers of a setting; raises BadInput for an empty list."""
    if values is None:
        return ()
    if isinstance(values, int):
        return (values,)
    if not values:
        raise BadInput(f"{name} is an empty list: give a number, or leave it out")
    return values
