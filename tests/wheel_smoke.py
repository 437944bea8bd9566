"""Checks an installed pophood: makes a tiny model, loads it, generates, and runs the command.

The wheel check and cibuildwheel run it in an environment with nothing else. It imports the installed package,
never the source tree beside it, and no test library.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Raise an AssertionError if the installed package does not work."""
    import pophood

    place = Path(pophood.__file__).resolve()
    assert ROOT / "src" not in place.parents, f"got the source tree: {place}; wanted an installed package"
    sys.path.append(str(ROOT))
    from tests.tiny import tiny_folder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny"
        tiny_folder(path, "gpt2")
        lm = pophood.load(str(path), precision="f32")
        greedy = [lm.generate("a b c", max_tokens=8, temperature=0.0, seed=1).text for _ in range(2)]
        assert greedy[0] == greedy[1], greedy
        assert lm.logits("a b c").shape == (len(lm.tokenize("a b c")), lm.config.vocab_size)
        command = [
            sys.executable,
            "-m",
            "pophood",
            "run",
            "a b c",
            "--model",
            str(path),
            "--greedy",
            "--json",
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
        assert result.returncode == 0, result.stderr
    heavy = {"torch", "transformers", "pytest"} & set(sys.modules)
    assert not heavy, heavy
    print(f"pophood {pophood.__version__} works from {place.parent}")


if __name__ == "__main__":
    main()
