"""Data: texts, tables and conversations to batches of ids, in bounded memory. NumPy only, no torch.

files ─► lines, raw, tables ─► layouts ─► encode (template, mask) ─► store (mapped ids) ─► examples, packing
         bytes to records      fields     ids, what is learned       kept between runs     sides     batches

data = open_data("notes.jsonl", tokenizer, template, DataOptions(length=256))
order = Order(data.train, batch_size=4, length=256, seed=42)
order.batch(epoch=0, index=0).tokens  # [B, T]
"""

from pophood.train.data.dataset.batch import IGNORED, Batch
from pophood.train.data.dataset.data_report import BadLine, DataReport, Progress
from pophood.train.data.dataset.dataset import Data, open_data
from pophood.train.data.dataset.examples import Example, Examples
from pophood.train.data.dataset.packing import Order
from pophood.train.data.dataset.preview import STATES, Shown, ShownPiece, show
from pophood.train.data.encode.default_template import base_template, base_template_source, end_id
from pophood.train.data.options import LAYOUTS, DataOptions

__all__ = [
    "IGNORED",
    "LAYOUTS",
    "STATES",
    "BadLine",
    "Batch",
    "Data",
    "DataOptions",
    "DataReport",
    "Example",
    "Examples",
    "Order",
    "Progress",
    "Shown",
    "ShownPiece",
    "base_template",
    "base_template_source",
    "end_id",
    "open_data",
    "show",
]
