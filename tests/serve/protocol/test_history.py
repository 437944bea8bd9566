"""A chat as Open WebUI has it: each turn streamed, and requests for a title, tags and follow-ups in between.

What these requests ask was written down from its source: one message of the user with a task and the newest
messages. Whatever they compute, the next turn finds nearly all of its history in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pophood
from tests.serve.protocol.reader import read_stream
from tests.serve.protocol.service import Service
from tests.tiny import tiny_folder

SHARE = 0.95
PATH = "/v1/chat/completions"
QUESTIONS = (
    "Tell me about the lighthouse on the island, and about the people who kept it.",
    "Who built it, and how long did they need for it?",
    "What did the keepers eat in winter, when no ship came?",
    "Is there a story about a storm that the children still know?",
    "How far could one see its light in a clear night?",
    "What became of the lamp after the last keeper had left?",
    "Which birds live on the cliffs today?",
    "Can one visit it, and how does one get there?",
    "What would you take along for a night up there?",
    "Write a last sentence for my postcard from the island.",
)
TASKS = {
    "title": "Generate a concise, 3-5 word title with an emoji summarizing the chat history.",
    "tags": "Generate 1-3 broad tags categorizing the main themes of the chat history, along with 1-3 more "
    "specific subtopic tags.",
    "follow-ups": "Suggest 3-5 relevant follow-up questions or prompts that the user might naturally ask "
    "next in this conversation as a **user**, based on the chat history, to help continue or deepen the "
    "discussion.",
}
GUIDELINES = (
    "### Guidelines:\n- Write in the chat's primary language.\n- Keep it short and to the point.\n"
    '### Output:\nJSON format: {{ "{name}": ... }}\n'
)


def task(name: str, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the request for a title, tags or follow-ups: one message, which quotes the newest ones."""
    newest = "\n".join(f"{one['role'].upper()}: {one['content']}" for one in messages[-6:])
    text = f"### Task:\n{TASKS[name]}\n{GUIDELINES.format(name=name)}### Chat History:\n<chat_history>\n"
    return [{"role": "user", "content": f"{text}{newest}\n</chat_history>"}]


def shares(service: Service, turns: int, tokens: int, **fields: Any) -> list[float]:
    """Hold a conversation; return the share of its history that each turn from the second on found cached."""
    messages = [{"role": "system", "content": "You are a guide on an island in the north."}]
    history, found = 0, []
    for question in QUESTIONS[:turns]:
        messages.append({"role": "user", "content": question})
        asked = {
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": tokens,
        }
        told = service.ask(PATH, asked | fields)
        assert told.status == 200, told.body
        answer = read_stream(told.body, size=1, include_usage=True, chat=True)
        assert answer.usage is not None
        cached, prompt = answer.usage["prompt_tokens_details"]["cached_tokens"], answer.usage["prompt_tokens"]
        if history:
            found.append(cached / history)
            print(f"turn {len(found) + 1}: {cached:,} of {history:,} tokens cached, {cached / history:.1%}")
        messages.append({"role": "assistant", "content": answer.choices[0].text})
        history = prompt + answer.usage["completion_tokens"]
        for name in TASKS:
            request = {
                "messages": task(name, messages),
                "max_completion_tokens": tokens // 2,
                "stream": False,
            }
            assert service.ask(PATH, request | fields).status == 200
    return found


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tiny_folder(tmp_path_factory.mktemp("history") / "tiny", "qwen2", n_positions=8192)
    with Service(pophood.load(folder)) as service:
        yield service


def test_a_turn_finds_its_history_cached(letters: Service) -> None:
    """The random model writes letters that no merge joins: an answer is read back as it was written."""
    tokenizer = letters.lm.bundle.tokenizer
    bias = {str(tokenizer.encode(letter, add_start=False)[0]): 100 for letter in "QXZJ"}
    found = shares(letters, 8, 40, seed=1, logit_bias=bias, ignore_eos=True)
    assert len(found) == 7
    assert min(found) >= SHARE


@pytest.mark.full
def test_a_turn_of_a_real_chat_finds_its_history_cached(smollm2: Path) -> None:
    with Service(pophood.load(smollm2)) as service:
        found = shares(service, 10, 120, seed=1)
    assert len(found) == 9
    assert min(found) >= SHARE
