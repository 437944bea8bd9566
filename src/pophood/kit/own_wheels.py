"""Where the wheels of pophood itself, and of torch, come from.

1. From files that the user names (`--wheel`): a checkout's `dist/`, after `make wheel`.
2. From the file that this pophood was installed from, if it is still there.
3. From the index that pip uses: the same version, as any release.

A pophood that runs from a checkout must name its wheel: an index may have another program under its version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pophood.errors import BadFile, BadInput, NotFound
from pophood.kit.platforms import LaptopPlatform, fits, wheel_name

OWN = "pophood"
TAKEN = (OWN, "torch")  # what may be given as a file; everything else comes from the index


def given_wheels(places: Sequence[Path]) -> list[Path]:
    """Return the wheels of `--wheel`: files as they are, of folders the wheels in them.

    Raises NotFound for a place without any, BadInput for wheels of other projects.
    """
    found: list[Path] = []
    for place in places:
        wheels = sorted(place.glob("*.whl")) if place.is_dir() else [place] if place.is_file() else []
        if not wheels:
            raise NotFound(f"--wheel {place}: there is no wheel: build pophood's with `make wheel` (dist/)")
        found += wheels
    others = [path.name for path in found if wheel_name(path)[0] not in TAKEN]
    if others:
        raise BadInput(f"--wheel takes wheels of {' and '.join(TAKEN)}; got {others[0]}: leave it out")
    return found


def own_wheel(
    given: Sequence[Path], version: str, platform: LaptopPlatform, python: tuple[int, int]
) -> Path | None:
    """Return the file of pophood's wheel for such laptops, or None to take it from the index.

    Raises NotFound where only a file would do and none fits, BadFile for a wheel of another version.
    """
    mine = [path for path in given if wheel_name(path)[0] == OWN]
    for path in mine:
        if wheel_name(path)[1] != version:
            raise BadFile(
                f"{path}: a wheel of pophood {wheel_name(path)[1]}; wanted {version}, which makes this kit"
            )
    origin = None if mine else _origin()
    mine += [origin] if isinstance(origin, Path) else []
    fitting = [path for path in mine if fits(path, platform, python)]
    if fitting:
        return fitting[0]
    if origin == "index":
        return None
    wanted = f"for Python {python[0]}.{python[1]} on {platform.name}"
    if not mine:
        raise NotFound(
            f"this pophood runs from a checkout, so its wheel must be named: build the one {wanted} with "
            "`make wheel`, and add --wheel dist"
        )
    raise NotFound(
        f"{mine[0].name} is not {wanted}: add one with --wheel ("
        "`make wheel` builds the one of its Python; one for 3.12 fits newer ones; it must be manylinux)"
    )


def _origin() -> Path | str:
    """Return the wheel that this pophood was installed from, "index", or "checkout".

    pip records it for what did not come from an index (direct_url.json, PEP 610).
    """
    try:
        text = distribution(OWN).read_text("direct_url.json")
    except PackageNotFoundError:
        return "checkout"
    if text is None:
        return "index"
    try:
        address = json.loads(text)["url"]
    except (ValueError, KeyError, TypeError):
        return "checkout"
    path = Path(unquote(urlsplit(str(address)).path))
    return path if path.suffix == ".whl" and path.is_file() else "checkout"
