"""/studio/api/course: the pages of the course, their live cells, and guesses that the model judges."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from pophood.course.pages import Course, Page
from pophood.course.parse import load_course
from pophood.course.plain import contents, page_data, page_of
from pophood.course.words import USUAL, languages
from pophood.errors import BadInput
from pophood.openai.errors import MISSING, ApiError
from pophood.serve.catalog import Catalog
from pophood.serve.protocol.responses import Json
from pophood.studio.bodies import Count, Name, StudioBody, read
from pophood.studio.routes.views import shown


class CourseCell(StudioBody):
    """A cell of a page, by its section and its number there."""

    section: Name
    index: Count
    model: Name | None = None


class CourseGuess(StudioBody):
    """The reader's guess; an empty one asks for the answer."""

    guess: Annotated[str, Field(max_length=1000)]
    model: Name | None = None


class CourseDesk:
    """Answers requests about the course. Cells are run in the model's process, at f32."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def contents(self, request: Request) -> Response:
        course = await self._course(request)
        return Json(contents(course) | {"languages": languages()})

    async def page(self, page: str, request: Request) -> Response:
        course = await self._course(request)
        return Json(page_data(course, _page(course, page)) | {"language": course.language})

    async def run(self, page: str, request: Request) -> Response:
        asked, course = await read(request, CourseCell), await self._course(request)
        number = _page(course, page).number
        client = self._catalog.find(asked.model).client
        reply = client.course_step(course.language, number, section=asked.section, index=asked.index)
        return Json(await shown(reply))

    async def check(self, page: str, request: Request) -> Response:
        asked, course = await read(request, CourseGuess), await self._course(request)
        client = self._catalog.find(asked.model).client
        number = _page(course, page).number
        return Json(await shown(client.course_step(course.language, number, guess=asked.guess)))

    async def _course(self, request: Request) -> Course:
        asked = request.query_params.get("language", USUAL)
        language = asked if asked in languages() else USUAL  # the answer says which one it is
        return await asyncio.to_thread(load_course, language)


def _page(course: Course, page: str) -> Page:
    try:
        return page_of(course, page)
    except BadInput as error:
        raise ApiError(404, str(error), MISSING) from error
