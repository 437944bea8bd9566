"""Good safetensors files are read exactly as by the reference package; shards stay in their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pophood.errors import BadFile, Unsupported
from pophood.formats import find_weights, open_safetensors, open_sharded
from pophood.formats.safetensors import DTYPE_BITS
from pophood.formats.sniff import weights_at
from pophood.system import atomic_write
from tests.formats.safetensors_bytes import floats, packed, sharded
from tests.needs import linux

WHOLE_BYTES = sorted(name for name, bits in DTYPE_BITS.items() if bits % 8 == 0)


def agrees_with_the_reference(path: Path) -> None:
    """Check that we read the same names, dtypes, shapes and bytes as the safetensors package."""
    library = pytest.importorskip("safetensors", reason="needs Python package: safetensors")
    theirs = dict(library.deserialize(path.read_bytes()))
    with open_safetensors(path) as file:
        assert file.tensors.keys() == theirs.keys()
        for name, tensor in file.tensors.items():
            assert tensor.type == theirs[name]["dtype"]
            assert list(tensor.shape) == theirs[name]["shape"]
            assert tensor.data.tobytes() == bytes(theirs[name]["data"])


def test_every_dtype_of_the_reference(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors", reason="needs Python package: safetensors")
    path = tmp_path / "all.safetensors"
    header, data = {}, b""
    for name, bits in DTYPE_BITS.items():
        size = 3 * 8 * bits // 8
        header[name] = {"dtype": name, "shape": [3, 8], "data_offsets": [len(data), len(data) + size]}
        data += os.urandom(size)
    path.write_bytes(packed(header, data))
    agrees_with_the_reference(path)
    with pytest.raises(library.SafetensorError) as refusal:  # its message lists every dtype that it knows
        library.deserialize(packed({"x": {"dtype": "?", "shape": [], "data_offsets": [0, 0]}}))
    for name in DTYPE_BITS:
        assert f"`{name}`" in str(refusal.value)
    assert str(refusal.value).split("expected")[1].count("`") == 2 * len(DTYPE_BITS)


def test_values_by_type(tmp_path: Path) -> None:
    path = tmp_path / "values.safetensors"
    f32, f16, bf16 = np.arange(4, dtype="<f4"), np.arange(4, dtype="<f2"), np.array([0x3F80, 0xC000], "<u2")
    parts = {"a": ("F32", [2, 2], f32), "b": ("F16", [4], f16), "c": ("BF16", [2], bf16)}
    mask = ("BOOL", [1, 4], np.ones(4, "u1"))
    header, data = {}, b""
    for name, (dtype, shape, array) in (parts | {"mask": mask}).items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    path.write_bytes(packed(header | {"__metadata__": {"format": "pt"}}, data))
    with open_safetensors(path) as file:
        assert file.metadata == {"format": "pt"} and len(file) == 4 and list(file) == ["a", "b", "c", "mask"]
        assert np.array_equal(file["a"].values(), f32.reshape(2, 2))
        assert file["b"].values().dtype == np.float16 and file["b"].decode().tolist() == [0, 1, 2, 3]
        assert file["c"].values().dtype == np.uint16 and file["c"].decode().tolist() == [1, -2]
        assert file["mask"].shape == (1, 4) and file["mask"].nbytes == 4
        for ask in (file["mask"].values, file["mask"].decode, file["mask"].nonfinite):
            with pytest.raises(
                Unsupported, match="tensor 'mask' holds BOOL: pophood computes with F32, F16, BF16"
            ):
                ask()


@pytest.mark.parametrize("padding", range(8))
def test_tensors_off_their_natural_boundary(tmp_path: Path, padding: int) -> None:
    path = tmp_path / "odd.safetensors"
    values = np.arange(5, dtype="<f4")
    header = {"w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}}
    path.write_bytes(packed(header, values.tobytes(), padding=padding))
    with open_safetensors(path) as file:
        read = file["w"].values()
        assert read.flags.aligned and not read.flags.writeable and read.tolist() == [0, 1, 2, 3, 4]
        assert np.array_equal(file["w"].decode(), values)


def test_absent_metadata_may_be_null(tmp_path: Path) -> None:
    path = tmp_path / "null.safetensors"
    path.write_bytes(packed({"__metadata__": None}))
    agrees_with_the_reference(path)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=10).filter(
    lambda name: name != "__metadata__"
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.dictionaries(
        NAMES, st.tuples(st.sampled_from(WHOLE_BYTES), st.lists(st.integers(0, 4), max_size=4)), max_size=6
    ),
    metadata=st.none()
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), NAMES, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_good_file(
    tmp_path: Path, tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape, dtype=int)) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += rng.bytes(size)
    path = tmp_path / "any.safetensors"
    path.unlink(missing_ok=True)
    path.write_bytes(packed(header, data))
    agrees_with_the_reference(path)
    with open_safetensors(path) as file:
        assert file.metadata == (metadata or {})


def test_a_file_by_the_references_own_writer(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="needs Python package: safetensors")
    path = tmp_path / "written.safetensors"
    library.save_file({"w": np.eye(3, dtype=np.float32), "n": np.arange(3)}, path, {"by": "safetensors"})
    agrees_with_the_reference(path)


# Shards ------------------------------------------------------------------------------------------------


def test_shards_read_as_one(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a.safetensors": {"x": [1.0], "y": [2.0]}, "b.safetensors": {"z": [3.0]}})
    with open_sharded(index) as file:
        assert {name: tensor.values().tolist() for name, tensor in file.tensors.items()} == {
            "x": [1.0],
            "y": [2.0],
            "z": [3.0],
        }
        assert file["z"].name == "z" and file.metadata == {"format": "pt"}


def test_the_hugging_face_cache_is_read_through_its_links(tmp_path: Path) -> None:
    linux()
    repository = tmp_path / "hub" / "models--openai--tiny"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    index = sharded(snapshot, {"a.safetensors": {"x": [1.0]}, "b.safetensors": {"z": [3.0]}})
    for path in (snapshot / "a.safetensors", snapshot / "b.safetensors", index):
        blob = blobs / f"sha-of-{path.name}"
        path.rename(blob)
        path.symlink_to(Path("../../blobs") / blob.name)
    with open_sharded(index) as file:
        assert sorted(file) == ["x", "z"]
    # the cache itself behind a link, as people with a small home directory have it
    (tmp_path / "elsewhere").symlink_to(tmp_path / "hub")
    with open_sharded(tmp_path / "elsewhere" / index.relative_to(tmp_path / "hub")) as file:
        assert sorted(file) == ["x", "z"]


def test_links_within_the_folder_work(tmp_path: Path) -> None:
    linux()
    index = sharded(tmp_path, {"a.safetensors": {"x": [1.0]}})
    (tmp_path / "a.safetensors").rename(tmp_path / "real.safetensors")
    (tmp_path / "a.safetensors").symlink_to("real.safetensors")
    with open_sharded(index) as file:
        assert sorted(file) == ["x"]


@pytest.mark.parametrize("target", ["outside.safetensors", "hub/models--b/blobs/x", "hub/models--a/refs/x"])
def test_links_are_followed_wherever_they_lead(tmp_path: Path, target: str) -> None:
    linux()
    folder = tmp_path / "hub" / "models--a" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    index = sharded(folder, {"a.safetensors": {"x": [1.0]}})
    outside = tmp_path / target
    outside.parent.mkdir(parents=True, exist_ok=True)
    (folder / "a.safetensors").rename(outside)
    (folder / "a.safetensors").symlink_to(outside)
    with open_sharded(index) as file:
        assert file["x"].values().tolist() == [1.0]
    outside.unlink()
    with pytest.raises(
        BadFile, match=r"'a\.safetensors' is a link to a file that is missing: mount its disk"
    ):
        open_sharded(index)


@pytest.mark.parametrize("stem", ["model", "consolidated", "pytorch_model.fp16"])
def test_shards_without_an_index_are_one_model(tmp_path: Path, stem: str) -> None:
    names = [f"{stem}-{i:05}-of-00004.safetensors" for i in range(1, 5)]
    sharded(tmp_path, {name: {f"w{i}": [float(i)]} for i, name in enumerate(names)})
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no weights of the model")
    assert find_weights(tmp_path) == weights_at(tmp_path / names[2]) == tmp_path / names[0]
    with open_sharded(tmp_path / names[0]) as file:
        assert {name: tensor.values().tolist() for name, tensor in file.tensors.items()} == {
            f"w{i}": [float(i)] for i in range(4)
        }
    (tmp_path / names[3]).write_bytes(floats({"w0": [3.0]}))
    with pytest.raises(BadFile, match=r"00004-of-00004.*the tensor 'w0' is also in another shard"):
        open_sharded(tmp_path / names[0])
    (tmp_path / names[3]).unlink()
    with pytest.raises(BadFile, match=f"the file '{names[3]}' is missing: fetch the model again"):
        open_sharded(tmp_path / names[0])


def test_a_shard_means_its_index(tmp_path: Path) -> None:
    names = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    index = sharded(tmp_path, {name: {name: [1.0]} for name in names})
    for name in names:
        assert weights_at(tmp_path / name) == index
    other = index.rename(tmp_path / "other.safetensors.index.json")
    assert find_weights(tmp_path) == tmp_path / names[0]
    assert weights_at(other) == other


def test_saving_over_a_file_that_is_still_mapped(tmp_path: Path) -> None:
    linux()
    path = tmp_path / "model.safetensors"
    header = {"w": {"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}}
    old, new = np.arange(1024, dtype="<f4"), np.arange(1024, dtype="<f4")[::-1]
    path.write_bytes(packed(header, old.tobytes()))
    file = open_safetensors(path)
    view = file["w"].values()
    atomic_write(path, packed(header, (view[::-1]).tobytes()))
    assert np.array_equal(view, old), "the open model keeps its bytes"
    with open_safetensors(path) as again:
        assert np.array_equal(again["w"].values(), new), "the file has the new ones, no zeros"
    assert json.loads(path.read_bytes()[8:].split(b"}}")[0] + b"}}")["w"]["dtype"] == "F32"
