"""/studio/api/views: every view of `look`, computed in the process of a model. (small: two routes)"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from pophood.errors import BadInput, quoted
from pophood.look.forms import FORMS
from pophood.openai.errors import MISSING, SERVER, ApiError, invalid, of_pophood, unknown_adapter
from pophood.phrases import USUAL, languages
from pophood.serve.catalog import Catalog
from pophood.serve.client import Reply
from pophood.serve.messages import Failed, ViewShown
from pophood.serve.protocol.assembly import of_failure
from pophood.serve.protocol.responses import Json
from pophood.studio.bodies import Count, Name, Number, StudioBody, read


class ChosenAdapter(StudioBody):
    """An adapter of the model, with the factor of its change."""

    name: Name
    scale: Number = 1.0


class AskedView(StudioBody):
    """A view of a text, or of token ids, such as a point of a conversation; or of the model alone."""

    model: Name | None = None
    adapter: Name | None = None
    adapters: Annotated[list[ChosenAdapter], Field(max_length=16)] | None = None
    text: str | None = None
    ids: Annotated[list[Count], Field(min_length=1)] | None = None
    options: dict[str, Any] | None = None
    precision: Literal["auto", "f32", "q8", "q4"] | None = None
    language: str = USUAL  # that of titles, notes and headings; English for one that pophood does not speak


class ViewDesk:
    """Answers requests for views."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def listed(self) -> Response:
        every = [
            {
                "name": name,
                "title": form.title,
                "needs_text": form.needs_text,
                "options": [asdict(option) for option in form.options],
            }
            for name, form in FORMS.items()
        ]
        return Json({"views": every})

    async def view(self, name: str, request: Request) -> Response:
        asked = await read(request, AskedView)
        if (form := FORMS.get(name)) is None:
            raise ApiError(404, f"no view is called {quoted(name)}; there is {', '.join(FORMS)}", MISSING)
        if asked.text is not None and asked.ids is not None:
            raise invalid("give either `text` or `ids`", "ids")
        hosted = self._catalog.find(asked.model)
        adapters = [(one.name, one.scale) for one in asked.adapters or ()]
        adapters += [(asked.adapter, 1.0)] if asked.adapter else []
        for adapter, _ in adapters:
            if adapter not in hosted.served.adapters:
                raise unknown_adapter(adapter, tuple(hosted.served.adapters), "adapter")
        text: str | tuple[int, ...] | None = asked.text if asked.ids is None else tuple(asked.ids)
        try:
            options = form.checked(asked.options or {})
        except BadInput as error:
            raise of_pophood(error, "options") from error
        language = asked.language if asked.language in languages() else USUAL
        reply = hosted.client.look(name, text, options, adapters, asked.precision, language)
        return Json(await shown(reply))


async def shown(reply: Reply) -> dict[str, Any]:
    """Wait for what an errand gave. Raises ApiError."""
    async with reply:
        async for event in reply:
            if isinstance(event, ViewShown):
                return dict(event.view)
            if isinstance(event, Failed):
                raise of_failure(event, "text")
    raise ApiError(503, "the model has not answered: try again", SERVER)
