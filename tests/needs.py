"""External needs of tests: a skip names the missing thing, and on CI a skip is a failure.

With CI=true only the reasons in `ALLOWED_ON_CI` may skip: things that no step can install.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

import pytest

ALLOWED_ON_CI = (
    "GPT-2 weights are not here",  # the test machine has no connection to a model hub
    "Gemma 3 270M is not here",  # its terms are to be accepted by whoever fetches it
    "this processor has no",  # an instruction set cannot be installed
    "another operating system",
    "this system refuses network namespaces",  # a right of root that containers often take away
)


def tool(name: str, package: str | None = None) -> str:
    """Return the path of a command, or skip with its name; `make system-deps` installs it on Debian.

    Example: `clang = tool("clang++", package="clang")`.
    """
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs tool: {name} (Debian package {package or name}; make system-deps)")
    return found


def linux() -> None:
    """Skip on other systems than Linux."""
    if sys.platform != "linux":
        pytest.skip(f"another operating system: {sys.platform}")


def forbidden_skip(reason: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return an error message about a skip with this reason, or None if it is allowed.

    >>> forbidden_skip("needs tool: clang++", {}) is None
    True
    """
    if environment.get("CI", "").lower() not in {"1", "true", "yes"}:
        return None
    bare = reason.removeprefix("Skipped: ")
    if bare.startswith(ALLOWED_ON_CI):
        return None
    return f"with CI=true this skip is a failure: {bare}"
