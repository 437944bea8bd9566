"""The fake hub is like the real one: huggingface_hub downloads from it, pophood reads the cache it made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pophood import hub as pophood_hub
from pophood.errors import BadInput
from tests import processes
from tests.hub.fake_hub import FakeHub, gpt2_files

DOWNLOAD = """
import sys
from huggingface_hub import HfApi, snapshot_download
info = HfApi().model_info("openai-community/gpt2", files_metadata=True)
assert {s.rfilename: s.size for s in info.siblings}["model.safetensors"] == 300000, info
print(snapshot_download("openai-community/gpt2", allow_patterns=sys.argv[1:] or None))
"""


def snapshot_download(hub: FakeHub, *patterns: str) -> Path:
    """Run `hf download` with the fake hub and this test's HF_HOME."""
    environment = os.environ | {
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    done = processes.run(
        [sys.executable, "-c", DOWNLOAD, *patterns],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1])


def test_huggingface_hub_downloads_from_it_and_its_cache_is_read_in_place(hub: FakeHub) -> None:
    files = gpt2_files()
    commit = hub.add("openai-community/gpt2", files)
    snapshot = snapshot_download(hub)
    assert {name: (snapshot / name).read_bytes() for name in files} == files
    hub.asked.clear()

    for name in ("gpt2", "openai-community/gpt2"):
        found = pophood_hub.locate(name)
        assert (found.name, found.where, found.path, found.revision) == ("gpt2", "hf-cache", snapshot, commit)
    assert found.licence == "MIT (modified)"
    assert pophood_hub.default_choice() == pophood_hub.DefaultChoice("gpt2", "found here")
    assert [(m.name, m.where, m.in_use) for m in pophood_hub.list_models()] == [("gpt2", "hf-cache", True)]
    assert pophood_hub.pull("gpt2", announce=lambda line: None).path == snapshot
    assert hub.asked == []

    with pytest.raises(BadInput, match="Hugging Face cache, which belongs to other programs: delete it with"):
        pophood_hub.remove("gpt2")
    assert (snapshot / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_cache_without_all_files_is_no_model(hub: FakeHub) -> None:
    commit = hub.add("openai-community/gpt2", gpt2_files())
    snapshot_download(hub, "config.json", "tokenizer.json", "pytorch_model.bin")
    assert pophood_hub.default_choice() is None
    found = pophood_hub.pull("gpt2", announce=lambda line: None)
    assert (found.where, found.revision) == ("store", commit)
