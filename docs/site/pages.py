"""The pages of the site, made from the repository's: README, docs/*.md, the project's files, the tutorials.

A link to another page leads to its place on the site. A link to a file that is no page becomes its name,
since the site has to stand alone. docs/cli.md is divided into one page for each command.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
# Heading of the navigation, then files of docs/ without ".md".
GUIDES = (
    "studio",
    "look",
    "chat",
    "batch",
    "grammar",
    "serve",
    "tune",
    "bench",
    "course",
    "kit",
    "several-machines",
)
UNDER_THE_HOOD = (
    "architecture",
    "first-change",
    "formats",
    "taps",
    "kernels",
    "peers",
    "dependencies",
    "log",
)
ELSEWHERE = ("index", "cli")  # the README is the site's first page; the commands have pages of their own
# A link to a program that stands alone on its line becomes the program.
INCLUDED = re.compile(r"^\[(examples/\w+\.py)\]\(\.\./\.\./\1\)$", re.MULTILINE)
RELEASE = re.compile(r"^## \[(.+?)\]", re.MULTILINE)  # a heading of the changelog, which is no link here
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
ADDRESS = re.compile(r'\b(src|srcset)="([^"]+)"|(!\[[^\]]*\])\(([^)\s]+)\)')
WIDE = "---\nhide:\n  - toc\n---\n\n"  # a page without the list of its headings, for lines of 100 characters
PICTURE = re.compile(r'<picture>\s*<source[^>]*srcset="([^"]+)">\s*(<img[^>]*>)\s*</picture>')
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def places() -> dict[str, str]:
    """Return where each page of the repository stands on the site: path from the root -> path of the page."""
    found = {"README.md": "index.md", "docs/index.md": "contents.md"}
    found |= {name: name.lower() for name in PROJECT if (ROOT / name).is_file()}
    for path in sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        below = path.relative_to(ROOT / "docs").as_posix()
        found.setdefault(f"docs/{below}", below)
    return found


def write_pages(folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Write all pages but the reference below a folder; return the navigation: (section, its pages)."""
    where = places()
    for source, place in where.items():
        text = translated((ROOT / source).read_text(encoding="utf-8"), source, where)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "images", folder / "images")
    commands = divide_commands(folder)
    tutorials = [place for place in where.values() if place.startswith("tutorials/")]
    tutorials.sort(key=lambda place: (place != "tutorials/index.md", place))
    project = [place for name, place in where.items() if name in PROJECT]
    known = {*GUIDES, *UNDER_THE_HOOD, *ELSEWHERE}
    lost = [p for p in where.values() if "/" not in p and p not in project and Path(p).stem not in known]
    if sorted(lost) != ["contents.md"]:
        raise SystemExit(f"docs/site/pages.py gives no section to {', '.join(sorted(lost))}")
    titles = {place: title_of(folder / place) for place in where.values()}
    sections = [
        ("Tutorials", [(titles[place], place) for place in tutorials]),
        ("Guides", [(titles[f"{name}.md"], f"{name}.md") for name in GUIDES]),
        ("Commands", commands),
        ("Under the hood", [(titles[f"{name}.md"], f"{name}.md") for name in UNDER_THE_HOOD]),
        ("Project", [(titles[place], place) for place in (*project, "contents.md")]),
    ]
    return [section for section in sections if section[1]]


def title_of(page: Path) -> str:
    """Return the first heading of a page, without its marks."""
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    if heading is None:
        raise SystemExit(f"{page.name} has no heading")
    return heading[1].replace("`", "")


def translated(text: str, source: str, where: dict[str, str]) -> str:
    """Return a page's text for the site, with files included and links changed, code left alone."""
    text = INCLUDED.sub(lambda match: included(match[1]), text)
    text = PICTURE.sub(both_schemes, text)
    text = RELEASE.sub(r"## \1", text)
    place = where[source]

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        return f"[{words}]({new})" if (new := moved(target, source, place, where)) else words

    def address(match: re.Match[str]) -> str:
        new = moved(match[2] or match[4], source, place, where)
        return f'{match[1]}="{new}"' if match[1] else f"{match[3]}({new})"

    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = ADDRESS.sub(address, LINK.sub(link, CODE.sub(keep, text)))
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)


def both_schemes(match: re.Match[str]) -> str:
    """Return a picture's two images, of which the theme shows one; <picture> follows the system alone."""
    dark, image = match[1], match[2]
    light = re.sub(r'src="([^"]+)"', r'src="\1#only-light"', image)
    return light + re.sub(r'src="[^"]+"', f'src="{dark}#only-dark"', image)


def moved(target: str, source: str, place: str, where: dict[str, str]) -> str | None:
    """Return a link's target on the site, None for a file that the site does not have."""
    if "://" in target or target.startswith(("#", "mailto:")):
        return target
    path, mark, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if path.startswith("docs/images/"):
        new = path.removeprefix("docs/")
    elif path == "docs/cli.md" and anchor.startswith("pophood-"):
        new = f"commands/{anchor.split('-')[1]}.md"
    elif path in where:
        new = where[path]
    else:
        return None
    return posixpath.relpath(new, posixpath.dirname(place) or ".") + mark + anchor


def included(path: str) -> str:
    """Return a file of the repository as a block of code."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f'```python title="{path}"\n{text.rstrip()}\n```'


def divide_commands(folder: Path) -> list[tuple[str, str]]:
    """Divide cli.md into a page of what commands share and one for each; return (title, path) of all."""
    text = (folder / "cli.md").read_text(encoding="utf-8")
    shared, *sections = re.split(r"^## (?=pophood )", text, flags=re.MULTILINE)
    pages: dict[str, str] = {}
    for section in sections:
        name = section.split()[1]
        pages[name] = f"{pages[name]}## {section}" if name in pages else f"{WIDE}# {section}"
    rows = []
    for name, body in pages.items():
        (folder / "commands").mkdir(exist_ok=True)
        (folder / "commands" / f"{name}.md").write_text(body, encoding="utf-8")
        rows.append(f"[`{name}`](commands/{name}.md)")
    shared += "Each command has a page: " + ", ".join(rows) + ".\n"
    (folder / "cli.md").write_text(shared, encoding="utf-8")
    return [("All commands", "cli.md"), *((f"pophood {name}", f"commands/{name}.md") for name in pages)]
