"""Bodies of the studio's requests as pydantic reads them: strictly, and no field that is not here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from pophood.serve.protocol.schemas import of_validation, read_object

Id = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
Title = Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class StudioBody(BaseModel):
    """The base of every body."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Nothing(StudioBody):
    """The body of a request that says everything by its path: `{}`."""


class ConversationChange(StudioBody):
    """PATCH of a conversation: the fields that change."""

    title: Title | None = None
    model: Name | None = None
    adapter: Name | None = None
    mode: Literal["chat", "complete"] | None = None
    system: str | None = None
    template_args: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    current: Id | None = None  # the leaf that is shown


class NewConversation(ConversationChange):
    """A conversation; its id may be the client's, so that repeating the request is harmless."""

    id: Id | None = None


class KeptToken(StudioBody):
    """One token of an answer, with the likeliest ones in its place: [id, text, logprob] each."""

    id: Count
    text: str
    logprob: Number | None = None
    entropy: Number | None = None
    top: list[Annotated[list[int | str | float], Field(min_length=3, max_length=3)]] | None = None


class NewNode(StudioBody):
    """A turn of a conversation.

    `given` tokens at the beginning of an answer were chosen by hand and not generated. `prompt` are the ids
    that the model was sent, those included. `after` tokens that were sent before stay.
    """

    id: Id | None = None
    parent: Id | None = None
    role: Literal["system", "user", "assistant", "tool", "text"]
    text: str
    tokens: list[KeptToken] = []
    after: Count = 0
    given: Count = 0
    prompt: list[Count] | None = None
    settings: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=-1, lt=2**64)] | None = None
    finish: Annotated[str, Field(max_length=40)] | None = None
    name: Name | None = None
    model: Name | None = None


class NodeChange(StudioBody):
    """PATCH of a node: its name, or its text."""

    name: Name | None = None
    text: str | None = None


BodyT = TypeVar("BodyT", bound=StudioBody)


async def read(request: Request, kind: type[BodyT]) -> BodyT:
    """Return the body of a request. Raises ApiError, 400, that names the first field that is wrong."""
    content = await request.body()
    data = read_object(content)
    if b"\\ud" in content.lower():
        data = _without_surrogates(data)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise of_validation(error) from error


def _without_surrogates(value: Any) -> Any:
    """Replace halves of characters, which JSON can spell and no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(one) for name, one in value.items()}
    return value
