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
from pophood.phrases import later, phrase
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
        return phrase(
            "Architecture of {model}: {parameters:,} parameters, {blocks}, one of them in detail",
            model=model_title(self.source.model),
            parameters=self.config.n_params,
            blocks=count(self.config.n_layer, "block"),
        )

    @property
    def alt(self) -> str:
        steps = ", ".join(
            f"{box.title} {box.output}"
            + (
                phrase(" with {parameters}", parameters=count(box.parameters, "parameter"))
                if box.parameters
                else ""
            )
            for box in self.boxes
        )
        read = phrase(" read the same stream and") if self.config.parallel else ""
        return phrase(
            "Diagram from token ids to probabilities. {block_line}. Attention and "
            "feed-forward{read} each add their result to the stream. In order: {steps}.",
            block_line=self.block_line,
            read=read,
            steps=steps,
        )

    @property
    def block_line(self) -> str:
        """The number of blocks and their parameters, as one line."""
        each, blocks = block_parameters(self.config), self.config.n_layer
        return phrase(
            "block × {blocks}: {each:,} parameters each, {all:,} together",
            blocks=blocks,
            each=each,
            all=each * blocks,
        )

    @property
    def facts(self) -> tuple[tuple[str, int], ...]:
        """The sizes on the talk's page 34, in its order, and the number of parameters."""
        config = self.config
        return (
            (phrase("Transformer blocks"), config.n_layer),
            (phrase("Attention heads"), config.n_head),
            (phrase("Embedding size"), config.n_embd),
            (phrase("Context length"), config.n_positions),
            (phrase("Vocabulary size"), config.vocab_size),
            (phrase("Parameters"), config.n_params),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        notes = [
            phrase(
                "T is the number of tokens, at most the context length. Matrices are written "
                "inputs x outputs."
            ),
            phrase("Dropout acts only in training and is not drawn."),
        ]
        if self.config.tied_output:
            notes.append(
                phrase("The output matrix is the token embedding again (tied): counted there, so 0 here.")
            )
        if self.config.n_kv_head != self.config.n_head:
            shared = self.config.n_head // self.config.n_kv_head
            notes.append(phrase("Every {shared} query heads share one key and value head.", shared=shared))
        return (*notes, *_differing_blocks(self.config))

    def tables(self) -> dict[str, Table]:
        """Return `facts` (the talk's page 34) and `boxes`."""
        rows = tuple(
            (phrase(box.stack), box.title, box.weights, box.output, box.parameters) for box in self.boxes
        )
        columns = ("part", "step", "weights", "output", "parameters")
        return {"facts": Table(("fact", "value"), self.facts), "boxes": Table(columns, rows)}

    @property
    def sums(self) -> dict[Literal["attention", "feed-forward"], str]:
        """The addition below each stack of a block in words; "" where nothing is added yet."""
        if self.config.parallel:
            return {"attention": "", "feed-forward": phrase("X_new = X + dX (attention) + dX (feed-forward)")}
        return {
            "attention": phrase("X_new = X + dX (attention)"),
            "feed-forward": phrase("X_new = X + dX (feed-forward)"),
        }

    def picture(self) -> tuple[Block, ...]:
        lines = "\n".join(f"{name}: {_number(name, value)}" for name, value in self.facts)
        diagram = self.diagram()
        return (Lines(phrase("Sizes"), lines, lines), Lines(self.title, diagram, diagram.translate(_TWINS)))

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
                phrase("  token ids (T)"),
                "  │",
                *_stack(stacks["embedding"], widths),
                phrase("  │ the stream: (T, {features})", features=self.config.n_embd),
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
    return f"{value:,}" if name in (phrase("Vocabulary size"), phrase("Parameters")) else str(value)


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
    below = f"⊕───┘ {addition}" if addition else phrase("│   └── its dX is added below, with the next")
    return ["├───┐".ljust(wide), *(f"│   {line}" for line in stack), below.ljust(wide)]


def _differing_blocks(config: ModelConfig) -> list[str]:
    """Return notes about scores, windows and rotations, which the boxes of one block leave out."""
    notes = []
    if config.attention_scale is not None:
        notes.append(
            phrase(
                "Scores are multiplied by {scale:g}; others use 1 / sqrt({size}).",
                scale=config.attention_scale,
                size=config.head_dim,
            )
        )
    blocks = config.block_attention
    for window in sorted({block.window for block in blocks if block.window is not None}):
        own = [i for i, block in enumerate(blocks) if block.window == window]
        notes.append(
            phrase(
                "In {blocks}, a token sees {window:,} tokens (attention window).",
                blocks=_block_words(own, len(blocks)),
                window=window,
            )
        )
    still = [i for i, block in enumerate(blocks) if block.rope is None]
    if config.rope is not None and still:
        notes.append(
            phrase("In {blocks}, queries and keys are not rotated.", blocks=_block_words(still, len(blocks)))
        )
    local = [i for i, block in enumerate(blocks) if block.rope not in (None, config.rope)]
    if local:
        words = _block_words(local, len(blocks))
        notes.append(
            phrase(
                "In {words}, queries and keys are rotated by other angles than in the others.", words=words
            )
        )
    return notes


def _block_words(numbers: list[int], of: int) -> str:
    """Return blocks in words.

    >>> _block_words([0, 2], 4), _block_words([0, 1], 2)
    ('blocks 0, 2', 'every block')
    """
    if len(numbers) == of:
        return phrase("every block")
    words = later("blocks {numbers}") if len(numbers) > 1 else later("block {numbers}")
    return phrase(words, numbers=", ".join(map(str, numbers)))
