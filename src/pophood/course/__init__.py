r"""The course: the talk page by page, each page a Markdown file with live cells.

    from pophood.course import load_course, Lesson
    course = load_course("en")
    Lesson(course.pages[0], lm).run(...)

The same pages are the source of `pophood talk` (terminal), `notebooks/talk.ipynb` and `make slides`.
docs/course.md explains how to take the course, teach with it, and add a page or a language.

A page is `<language>/NN-name.md`: front matter (`talk: 16-17`, the talk's pages, or `talk: none`), one title,
an optional introduction, then exactly the sections predict, run, check and explain, under their headings in
the language's `words.toml`. A fence's first line names the kind of its cell:

    ```guess number     the question to the reader, and the form of its answer: number, text or yes-no
    ```hint             shown on request
    ```python run       live code; the value of its last expression is shown
    ```sh               the command that does the same
    ```python check     live code; its last expression is the correct answer, computed from the model
    ```differs rotary   shown only for models of that kind (pages.KINDS)
    ```notes            for the teacher: speaker notes of the notebook and the deck
    ```text             shown unchanged
    ```formula          a formula as plain text, a line ---, then the formula as TeX
    ```python say       live code; its last expression is a sentence with numbers from the model

Front matter may also have `needs: torch` (see needs.py: without torch the page says how to install it, and no
cell runs) and `continues: NAME` (an earlier page, whose variables its cells can use).

`contents.md` is the talk's table of contents. `solutions/NN-name.md` holds the page's solution.
Text between the cells is the subset of Markdown in `markup.py`. A violation of these rules is an error that
names file and line.
"""

from __future__ import annotations

from pophood.course.answers import Verdict as Verdict
from pophood.course.answers import check as check
from pophood.course.lesson import Lesson as Lesson
from pophood.course.lesson import Output as Output
from pophood.course.needs import need as need
from pophood.course.pages import Course as Course
from pophood.course.pages import Page as Page
from pophood.course.parse import load_course as load_course
from pophood.course.say import in_language as in_language
from pophood.course.say import say as say
from pophood.course.words import languages as languages
