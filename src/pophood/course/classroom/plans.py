"""Plans for a class of 45, 90 and 180 minutes: which pages to take, how long (small: data of the edition)."""

from __future__ import annotations

from dataclasses import dataclass

from pophood.course.pages import Course, Page

BREAK = "break"
# Minutes of the class -> the pages in order, each with its minutes.
PLANS: dict[int, str] = {
    45: """why-locally 3, generate 5, ten-samples 5, tokens 6, embeddings 5, map 4, attention 8, top-ten 6,
        wrap-up 3""",
    90: """why-locally 3, what-it-read 5, scale 3, load 4, generate 5, ten-samples 5, pipeline 5, tokens 6,
        embeddings 5, map 5, positions 4, layer-norm 4, residual 4, attention 10, feed-forward 6, logits 6,
        top-ten 6, wrap-up 4""",
    180: """why-locally 4, gpt-2 4, what-it-read 6, scale 3, set-up 4, load 5, generate 6, ten-samples 6,
        pipeline 5, tokens 7, embeddings 6, map 6, positions 5, before-the-blocks 3, block 4, layer-norm 5,
        residual 5, dropout 3, attention 12, break 10, feed-forward 7, final-norm 3, logits 6, top-ten 6,
        statistics 3, training-text 7, loss 7, one-step 8, training-run 8, before-and-after 7, what-changed 5,
        wrap-up 4""",
}


@dataclass(frozen=True, slots=True)
class PlanItem:
    """A page of a plan, or the break (None): the minute at which it begins, and how long it takes."""

    at: int
    minutes: int
    page: Page | None


def plan(course: Course, minutes: int) -> list[PlanItem]:
    """Return the plan for a class of so many minutes."""
    pages = {page.name: page for page in course.pages}
    items: list[PlanItem] = []
    at = 0
    for entry in PLANS[minutes].split(","):
        name, length = entry.split()
        items.append(PlanItem(at, int(length), None if name == BREAK else pages[name]))
        at += int(length)
    return items
