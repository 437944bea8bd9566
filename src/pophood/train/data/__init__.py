"""Data: texts, tables and conversations to batches of ids, in bounded memory. NumPy only, no torch.

read/      files ─► lines, JSON records, CSV records ─► layouts     bytes to records and their fields
encode/    chat template, loss mask                                 records to ids, and which are learned
dataset/   store ─► cache ─► examples ─► packing                    ids kept between runs, to batches

data = open_data("notes.jsonl", tokenizer, template, DataOptions(length=256))
sampler = PackedSampler(data.train, batch_size=4, length=256, seed=42)
sampler.batch(epoch=0, index=0).tokens  # [B, T]
"""

from pophood.train.data.dataset.data_report import BadLine, DataProgress, DataReport
from pophood.train.data.dataset.dataset import Data, open_data
from pophood.train.data.dataset.examples import Example, Examples
from pophood.train.data.dataset.packing import IGNORED, Batch, PackedSampler
from pophood.train.data.dataset.preview import STATES, Preview, PreviewPiece, previews
from pophood.train.data.encode.default_template import base_template, base_template_source, end_id
from pophood.train.settings import LAYOUTS, DataOptions

__all__ = [
    "IGNORED",
    "LAYOUTS",
    "STATES",
    "BadLine",
    "Batch",
    "Data",
    "DataOptions",
    "DataProgress",
    "DataReport",
    "Example",
    "Examples",
    "PackedSampler",
    "Preview",
    "PreviewPiece",
    "base_template",
    "base_template_source",
    "end_id",
    "open_data",
    "previews",
]


_RENAMED = {"Order": PackedSampler, "Progress": DataProgress, "Shown": Preview, "ShownPiece": PreviewPiece}


def __getattr__(name: str) -> type:
    """Return a class under its old name, with a DeprecationWarning; the old names go in 0.3."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    new = _RENAMED[name]
    warnings.warn(f"pophood.train.data.{name} is now {new.__name__}", DeprecationWarning, stacklevel=2)
    return new
