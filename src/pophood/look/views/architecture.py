"""Architecture: a diagram of the loaded model, drawn from its configuration, with one block in detail."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from pophood.config import ModelConfig
from pophood.look.blocks import Block, Lines
from pophood.look.boxes import Box, block_parameters, boxes_of
from pophood.look.source import ViewSource, model_title
from pophood.look.view import View
from pophood.model.lm import LM
from pophood.table import Table, count

# Box-drawing characters and their ASCII replacements.
_TWINS = str.maketrans("│─┌┐└┘├┤┬┴⊕▼×", "|-++++++++@vx")


@dataclass(frozen=True)
class ArchitectureView(View):
    """The steps of one model, and the sizes that the talk lists."""

    config: ModelConfig
    boxes: tuple[Box, ...]

    @property
    def headline(self) -> str:
        return (
            f"Architecture of {model_title(self.source.model)}: {self.config.n_params:,} parameters,"
            f" {count(self.config.n_layer, 'block')}, one of them in detail"
        )

    @property
    def alt(self) -> str:
        steps = ", ".join(
            f"{box.title} {box.output}"
            + (f" with {count(box.parameters, 'parameter')}" if box.parameters else "")
            for box in self.boxes
        )
        read = " read the same stream and" if self.config.parallel else ""
        return (
            f"Diagram from token ids to probabilities. {self.block_line}. Attention and feed-forward{read}"
            f" each add their result to the stream. In order: {steps}."
        )

    @property
    def block_line(self) -> str:
        """The number of blocks and their parameters, as one line."""
        each, blocks = block_parameters(self.config), self.config.n_layer
        return f"block × {blocks}: {each:,} parameters each, {each * blocks:,} together"

    @property
    def facts(self) -> tuple[tuple[str, int], ...]:
        """The sizes on the talk's page 34, in its order, and the number of parameters."""
        config = self.config
        return (
            ("Transformer blocks", config.n_layer),
            ("Attention heads", config.n_head),
            ("Embedding size", config.n_embd),
            ("Context length", config.n_positions),
            ("Vocabulary size", config.vocab_size),
            ("Parameters", config.n_params),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        notes = [
            "T is the number of tokens, at most the context length. Matrices are written inputs x outputs.",
            "Dropout acts only in training and is not drawn.",
        ]
        if self.config.tied_output:
            notes.append("The output matrix is the token embedding again (tied): counted there, so 0 here.")
        if self.config.n_kv_head != self.config.n_head:
            shared = self.config.n_head // self.config.n_kv_head
            notes.append(f"Every {shared} query heads share one key and value head.")
        return (*notes, *_differing_blocks(self.config))

    def tables(self) -> dict[str, Table]:
        """Return `facts` (the talk's page 34) and `boxes`."""
        rows = tuple((box.stack, box.title, box.weights, box.output, box.parameters) for box in self.boxes)
        columns = ("part", "step", "weights", "output", "parameters")
        return {"facts": Table(("fact", "value"), self.facts), "boxes": Table(columns, rows)}

    @property
    def sums(self) -> dict[Literal["attention", "feed-forward"], str]:
        """The addition below each stack of a block in words; "" where nothing is added yet."""
        if self.config.parallel:
            return {"attention": "", "feed-forward": "X_new = X + dX (attention) + dX (feed-forward)"}
        return {name: f"X_new = X + dX ({name})" for name in ("attention", "feed-forward")}

    def picture(self) -> tuple[Block, ...]:
        lines = "\n".join(f"{name}: {_number(name, value)}" for name, value in self.facts)
        diagram = self.diagram()
        return (Lines("Sizes", lines, lines), Lines(self.title, diagram, diagram.translate(_TWINS)))

    def diagram(self) -> str:
        """Return the diagram in box-drawing characters."""
        stacks = {stack: list(boxes) for stack, boxes in groupby(self.boxes, key=lambda box: box.stack)}
        widths = [max(map(len, column)) for column in zip(*map(_cells, self.boxes), strict=True)]
        drawn = [_residual(_stack(stacks[name], widths), sum_) for name, sum_ in self.sums.items()]
        inner = [line for lines in drawn for line in lines]
        wide = len(inner[0]) + 2
        head = f"─ {self.block_line} "
        return "\n".join(
            [
                "  token ids (T)",
                "  │",
                *_stack(stacks["embedding"], widths),
                f"  │ the stream: (T, {self.config.n_embd})",
                f"┌{head}{'─' * (wide - len(head))}┐",
                *(f"│ {line.ljust(wide - 2)} │" for line in inner),
                f"└{'─' * wide}┘",
                "  │",
                *_stack(stacks["output"], widths),
            ]
        )


def architecture(lm: LM) -> ArchitectureView:
    """Return the model's diagram and sizes; no weight is read.

    print(look.architecture(lm).diagram())
    look.architecture(lm).tables()["facts"]         # Transformer blocks: 12, Attention heads: 12 ...
    """
    return ArchitectureView(ViewSource.of(lm), lm.config, boxes_of(lm.config))


def _number(name: str, value: int) -> str:
    """Format a size as the talk does: a comma in the vocabulary size, none in the context length."""
    return f"{value:,}" if name in ("Vocabulary size", "Parameters") else str(value)


def _cells(box: Box) -> tuple[str, str, str, str]:
    return box.title, box.weights, box.output, f"{box.parameters:,}" if box.parameters else "-"


def _stack(boxes: list[Box], widths: list[int]) -> list[str]:
    """Draw several steps as one box, one line each."""
    rows = []
    for box in boxes:
        *texts, numbers = _cells(box)
        text = " ".join(cell.ljust(size) for cell, size in zip(texts, widths, strict=False))
        rows.append(f"│ {text} {numbers:>{widths[-1]}} │")
    edge = "─" * (len(rows[0]) - 2)
    return [f"┌{edge}┐", *rows, f"└{edge}┘"]


def _residual(stack: list[str], addition: str) -> list[str]:
    """Draw the residual stream to the left of a stack: it branches above and adds the output below."""
    wide = len(stack[0]) + 4
    below = f"⊕───┘ {addition}" if addition else "│   └── its dX is added below, with the next"
    return ["├───┐".ljust(wide), *(f"│   {line}" for line in stack), below.ljust(wide)]


def _differing_blocks(config: ModelConfig) -> list[str]:
    """Return notes about scores, windows and rotations, which the boxes of one block leave out."""
    notes = []
    if config.attention_scale is not None:
        notes.append(
            f"Scores are multiplied by {config.attention_scale:g}; others use 1 / sqrt({config.head_dim})."
        )
    blocks = config.block_attention
    for window in sorted({block.window for block in blocks if block.window is not None}):
        own = [i for i, block in enumerate(blocks) if block.window == window]
        notes.append(
            f"In {_block_words(own, len(blocks))}, a token sees {window:,} tokens (attention window)."
        )
    still = [i for i, block in enumerate(blocks) if block.rope is None]
    if config.rope is not None and still:
        notes.append(f"In {_block_words(still, len(blocks))}, queries and keys are not rotated.")
    local = [i for i, block in enumerate(blocks) if block.rope not in (None, config.rope)]
    if local:
        words = _block_words(local, len(blocks))
        notes.append(f"In {words}, queries and keys are rotated by other angles than in the others.")
    return notes


def _block_words(numbers: list[int], of: int) -> str:
    """Return blocks in words.

    >>> _block_words([0, 2], 4), _block_words([0, 1], 2)
    ('blocks 0, 2', 'every block')
    """
    if len(numbers) == of:
        return "every block"
    return f"block{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
