"""The insides that a generation tells are those of a trace of the same tokens, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput
from pophood.generate import BestTokens, Inside, Inspect, PrefixCache, Request, Token
from pophood.generate.inside import residual_norms
from pophood.generate.request import Running
from pophood.generate.scheduler import Scheduler
from pophood.generate.settings import GenerateSettings
from pophood.model.engine import Edit
from tests.tiny import tiny_folder

EVERYTHING = Inspect(
    top=5, entropy=True, lens=3, attention=((1, 2), (0, 0), (1, 0)), residual_norms=True, prompt=True
)
PROMPT = [5, 9, 13, 2, 7, 7, 30, 11, 4, 60, 21, 8]


@pytest.fixture(scope="module", params=["llama-f32", "gpt2-f32", "llama-q8", "qwen2-auto"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    kind, precision = request.param.split("-")
    folder = tiny_folder(tmp_path_factory.mktemp("inside") / kind, kind, n_positions=256)
    return pophood.load(folder, precision=precision)


def settings(inspect: Inspect | None = EVERYTHING, **fields: Any) -> GenerateSettings:
    usual: dict[str, Any] = {"max_tokens": 6, "seed": 3, "stop_ids": ()}
    return GenerateSettings(inspect=inspect, **usual | fields)


def computed(
    lm: pophood.LM, requests: Sequence[Request], prefix: PrefixCache | None = None
) -> list[tuple[Running, list[Token]]]:
    """Compute requests together; return each with its tokens."""
    scheduler = Scheduler(lm.engine, lm.bundle.tokenizer, prefix)
    found: dict[Running, list[Token]] = {scheduler.submit(request): [] for request in requests}
    while not scheduler.idle:
        for running, token in scheduler.step().tokens:
            found[running].append(token)
    assert all(running.error is None for running in found)
    return list(found.items())


def same(got: BestTokens | None, ids: Any, logits: Any, log_mass: float) -> None:
    assert got is not None
    assert got.ids.tolist() == ids.tolist()
    assert got.logits.tobytes() == logits.tobytes()
    assert got.log_mass == log_mass


def check(lm: pophood.LM, ids: Sequence[int], insides: Sequence[Inside], inspect: Inspect) -> None:
    """Compare insides with a trace of all tokens, and with the engine's own summary."""
    trace = lm.trace(ids, ["blocks.*.resid_post", "blocks.0.resid_pre", "*.pattern", "logits"])
    with lm.engine.sequence() as sequence:
        rows = lm.engine.summary([(sequence, ids)], k=20, rows="all")
    layers = lm.config.n_layer
    last = f"blocks.{layers - 1}.resid_post"
    for inside in insides:
        row = inside.position - 1
        same(inside.top, rows.ids[row, :5], rows.logits[row, :5], rows.log_mass[row])
        assert inside.top is not None and inside.lens is not None
        assert inside.top.logits.tolist() == np.sort(trace.logits[row])[::-1][:5].tolist()
        assert inside.entropy == rows.entropy[row]
        streams = np.stack([trace["blocks.0.resid_pre"][row], *trace.layers("resid_post")[:, row]])
        assert inside.residual_norms is not None
        assert inside.residual_norms.tobytes() == residual_norms(streams).tobytes()
        assert inside.attention is not None
        for (layer, head), weights in zip(inspect.attention, inside.attention, strict=True):
            own = trace[f"blocks.{layer}.attn.pattern"][head, row, : row + 1]
            assert weights.tobytes() == own.tobytes()
        assert [layer for layer, _ in inside.lens] == list(range(layers))
        for layer, listed in inside.lens:  # what the model says if its last block puts this out
            stream = trace[f"blocks.{layer}.resid_post"][row]
            edit = Edit(last, "replace", stream, positions=[row])
            with lm.engine.sequence() as sequence:
                logits = lm.engine.forward([(sequence, ids[: row + 1])], edits=[edit]).output[0]
            best = np.lexsort((np.arange(len(logits)), -logits))[:3]
            assert listed.ids.tolist() == best.tolist()
            assert listed.logits.tobytes() == logits[best].tobytes()


def test_everything_equals_a_trace_alone_and_beside_others(lm: pophood.LM) -> None:
    request = Request(tuple(PROMPT), settings())
    others = [
        Request((3, 1, 4, 1, 5, 9, 2, 6), settings(None, max_tokens=9)),
        Request((60, 50), settings(Inspect(lens=1, layers=(1,), top=2, attention=((0, 1),)))),
        Request(tuple(range(1, 60)), settings(None, samples=3)),
    ]
    plain = computed(
        lm, [Request(one.prompt, settings(None, samples=one.settings.samples)) for one in others]
    )
    for together in ([request], [others[0], request, *others[1:]]):
        found = computed(lm, together)
        running, tokens = next(one for one in found if one[0].request is request)
        ids = [*PROMPT, *(token.id for token in tokens)]
        assert [inside.position for inside in running.insides] == list(range(1, len(PROMPT)))
        assert all(token.inside is not None and token.inside.position == token.position for token in tokens)
        check(lm, ids, [*running.insides, *(token.inside for token in tokens if token.inside)], EVERYTHING)
        for (other, told), (_, alone) in zip(
            [one for one in found if one[0].request in others], plain, strict=False
        ):
            before = [(token.id, token.logit) for token in alone]
            assert [(token.id, token.logit) for token in told][: len(before)] == before
            assert other.insides == []


def test_every_sample_has_its_own(lm: pophood.LM) -> None:
    ((running, tokens),) = computed(lm, [Request(tuple(PROMPT), settings(samples=3))])
    for sample in range(3):
        own = [token for token in tokens if token.sample == sample]
        ids = [*PROMPT, *(token.id for token in own)]
        check(lm, ids, [token.inside for token in own if token.inside], EVERYTHING)
    assert running.looked == sum(
        EVERYTHING.values(inside.position, lm.config.n_layer) for inside in running.insides
    ) + sum(EVERYTHING.values(token.position, lm.config.n_layer) for token in tokens)


def test_a_cached_prompt_is_read_again_where_it_is_inspected(lm: pophood.LM) -> None:
    prefix = PrefixCache(lm.engine)
    computed(lm, [Request(tuple(PROMPT), settings(None))], prefix)
    for part, reused in (
        ((4, 8), 3),
        ((0, 3), 0),
        (False, len(PROMPT) - 1),
        (True, 0),
        ((0, 0), len(PROMPT) - 1),
    ):
        inspect = Inspect(top=1, entropy=True, lens=1, prompt=part)
        ((running, tokens),) = computed(lm, [Request(tuple(PROMPT), settings(inspect))], prefix)
        assert running.reused == reused
        assert [inside.position for inside in running.insides] == list(inspect.asked(len(PROMPT)))
        assert all(token.inside is not None for token in tokens)
    prefix.forget()


def test_a_prompt_alone_is_told_without_its_last_row(lm: pophood.LM) -> None:
    ((running, tokens),) = computed(lm, [Request(tuple(PROMPT), settings(), generates=False)])
    assert not tokens
    check(lm, PROMPT, running.insides, EVERYTHING)
    assert [inside.position for inside in running.insides] == list(range(1, len(PROMPT)))


def test_a_long_prompt_comes_in_parts(lm: pophood.LM) -> None:
    prompt = [(7 * i) % 90 for i in range(150)]
    ((running, tokens),) = computed(lm, [Request(tuple(prompt), settings(max_tokens=1))])
    assert [inside.position for inside in running.insides] == list(range(1, 150))
    check(
        lm, prompt, [*running.insides[::29], *(token.inside for token in tokens if token.inside)], EVERYTHING
    )


def test_the_bound_ends_it(lm: pophood.LM) -> None:
    inspect = Inspect(top=2, attention=((0, 0),), bound=100)  # 8 and the position of each
    ((running, tokens),) = computed(lm, [Request(tuple(PROMPT), settings(inspect))])
    assert [token.inside is not None for token in tokens] == [True] * 4 + [False] * 2
    assert running.looked == sum(8 + position for position in range(12, 16)) == 86


def test_nothing_that_is_generated_changes(lm: pophood.LM) -> None:
    for details in ("plain", "top"):
        plain = computed(lm, [Request(tuple(PROMPT), settings(None, details=details))])
        inspected = computed(lm, [Request(tuple(PROMPT), settings(details=details))])
        for (_, one), (_, other) in zip(plain, inspected, strict=True):
            assert [(t.id, t.logit, t.probability, t.top) for t in one] == [
                (t.id, t.logit, t.probability, t.top) for t in other
            ]


def test_the_library_streams_them(lm: pophood.LM) -> None:
    run = lm.stream(PROMPT, max_tokens=3, inspect=EVERYTHING, stop_ids=())
    tokens = list(run)
    check(lm, [*PROMPT, *(token.id for token in tokens)], run.insides, EVERYTHING)
    assert all(token.inside is not None for token in tokens)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"top": 21},
        {"lens": -1},
        {"prompt": True},
        {"lens": 1, "layers": (2,)},
        {"attention": ((2, 0),)},
        {"attention": ((0, 4),)},
        {"attention": ((-1, 0),)},
    ],
)
def test_what_does_not_exist_is_refused(lm: pophood.LM, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        lm.stream(PROMPT, inspect=Inspect(**wrong))
