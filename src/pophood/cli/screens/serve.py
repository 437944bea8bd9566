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
    from pophood.openai.model import ServedModel
    from pophood.serve.guard.listening import Listening
    from pophood.serve.process.records import LoadedFacts

PROMPT = "The capital of Spain is"  # for models that are not for conversations


@dataclass(frozen=True, slots=True)
class Banner:
    """Facts about a server that has just begun."""

    loaded: LoadedFacts
    model: ServedModel
    listening: Listening
    key: Key
    parallel: int
    link_token: str | None
    ollama: Listening | None = None

    @property
    def base_url(self) -> str:
        """The address that clients are given: "http://127.0.0.1:8321/v1"."""
        return f"{self.listening.url}/v1"

    @property
    def link(self) -> str:
        """The address that lets a browser in, once."""
        return f"{self.listening.url}/enter?token={self.link_token}"

    def facts(self) -> dict[str, Any]:
        """Return the facts for --json, sizes in bytes. A key of the user's own is not among them."""
        loaded, cache, capacity = self.loaded, self.loaded.cache, self.loaded.capacity
        return {
            "url": self.listening.url,
            "base_url": self.base_url,
            "host": self.listening.host,
            "port": self.listening.port,
            "ollama_port": None if self.ollama is None else self.ollama.port,
            "key": None if self.key.own else self.key.text,
            "key_from": self.key.origin,
            "model": self.model.name,
            "aliases": list(self.model.aliases),
            "adapters": list(self.model.adapters),
            "context": capacity.context,
            "parallel": self.parallel,
            "kv_bytes": capacity.memory,
            "kv_tokens": capacity.tokens,
            "cache_dir": None if cache is None else str(cache.folder),
            "cache_bytes": None if cache is None else cache.limit,
            "weight_bytes": loaded.weight_bytes,
            "precision": loaded.precision,
            "kv": loaded.kv,
            "isa": loaded.isa,
            "threads": loaded.threads,
            "pid": os.getpid(),
        }

    def line(self) -> str:
        """Return the facts as one line of JSON."""
        return json.dumps(self.facts(), separators=(",", ":"))

    def text(self) -> str:
        """Return the facts and the snippets."""
        width = 9
        rows = [f"{name:<{width}} {value}" for name, value in self.rows()]
        blocks = [f"{title}:\n\n{code}" for title, code in self._snippets()]
        return "\n\n".join(["\n".join(rows), *blocks, "Ctrl-C ends it."])

    def rows(self) -> Iterator[tuple[str, str]]:
        """The facts as names and words."""
        loaded, capacity, cache = self.loaded, self.loaded.capacity, self.loaded.cache
        taken = self.listening.taken
        yield "Address", self.base_url + ("" if taken is None else f" (port {taken} is taken)")
        yield "Key", self.key.text if not self.key.own else f"your own, from {self._place()}"
        if self.link_token is not None:
            yield "Browser", f"{self.link} (works once)"
        if self.ollama is not None:
            yield "Ollama", f"{self.ollama.url} (Ollama's protocol; no key is asked there)"
        also = f" (also as {', '.join(self.model.aliases)})" if self.model.aliases else ""
        yield "Model", f"{self.model.name}{also}, {loaded.how_computed}, {count(loaded.threads, 'thread')}"
        if self.model.adapters:
            yield "Adapters", f"{', '.join(self.model.adapters)} (for requests that name them)"
        yield "Window", f"{capacity.context:,} tokens for each request, {self.parallel} texts at a time"
        yield (
            "Memory",
            f"{memory_text(loaded.weight_bytes)} of weights, at most {memory_text(capacity.memory)} of keys "
            f"and values ({capacity.tokens:,} tokens)",
        )
        if cache is not None:
            held = (
                f"{count(cache.files, 'file')}, {memory_text(cache.size)}, there" if cache.files else "empty"
            )
            yield "Cache", f"{cache.folder}, at most {memory_text(cache.limit)} ({held})"

    def _place(self) -> str:
        return VARIABLE if self.key.origin == "environment" else str(self.key.path)

    def _snippets(self) -> Iterator[tuple[str, str]]:
        model = json.dumps(self.model.name)
        chat = self.model.template is not None
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
                f"llm openai endpoint {self.base_url} -m {shlex.quote(self.model.name)} "
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
