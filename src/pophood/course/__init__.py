r"""The course: the talk page by page, each page a Markdown file with live cells. Computes nothing itself.

    from pophood.course import load_course, Lesson
    course = load_course("en")
    Lesson(course.pages[0], lm).run(...)

From the same pages come `pophood talk` (a terminal), `notebooks/talk.ipynb` and `make slides`. docs/course.md
says how to take it, teach with it, add a page or a language.

A page is `<language>/NN-name.md`: front matter (`talk: 16-17`, the talk's pages, or `talk: none`), one title,
a few words if wanted, then exactly the sections predict, run, check, explain, under the headings that
`words.toml` of the language gives them. A fence's first line says what its cell is:

    ```guess number     the question to the reader, and the form of the answer: number, text or yes-no
    ```hint             shown when asked for
    ```python run       live code; the value of its last expression is shown
    ```sh               the command that does the same
    ```python check     live code; its last expression is the right answer, computed from the model
    ```differs rotary   said only of models of that kind (pages.KINDS)
    ```notes            for the teacher: speaker notes of notebook and deck
    ```text             shown as it is
    ```formula          a formula as plain text, a line ---, then the same as TeX
    ```python say       live code; its last expression is a sentence that follows the model's numbers

Front matter may go on with `needs: torch` (needs.py: without it the page says how to get it, and none of its
cells is run) and with `continues: NAME` (an earlier page, whose names its cells go on with).

`contents.md` is the talk's table of contents. `solutions/NN-name.md` holds what the page does not give away.
Text between the cells is Markdown as far as `markup.py` knows it. Whatever breaks these rules is an error
that names file and line.
"""

from __future__ import annotations

from pophood.course.answers import Verdict as Verdict
from pophood.course.answers import check as check
from pophood.course.lesson import Lesson as Lesson
from pophood.course.lesson import Output as Output
from pophood.course.needs import need as need
from pophood.course.pages import Course as Course
from pophood.course.pages import Page as Page
from pophood.course.parse import languages as languages
from pophood.course.parse import load_course as load_course
from pophood.course.say import say as say
