"""`settings.json` in pophood's home: what `pophood use` chose."""

from __future__ import annotations

import json

from pophood.errors import BadFile
from pophood.system import atomic_write, check_home, disk_errors, home


def chosen_model() -> str | None:
    """The model that `use` chose, or None. Raises BadFile for settings that cannot be read.

    Raises BadInput for a home that cannot be used.
    """
    check_home()
    path = home() / "settings.json"
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(
            f"{path}: not readable as JSON ({error}): choose again with `pophood use NAME`"
        ) from None
    model = settings.get("model") if isinstance(settings, dict) else 0
    if model is not None and not isinstance(model, str):
        raise BadFile(f'{path}: wanted {{"model": "NAME"}}: choose again with `pophood use NAME`')
    return model or None


def choose_model(name: str | None) -> None:
    """Remember a model for the commands that name none; None forgets it. Raises as `chosen_model` does."""
    check_home()
    path = home() / "settings.json"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps({"model": name}, indent=2) + "\n").encode())
