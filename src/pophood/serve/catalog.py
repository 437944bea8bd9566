"""Catalog: the models of a server as its routes see them, by name; `OneModel` is the smallest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pophood.openai.errors import ApiError, invalid, unknown_model
from pophood.openai.model import ServedAdapter, ServedModel
from pophood.serve.client import EngineClient


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A model that requests can name: what is known of it, and the client of its worker."""

    served: ServedModel
    client: EngineClient
    state: str = "loaded"  # or "loading", "unloaded"


class Catalog(Protocol):
    """The models of a server. `find` and `all` may be called from any thread."""

    def find(self, name: str | None) -> HostedModel:
        """Return the model of a name; the first one for None. Raises ApiError: 404, or 503 while it loads."""

    def all(self) -> list[HostedModel]:
        """Return every model, the first one first."""

    async def load(self, name: str) -> None:
        """Load a model of this machine. Raises ApiError."""

    async def unload(self, name: str) -> None:
        """Let a model leave memory. Raises ApiError."""

    async def add_adapter(self, name: str, adapter: ServedAdapter, place: str) -> None:
        """Load an adapter beside a model, for requests that name it, in the place of one with its name.

        Raises ApiError.
        """

    async def remove_adapter(self, name: str, adapter: str) -> None:
        """Let no more requests name an adapter of a model."""


class OneModel:
    """The catalog of a server whose only model is always there."""

    def __init__(self, served: ServedModel, client: EngineClient) -> None:
        self._hosted = HostedModel(served, client)

    def find(self, name: str | None) -> HostedModel:
        if not self._hosted.served.answers_to(name):
            raise unknown_model(name or "", self._hosted.served.name)
        return self._hosted

    def all(self) -> list[HostedModel]:
        return [self._hosted]

    async def load(self, name: str) -> None:
        raise fixed()

    async def unload(self, name: str) -> None:
        raise fixed()

    async def add_adapter(self, name: str, adapter: ServedAdapter, place: str) -> None:
        raise fixed()

    async def remove_adapter(self, name: str, adapter: str) -> None:
        raise fixed()


def fixed() -> ApiError:
    """Return a 400: this server loads and unloads nothing."""
    return invalid("this server has one model, which is always loaded", "model", "model_fixed")
