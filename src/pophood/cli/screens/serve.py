"""The lines of `pophood serve` when it is ready: facts, and three snippets that work as printed."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pophood.cli.app import QUESTION
from pophood.cli.terminal.tables import count
from pophood.serve.guard.keys import VARIABLE, Key
from pophood.system import memory_text

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.model.prefix_files import PrefixFiles
    from pophood.serve.capacity import Capacity
    from pophood.serve.guard.listening import Listening

PROMPT = "The capital of Spain is"  # for models that are not for conversations


@dataclass(frozen=True, slots=True)
class Banner:
    """Facts about a server that has just begun."""

    lm: LM
    model: str  # the name that clients use
    listening: Listening
    key: Key
    capacity: Capacity
    parallel: int
    aliases: tuple[str, ...]
    adapters: tuple[str, ...]
    link_token: str | None
    files: PrefixFiles | None = None

    @property
    def base_url(self) -> str:
        """The address that clients are given: "http://127.0.0.1:8321/v1"."""
        return f"{self.listening.url}/v1"

    def facts(self) -> dict[str, Any]:
        """Return the facts for --json, sizes in bytes. A key of the user's own is not among them."""
        engine = self.lm.engine
        return {
            "url": self.listening.url,
            "base_url": self.base_url,
            "host": self.listening.host,
            "port": self.listening.port,
            "key": None if self.key.own else self.key.text,
            "key_from": self.key.origin,
            "model": self.model,
            "aliases": list(self.aliases),
            "adapters": list(self.adapters),
            "context": self.capacity.context,
            "parallel": self.parallel,
            "kv_bytes": self.capacity.memory,
            "kv_tokens": self.capacity.tokens,
            "cache_dir": None if self.files is None else str(self.files.folder),
            "cache_bytes": None if self.files is None else self.files.limit,
            "weight_bytes": engine.weight_bytes,
            "precision": engine.precision,
            "kv": engine.kv,
            "isa": engine.isa,
            "threads": engine.threads,
            "pid": os.getpid(),
        }

    def line(self) -> str:
        """Return the facts as one line of JSON."""
        return json.dumps(self.facts(), separators=(",", ":"))

    def text(self) -> str:
        """Return the facts and the snippets."""
        width = 9
        rows = [f"{name:<{width}} {value}" for name, value in self._rows()]
        blocks = [f"{title}:\n\n{code}" for title, code in self._snippets()]
        return "\n\n".join(["\n".join(rows), *blocks, "Ctrl-C ends it."])

    def _rows(self) -> Iterator[tuple[str, str]]:
        capacity, engine = self.capacity, self.lm.engine
        taken = self.listening.taken
        yield "Address", self.base_url + ("" if taken is None else f" (port {taken} is taken)")
        yield "Key", self.key.text if not self.key.own else f"your own, from {self._place()}"
        if self.link_token is not None:
            yield "Browser", f"{self.listening.url}/enter?token={self.link_token} (works once)"
        also = f" (also as {', '.join(self.aliases)})" if self.aliases else ""
        yield "Model", f"{self.model}{also}, {self.lm.how_computed}, {count(engine.threads, 'thread')}"
        if self.adapters:
            yield "Adapters", f"{', '.join(self.adapters)} (for requests that name them)"
        yield "Window", f"{capacity.context:,} tokens for each request, {self.parallel} texts at a time"
        yield (
            "Memory",
            f"{memory_text(engine.weight_bytes)} of weights, at most {memory_text(capacity.memory)} of keys "
            f"and values ({capacity.tokens:,} tokens)",
        )
        if self.files is not None:
            number, size = self.files.count()
            held = f"{count(number, 'file')}, {memory_text(size)}, there" if number else "empty"
            yield "Cache", f"{self.files.folder}, at most {memory_text(self.files.limit)} ({held})"

    def _place(self) -> str:
        return VARIABLE if self.key.origin == "environment" else str(self.key.path)

    def _snippets(self) -> Iterator[tuple[str, str]]:
        model = json.dumps(self.model)
        chat = self.lm.chat_template is not None
        messages = f'[{{"role": "user", "content": "{QUESTION}"}}]'
        asked = f'"messages": {messages}' if chat else f'"prompt": "{PROMPT}"'
        yield (
            "In a shell",
            f"curl {self.base_url}/{'chat/' if chat else ''}completions \\\n"
            f'  -H "Authorization: Bearer {self.key.shell}" -H "Content-Type: application/json" \\\n'
            f'  -d \'{{"model": {model}, {asked}, "max_tokens": 50}}\'',
        )
        create, taken = "chat.completions", "message.content"
        if not chat:
            create, taken = "completions", "text"
        wanted = f"messages={messages}" if chat else f'prompt="{PROMPT}"'
        yield (
            "In Python, with `pip install openai`",
            f"{self._python_imports()}from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{self.base_url}", api_key={self._python_key()})\n'
            f"answer = client.{create}.create(model={model}, {wanted}, max_tokens=50)\n"
            f"print(answer.choices[0].{taken})",
        )
        if chat:
            yield (
                "With `pip install llm`",
                f"llm openai endpoint {self.base_url} -m {shlex.quote(self.model)} "
                f'--key "{self.key.shell}" "{QUESTION}"',
            )

    def _python_imports(self) -> str:
        return {"environment": "import os\n", "file": "from pathlib import Path\n", "random": ""}[
            self.key.origin
        ]

    def _python_key(self) -> str:
        if self.key.origin == "environment":
            return f'os.environ["{VARIABLE}"]'
        if self.key.origin == "file":
            return f"Path({json.dumps(str(self.key.path))}).read_text().strip()"
        return f'"{self.key.text}"'
