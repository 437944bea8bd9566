"""The parts of a model from its configuration: tensors, shapes and numbers of parameters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pophood.config import ModelConfig, tensor_shapes
from pophood.phrases import later

# Part -> (group, pattern of the canonical names of its tensors), in the order of the forward pass.
_PARTS: dict[str, tuple[str, str]] = {
    later("token embedding"): ("token embedding", r"embed\.token"),
    later("position embedding"): (later("positions"), r"embed\.position"),
    later("norms before attention"): (later("norms"), r".*\.ln_1\..*"),
    later("attention: query"): (later("attention"), r".*\.attn\.q\..*"),
    later("attention: key"): ("attention", r".*\.attn\.k\..*"),
    later("attention: value"): ("attention", r".*\.attn\.v\..*"),
    later("attention: query and key norms"): ("norms", r".*\.attn\.[qk]_norm\..*"),
    later("attention: output projection"): ("attention", r".*\.attn\.out\..*"),
    later("norms after attention"): ("norms", r".*\.ln_1_post\..*"),
    later("norms before feed-forward"): ("norms", r".*\.ln_2\..*"),
    later("feed-forward: gate"): (later("feed-forward"), r".*\.mlp\.gate\..*"),
    later("feed-forward: up"): ("feed-forward", r".*\.mlp\.up\..*"),
    later("feed-forward: down"): ("feed-forward", r".*\.mlp\.down\..*"),
    later("norms after feed-forward"): ("norms", r".*\.ln_2_post\..*"),
    later("final norm"): ("norms", r"final_norm\..*"),
    later("output matrix"): ("output matrix", r"output\.weight"),
}


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One kind of tensor: how many there are, their shapes, and their parameters in total."""

    name: str
    group: str
    tensors: int
    shapes: tuple[tuple[int, ...], ...]  # without repetition; [out, in] as everywhere in pophood
    parameters: int

    @property
    def shape_text(self) -> str:
        """The shapes as one text: "(3072, 768) + (3072)"."""
        return " + ".join(shape_text(shape) for shape in self.shapes)


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape: `shape_text((768,)) == "(768)"`."""
    return f"({', '.join(str(size) for size in shape)})"


def parts_of(config: ModelConfig) -> tuple[ModelPart, ...]:
    """Return every part with parameters, in the order of the forward pass, without a tied output matrix.

    Example: `sum(part.parameters for part in parts_of(config)) == config.n_params`.
    """
    shapes = tensor_shapes(config)
    parts = []
    for name, (group, pattern) in _PARTS.items():
        own = [shape for tensor, shape in shapes.items() if re.fullmatch(pattern, tensor)]
        if own:
            numbers = sum(math.prod(shape) for shape in own)
            parts.append(ModelPart(name, group, len(own), tuple(dict.fromkeys(own)), numbers))
    return tuple(parts)
