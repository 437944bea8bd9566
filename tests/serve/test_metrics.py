"""The figures as Prometheus' own parser reads them, and the line of the log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pophood.generate import GenerateSettings, Timings
from pophood.serve.client import EngineClient
from pophood.serve.guard import guarded_app
from pophood.serve.guard.access import Access
from pophood.serve.guard.asgi import Receive, Scope, Send
from pophood.serve.guard.keys import Key
from pophood.serve.guard.security import rules_of
from pophood.serve.messages import Begun, Ended, Gauges, Message, Submit, Tokens
from pophood.serve.metrics import BUCKETS, Metrics
from tests.serve.records import token
from tests.serve.wire import KEY, echo, request, serving


def read(text: str) -> dict[str, Any]:
    """Return every sample by its name and labels, with their types checked."""
    families = list(text_string_to_metric_families(text))
    assert all(
        family.type in ("counter", "gauge", "histogram") and family.documentation for family in families
    )
    assert all(family.name.startswith("pophood_") for family in families)
    return {
        sample.name
        + "".join(f"|{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def access(**values: Any) -> Access:
    made = Access("req-1", None, "POST", "/v1/completions", 200)
    return replace(made, **values)


def test_prometheus_reads_what_was_counted() -> None:
    metrics = Metrics('a "quoted"\\\nname', "0.1")
    metrics.note(access(prompt_tokens=10, cached_tokens=8, generated_tokens=5, first_token=0.02, seconds=0.3))
    metrics.note(access(prompt_tokens=1, seconds=1000.0, cancelled=True))
    metrics.note(access(route="/health", seconds=0.01))
    found = read(metrics.text(Gauges(1, 2, 3, 40, 2), up=True, open_connections=6))
    assert found['pophood_info|model=a "quoted"\\\nname|version=0.1'] == 1
    assert found["pophood_requests_total|route=/v1/completions|status=200"] == 2
    assert found["pophood_requests_total|route=/health|status=200"] == 1
    kinds = [found[f"pophood_tokens_total|kind={kind}"] for kind in ("prompt", "cached", "generated")]
    assert kinds == [11, 8, 5]
    assert found["pophood_cancelled_total"] == 1
    gauges = (
        "requests_running",
        "requests_waiting",
        "kv_blocks_used",
        "kv_blocks_cached",
        "kv_blocks_total",
        "connections",
        "up",
    )
    assert [found[f"pophood_{name}"] for name in gauges] == [1, 2, 3, 2, 40, 6, 1]
    assert found["pophood_request_seconds_count"] == 3
    assert found["pophood_request_seconds_sum"] == pytest.approx(1000.31)
    buckets = [
        found[f"pophood_request_seconds_bucket|le={bound}"]
        for bound in ("0.01", "0.025", "0.5", "250", "+Inf")
    ]
    assert buckets == [1, 1, 2, 2, 3]
    assert found["pophood_first_token_seconds_count"] == 1


def test_figures_are_there_before_the_first_request() -> None:
    found = read(Metrics("m", "0.1").text(Gauges(), up=False, open_connections=0))
    assert found["pophood_tokens_total|kind=generated"] == found["pophood_cancelled_total"] == 0
    assert found["pophood_up"] == 0
    assert list(BUCKETS) == sorted(BUCKETS)


def test_the_routes_of_strangers_make_no_labels() -> None:
    """A request for a route that does not exist, or without a key, counts as "other"."""
    seen: list[Access] = []
    with serving(guarded_app(echo, rules_of(Key(KEY, "file")), ended=seen.append)) as port:
        request(port, "/no/such/" + "x" * 100)
        request(port, "/v1/secret?token=abc", key=None)
    assert [(one.route, one.status) for one in seen] == [("other", 200), ("other", 401)]
    assert "secret" not in seen[1].line("m")
    assert KEY not in "".join(one.line("m") for one in seen)


def test_tokens_are_counted_where_the_request_is_answered() -> None:
    posted: list[Message] = []
    client = EngineClient(posted.append)
    seen: list[Access] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async with client.submit([1, 2, 3], GenerateSettings()) as reply:
            client.receive(
                [
                    Begun(reply.id, 2, 3, 9),
                    Tokens(reply.id, (token(5, "a"), token(6, "b", sample=1))),
                    Tokens(reply.id, (token(7, "c"),)),
                    Ended(reply.id, {0: "stop", 1: "length"}, Timings()),
                ]
            )
            [event async for event in reply]
        async with client.submit([4], GenerateSettings()) as reply:
            client.receive([Begun(reply.id, 0, 1, 9)])
            await asyncio.sleep(0)
        await echo(scope, receive, send)

    with serving(guarded_app(answer, rules_of(Key(KEY, "file")), ended=seen.append)) as port:
        assert request(port, headers={"user-agent": "me/1.0"}).status == 200
    (one,) = seen
    assert (one.prompt_tokens, one.cached_tokens, one.generated_tokens) == (4, 2, 3)
    assert (one.finishes, one.cancelled) == (["stop", "length"], True)
    assert one.first_token is not None
    assert [message.client for message in posted if isinstance(message, Submit)] == [
        ("127.0.0.1", "me/1.0")
    ] * 2
    assert "tokens=4+3 cached=2" in one.line("smollm2")


def test_a_bug_is_a_500_with_its_number_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    broken: list[tuple[str, Exception]] = []

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the insides")

    app = guarded_app(fails, rules_of(Key(KEY, "file")), broken=lambda *what: broken.append(what))
    with serving(app) as port:
        response = request(port)
    assert (response.status, response.code) == (500, "internal_error")
    assert "insides" not in response.body.decode()
    assert response.headers["x-request-id"] == broken[0][0]
    assert str(broken[0][1]) == "the insides"
    assert capsys.readouterr() == ("", "")
