"""Feed-forward: 768 -> 3072 -> 768 for each token: the steps, the activation function, the strongest neurons.

The talk's page 29. A neuron is one feature of the inner layer; it adds its column of the down matrix to the
stream, multiplied by its activation. The output matrix shows which tokens such a column promotes (Geva et al.
2022, "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.look.arguments import checked_index, checked_position, trace_text
from pophood.look.blocks import Block
from pophood.look.math.activations import ACTIVATIONS, WRITTEN, gelu_difference
from pophood.look.math.settle import settled, settling, slopes
from pophood.look.math.unembed import Unembed
from pophood.look.source import PROMPT, model_title, quoted_token
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.model.trace import Trace
from pophood.phrases import phrase
from pophood.table import Table

Floats = NDArray[np.float32]
NEURONS, PROMOTED = 10, 4  # numbers of neurons, and of promoted tokens each


@dataclass(frozen=True, eq=False)
class Neuron:
    """One strong neuron: its activation, the length of the vector it adds, and the tokens it promotes."""

    number: int
    before: float  # the activation function's input
    activation: float  # the factor of the neuron's column
    length: float  # of activation * column
    promoted: tuple[tuple[str, float], ...]  # token and its gain in logits, largest first


@dataclass(frozen=True, eq=False)
class FeedForwardView(View):
    """One block's feed-forward layer on a text, and one token's strongest neurons."""

    layer: int
    token: int
    config: ModelConfig
    before: Floats  # [T, F]: input of the activation function
    activations: Floats  # [T, F]: input of the down matrix
    neurons: tuple[Neuron, ...]  # of the token, strongest first
    differences: tuple[float, ...]  # of the steps in NumPy from the engine's
    array_names = ("before", "activations", "active")

    @property
    def active(self) -> Floats:
        """The share of neurons whose input is above 0, for each token: [T]."""
        return np.asarray((self.before > 0).mean(axis=1), np.float32)

    @property
    def sizes(self) -> str:
        """The widths, as the talk writes them: "768 -> 3,072 -> 768"."""
        config = self.config
        return f"{config.n_embd:,} -> {config.n_inner:,} -> {config.n_embd:,}"

    @property
    def curve(self) -> str:
        """The name of the model's activation function."""
        return phrase(WRITTEN[self.config.activation])

    @property
    def _settling(self) -> str:
        words = settling(self.config)
        scaled = self.config.norm_places != "before"
        return phrase("{words}, whose scale is held fixed", words=words) if scaled else words

    @property
    def _divided(self) -> str:
        divisor = self.config.logit_divisor
        return "" if divisor == 1 else phrase(", divided by {divisor:g}", divisor=divisor)

    @property
    def headline(self) -> str:
        return phrase(
            "Feed-forward of block {layer} of {model}, {sizes}: its strongest neurons for "
            "{token}, and the tokens they promote",
            layer=self.layer,
            model=model_title(self.source.model),
            sizes=self.sizes,
            token=quoted_token(self.source, self.token),
        )

    @property
    def alt(self) -> str:
        first = self.neurons[0]
        words = ", ".join(repr(text) for text, _ in first.promoted)
        return phrase(
            "Bars of the {strongest} strongest of {neurons:,} neurons. The first, neuron "
            "{number}, has activation {activation:.2f} and promotes {words}. {active:.0%} "
            "of the neurons are active for this token. The activation function is "
            "{curve}{what}.",
            strongest=len(self.neurons),
            neurons=self.config.n_inner,
            number=first.number,
            activation=first.activation,
            words=words,
            active=self.active[self.token],
            curve=self.curve,
            what=phrase(", with a gate") if self.config.gated_mlp else "",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        largest, place = gelu_difference()
        if self.config.activation == "silu":
            curve = phrase(
                "This model's activation function is {curve}; the talk's GELU is drawn beside it.",
                curve=self.curve,
            )
        else:
            curve = phrase(
                "The talk gives GELU(x) = x * Phi(x); this model computes the {curve}. The "
                "tanh form and x * Phi(x) differ by {largest:.1e} at most, near |x| = "
                "{place:.1f}.",
                curve=self.curve,
                largest=largest,
                place=place,
            )
        function = "silu" if self.config.activation == "silu" else "gelu"
        gate = phrase(
            "It is applied to a gate, which multiplies the up projection: down({function}(gate) * up).",
            function=function,
        )
        centred = phrase("minus its mean, ") if self.config.norm == "layer" else ""
        return (
            curve,
            *([gate] if self.config.gated_mlp else []),
            phrase(
                "A neuron is active if the input of its activation function is above 0; the "
                "strongest add the longest vectors (activation times column of the down "
                "matrix{settling}).",
                settling=self._settling,
            ),
            phrase(
                "Promoted tokens: that vector, {centred}times the gain of the final norm, "
                "divided by the token's own final-norm scale (held fixed), times the output "
                "matrix{divided}. This is the neuron's direct contribution to the logits, "
                "without its effect on later blocks.",
                centred=centred,
                divided=self._divided,
            ),
        )

    def tables(self) -> dict[str, Table]:
        """Return `steps`, `neurons` (with promoted tokens) and `active` (share per token)."""
        neurons = tuple(
            (n.number, n.before, n.activation, n.length, *(text for text, _ in n.promoted), n.promoted[0][1])
            for n in self.neurons
        )
        columns = ("neuron", "input", "activation", "length")
        promoted = tuple(f"promotes_{i + 1}" for i in range(len(self.neurons[0].promoted)))
        tokens = self.source.tokens
        active = tuple(zip(range(len(tokens)), tokens, self.active.tolist(), strict=True))
        return {
            "steps": self._steps_table(),
            "neurons": Table(
                (*columns, *promoted, "gains"),
                neurons,
                title=phrase(
                    "strongest neurons for {token}; gains: the gain of the first promoted token, in logits",
                    token=quoted_token(self.source, self.token),
                ),
                decimals={**dict.fromkeys(columns[1:], 3), "gains": 2},
            ),
            "active": Table(
                ("position", "token_text", "active"),
                active,
                bars="active",
                title=phrase("share of the {neurons:,} neurons that are active", neurons=self.config.n_inner),
            ),
        }

    def _steps_table(self) -> Table:
        config, tokens = self.config, len(self.source.ids)
        narrow, wide = f"({tokens}, {config.n_embd})", f"({tokens}, {config.n_inner})"
        widened = f"{config.n_embd:,} -> {config.n_inner:,}"
        gate = [(phrase("gate"), f"@ W_gate: {widened}", wide)] if config.gated_mlp else []
        first = ("ln_2", phrase("the block's second norm"), narrow)
        steps = [
            first if config.norm_places != "after" else (phrase("stream"), phrase("no norm before"), narrow),
            *gate,
            (phrase("up"), f"@ W_up: {widened}", wide),
            (config.activation, self.curve + (phrase(", of the gate, times up") if gate else ""), wide),
            (phrase("down"), f"@ W_down: {config.n_inner:,} -> {config.n_embd:,}{settling(config)}", narrow),
        ]
        differences = ("-", *(f"{difference:.1e}" for difference in self.differences))
        return Table(
            ("step", "computed", "shape", "difference"),
            tuple((*step, difference) for step, difference in zip(steps, differences, strict=True)),
            title=phrase("each step in NumPy, and its largest difference from the engine"),
        )

    def picture(self) -> tuple[Block, ...]:
        tables = self.tables()
        short = len(self.source.ids) <= 40
        return (tables["steps"], tables["neurons"], *([tables["active"]] if short else []))


def feedforward(lm: LM, text: Text = PROMPT, *, layer: int = 0, token: int = -1) -> FeedForwardView:
    """Show one block's feed-forward layer on a text; `token` is the position whose neurons are listed.

    Activations are [tokens, neurons]. Layers and positions count from 0, -1 is the last. Raises BadInput for
    a layer or a token that does not exist.

        feedforward(lm, layer=11).neurons[0].promoted
    """
    config = lm.config
    index = checked_index("layer", layer, config.n_layer, lm.name)
    block = f"blocks.{index}"
    gate = ("mlp.up",) if config.gated_mlp else ()
    parts = (_input(config), "mlp.pre", *gate, "mlp.post", "mlp.out")
    last = f"blocks.{config.n_layer - 1}.resid_post"
    source, trace = trace_text(lm, text, [*(f"{block}.{part}" for part in parts), last])
    position = checked_position(token, source)
    neurons = _strongest(lm, trace, index, position, trace[last][position])
    before, after = trace[f"{block}.mlp.pre"], trace[f"{block}.mlp.post"]
    differences = _differences(lm, trace, index)
    return FeedForwardView(source, index, position, config, before, after, neurons, differences)


def _strongest(lm: LM, trace: Trace, layer: int, position: int, final: Floats) -> tuple[Neuron, ...]:
    """Return the neurons that add the longest vectors; `final` [C] is the token's last hidden state."""
    down = lm.weights[f"blocks.{layer}.mlp.down.weight"]
    activation = trace[f"blocks.{layer}.mlp.post"][position]
    if settling(lm.config):
        total = _linear(lm, f"blocks.{layer}.mlp.down", activation[None]).astype(np.float64)
        gain, divisor = slopes(lm.weights, lm.config, layer, "mlp", total)
        down = (down * (gain * lm.config.residual_scale / divisor)[:, None]).astype(np.float32)
    lengths = np.abs(activation) * np.linalg.norm(down, axis=0)
    order = np.argsort(-lengths, kind="stable")[:NEURONS]
    gains = _direct_logits((down[:, order] * activation[order]).T, final, Unembed.of(lm))
    spell = lm.bundle.tokenizer.token_text
    before = trace[f"blocks.{layer}.mlp.pre"][position]
    neurons = []
    for neuron, row in zip(order, gains, strict=True):
        best = np.argsort(-row, kind="stable")[:PROMOTED]
        promoted = tuple((spell(int(i)), float(row[i])) for i in best)
        strength = (float(before[neuron]), float(activation[neuron]), float(lengths[neuron]))
        neurons.append(Neuron(int(neuron), *strength, promoted))
    return tuple(neurons)


def _direct_logits(vectors: Floats, final: Floats, end: Unembed) -> Floats:
    """Return the logits [N, V] that parts [N, C] of a hidden state [C] add, with the norm's scale fixed."""
    rows, whole = vectors.astype(np.float64), final.astype(np.float64)
    if end.shift is not None:  # a layer norm subtracts the mean
        rows -= rows.mean(axis=1, keepdims=True)
        whole -= whole.mean()
    scale = np.sqrt(np.square(whole).mean() + end.eps)
    return end.products((rows * end.gain / scale).astype(np.float32))


def _differences(lm: LM, trace: Trace, layer: int) -> tuple[float, ...]:
    """Return the largest |a - b| of every step in NumPy, each computed from the engine's own input."""
    block, activation = f"blocks.{layer}", ACTIVATIONS[lm.config.activation]
    x, before = trace[f"{block}.{_input(lm.config)}"], trace[f"{block}.mlp.pre"]
    after = activation(before.astype(np.float64))
    errors = [_linear(lm, f"{block}.mlp.{'gate' if lm.config.gated_mlp else 'up'}", x) - before]
    if lm.config.gated_mlp:
        up = trace[f"{block}.mlp.up"]
        errors.append(_linear(lm, f"{block}.mlp.up", x) - up)
        after = after * up
    errors.append(after - trace[f"{block}.mlp.post"])
    down = _linear(lm, f"{block}.mlp.down", trace[f"{block}.mlp.post"]).astype(np.float64)
    errors.append(settled(lm.weights, lm.config, layer, "mlp", down) - trace[f"{block}.mlp.out"])
    return tuple(float(np.abs(error).max()) for error in errors)


def _input(config: ModelConfig) -> str:
    """Return the tap that the feed-forward reads: its norm, or the stream in models without one there."""
    return "ln_2" if config.norm_places != "after" else "resid_pre" if config.parallel else "resid_mid"


def _linear(lm: LM, name: str, x: Floats) -> Floats:
    product = x @ lm.weights[f"{name}.weight"].T
    return product + lm.weights[f"{name}.bias"] if lm.config.mlp_bias else product
