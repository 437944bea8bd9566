"""Ask a server, with nothing but Python's own library: python examples/program_against_the_server.py.

First `pophood serve smollm2` in another terminal. POPHOOD_URL is the address that it prints, without /v1,
and POPHOOD_API_KEY the key.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

URL, KEY = os.environ["POPHOOD_URL"], os.environ["POPHOOD_API_KEY"]
QUESTION = [{"role": "user", "content": "What is the capital of Spain?"}]


def ask(route: str, **body: Any) -> Any:
    """Post a body to a route and return the open response."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(URL + route, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request)


def events(response: Any) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream: lines that begin with "data: ", the last one "[DONE]"."""
    for line in response:
        data = line.decode().removeprefix("data: ").strip()
        if line.startswith(b"data: ") and data != "[DONE]":
            yield json.loads(data)


with ask("/v1/chat/completions", messages=QUESTION, max_tokens=30, temperature=0) as response:
    answer = json.load(response)
print(answer["choices"][0]["message"]["content"], answer["usage"]["total_tokens"], "tokens")

with ask("/v1/chat/completions", messages=QUESTION, max_tokens=30, temperature=0, stream=True) as response:
    for event in events(response):
        for choice in event["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
print()
