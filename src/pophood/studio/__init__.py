"""The studio: a page in the browser on top of `serve`, `look` and `pophood tune`, and the routes behind it.

    browser ── /studio/ ──► the page (dist)         /studio/api/ ──► history, views, tuning, library, course
            ── /v1/... ───► serve: generation is no route of the studio

Nothing here computes with a model, and `train` is never imported: views are computed in the model's process,
and tuning is a `pophood tune` of its own.
"""
