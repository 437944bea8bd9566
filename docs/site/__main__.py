"""Write the documentation as a site: `make site`.

    python -m docs.site [FOLDER]

Pages come from the repository's own (docs/site/pages.py) and from docstrings (docs/site/reference.py), and
Zensical builds them. A broken link, an unknown reference, a public name without a docstring, and a script,
style, font or picture from another server end it with an error. FOLDER is build/site by default.
"""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.site import pages, reference

ROOT = pages.ROOT
HERE = Path(__file__).resolve().parent
LOADING = {  # element -> the attributes by which it fetches something
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "link": ("href",), "object": ("data",), "use": ("href",),
}  # fmt: skip


def main(arguments: list[str]) -> None:
    """Build the site into a folder."""
    target = Path(arguments[0]) if arguments else ROOT / "build" / "site"
    if missing := reference.undocumented(ROOT / "src"):
        sys.exit(f"public names without a docstring: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        stage(folder)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(folder / "zensical.toml")]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            said = re.sub(r"\x1b\[[\d;]*m", "", built.stdout + built.stderr)
            sys.exit(said.partition("Traceback")[0].strip() or said)
        if outside := loaded_from_outside(folder / "site"):
            sys.exit("loaded from another server:\n" + "\n".join(outside))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "site", target)
    sys.stdout.write(f"{target / 'index.html'}: {len(list(target.rglob('*.html')))} pages\n")


def stage(folder: Path) -> None:
    """Write the pages and the settings from which Zensical builds."""
    (folder / "pages").mkdir()
    sections = pages.write_pages(folder / "pages")
    sections.insert(-3, ("Python", reference.write_pages(folder / "pages" / "python")))
    for name in ("site.css", "iframe-worker.js"):
        shutil.copy(HERE / name, folder / "pages" / name)
    entries = ['{ "pophood" = "index.md" }']
    for title, listed in sections:
        inner = ", ".join(f"{{ {json.dumps(name)} = {json.dumps(path)} }}" for name, path in listed)
        entries.append(f"{{ {json.dumps(title)} = [{inner}] }}")
    settings = (HERE / "zensical.toml").read_text(encoding="utf-8")
    filled = {"@NAV@": f"[{', '.join(entries)}]", "@SOURCE@": str(ROOT / "src"),
              "@EXTENSION@": str(HERE / "docstrings.py")}  # fmt: skip
    for mark, value in filled.items():
        settings = settings.replace(mark, value.replace("\\", "/"))
    (folder / "zensical.toml").write_text(settings, encoding="utf-8")


class _Loads(html.parser.HTMLParser):
    """Collects the addresses that a page loads by itself, which a link that one follows is not."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next", "alternate"):
            return
        self.addresses += [value for name in LOADING.get(tag, ()) if (value := given.get(name))]
        self.addresses += re.findall(r"url\(([^)]+)\)", given.get("style") or "")


def loaded_from_outside(site: Path) -> list[str]:
    """Return the addresses of other servers that pages, styles and pictures would load, with their files."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            reader = _Loads()
            reader.feed(path.read_text(encoding="utf-8"))
            addresses = reader.addresses
        elif path.suffix in (".css", ".svg"):
            text = path.read_text(encoding="utf-8")
            addresses = re.findall(r"""(?:url\(|@import |xlink:href=)["']?([^"')\s]+)""", text)
        else:
            continue
        outside = [one for one in addresses if re.match(r"\s*[\"']?(?:[a-z]+:)?//", one)]
        found += [f"{path.relative_to(site)}: {one}" for one in outside]
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
