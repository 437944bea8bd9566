"""`pophood look all`: every view of one text in a folder, with an index page."""

from __future__ import annotations

from pathlib import Path

import click

from pophood.cli.commands.look.options import look_model_options, text_of, text_options
from pophood.cli.options.shared import ModelChoice, output_option, verb
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.tables import count


@verb()
@text_options
@output_option(
    "--save",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder; it is created if needed, and files of the same names are replaced.",
)
@output_option("--open", "open_it", is_flag=True, help="Show the index page in a browser.")
@look_model_options
def all_command(
    console: Console,
    choice: ModelChoice,
    text: str | None,
    file: str | None,
    save: Path,
    open_it: bool,
) -> int:
    """Save every view of a text, with an index page.

    Each view becomes a picture (.svg) and a page (.html) in one self-contained folder; the index shows and
    links them all. A view that fails is reported, and the others are still written.

    Example: pophood look all "The capital of Spain is" --save gallery --open
    """
    from pophood.cli.session import open_model
    from pophood.cli.terminal.progress import Waiting
    from pophood.look.figures import require
    from pophood.look.figures.gallery import write_gallery
    from pophood.system import check_writable_target

    check_writable_target(save, folder=True)
    whole = text_of(console, text, file).text
    require()
    lm = open_model(console, choice)
    with Waiting(console, "drawing") as waiting:
        gallery = write_gallery(lm, whole, save, waiting)
    for source in [view.source for view in gallery.written.values()][:1]:
        console.say(f"computed at {source.precision}; run takes {source.run_precision}")
    for name, reason in gallery.failed.items():
        console.say(f"{name}: {reason}")
    console.say(f"{count(len(gallery.written), 'view')} in {save}: open {save / 'index.html'}")
    if open_it:
        console.open_page(save / "index.html")
    return 1 if gallery.failed else 0
