"""Photographs of HTML pages, in light and dark, by the headless Chromium that the tests use."""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

from PIL import Image

from tests.cli.browser import chromium

WIDE = 1180  # CSS pixels
SHARPNESS = 1.5  # pixels of the picture for one of CSS
COLOURS = 128  # of a palette: flat areas and letters need no more


def require() -> None:
    """End with one line where there is no Chromium."""
    if shutil.which("chromium") is None:
        sys.exit("there is no chromium, which photographs the pages: sudo make system-deps installs it")


def both_themes(page: Path, stem: Path, work: Path, *, high: int, click: str | None = None) -> list[Path]:
    """Write STEM-light.png and STEM-dark.png: the top `high` pixels of a page, `click`ed."""
    paths = []
    with chromium(work / "profile") as tab:
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=WIDE,
            height=high,
            deviceScaleFactor=SHARPNESS,
            mobile=False,
        )
        tab.call("Emulation.setScrollbarsHidden", hidden=True)
        tab.open(page)
        if click is not None:
            tab.mouse("click", click)
        for theme in ("light", "dark"):
            tab.call(
                "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
            )
            shot = base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"])
            path = stem.with_name(f"{stem.name}-{theme}.png")
            path.write_bytes(shot)
            reduce(path)
            paths.append(path)
    return paths


def reduce(path: Path, *, colours: int = COLOURS) -> None:
    """Write a PNG again with a palette, in a fraction of the bytes."""
    with Image.open(path) as image:
        smaller = image.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    smaller.save(path, optimize=True)
