"""The arrays that transformers computes at the places of pophood's taps, recorded by hooks, by tap name.

Scores and rotated heads have no module of their own: there the functions that transformers calls (`softmax`,
`apply_rotary_pos_emb`) are listened to. One head's share of attn.out is the projection of that head alone.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from tests.tiny_folder import hf_config, hf_entries
from tests.tiny_values import Values

Floats = NDArray[np.float32]


class Listener:
    """Arrays by tap name, without the batch axis; `heads` splits a feature axis into heads."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.arrays: dict[str, Floats] = {}
        self.handles: list[Any] = []

    def keep(self, name: str, tensor: Any, heads: int = 0) -> None:
        """Record a tensor [1, T, ...]."""
        array: Floats = tensor.detach()[0].numpy().copy()
        self.arrays[name] = array.reshape(len(array), heads, -1) if heads else array

    def output(self, module: Any, name: str, heads: int = 0) -> None:
        """Record a module's output."""

        def listen(_module: Any, _inputs: Any, output: Any) -> None:
            self.keep(name, output[0] if isinstance(output, tuple) else output, heads)

        self.handles.append(module.register_forward_hook(listen))

    def input(self, module: Any, name: str, heads: int = 0) -> None:
        """Record a module's input."""

        def listen(_module: Any, inputs: Any) -> None:
            self.keep(name, inputs[0], heads)

        self.handles.append(module.register_forward_pre_hook(listen))

    def norm(self, module: Any, name: str) -> None:
        """Record a norm's output, and its output with gain 1 and shift 0."""
        bare = copy.deepcopy(module)
        bare.weight.data.fill_(1.0)
        if getattr(bare, "bias", None) is not None:
            bare.bias.data.fill_(0.0)

        def listen(_module: Any, inputs: Any, output: Any) -> None:
            self.keep(name, output)
            self.keep(f"{name}.normalized", bare(inputs[0]))

        self.handles.append(module.register_forward_hook(listen))

    def projection(self, module: Any, block: str) -> None:
        """Record z, attn.out, and each head's share of it without the bias."""
        heads = self.config.n_head

        def listen(_module: Any, inputs: Any, output: Any) -> None:
            z = inputs[0]
            alone = z.new_zeros(heads, *z.shape[1:])
            for head in range(heads):
                width = self.config.head_dim
                own = slice(head * width, (head + 1) * width)
                alone[head, :, own] = z[0, :, own]
            bias = 0.0 if module.bias is None else module.bias
            self.arrays[f"{block}.attn.result"] = (
                (module.forward(alone) - bias).permute(1, 0, 2).detach().numpy()
            )
            self.keep(f"{block}.attn.z", z, heads)
            self.keep(f"{block}.attn.out", output)

        self.handles.append(module.register_forward_hook(listen))


class InMemory:
    """Weights for `Engine.load`, made once: `InMemory(values)`."""

    def __init__(self, values: Values) -> None:
        self.arrays = dict(values.items())

    def stored(self, name: str) -> tuple[str, NDArray[np.generic]]:
        """Return the type and the values."""
        return "F32", self.arrays[name]

    def stored_type(self, name: str) -> str:
        """Return the type."""
        return "F32"


def reference_model(config: ModelConfig, weights: InMemory) -> Any:
    """Return the model in transformers, with the attention implementation that returns its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = hf_config(config)
    wanted = AutoConfig.for_model(settings.pop("model_type"), **settings)
    # On the meta device first if possible; a rotary model builds a table when it is made.
    with torch.device("meta" if config.rope is None else "cpu"):
        model = AutoModelForCausalLM.from_config(wanted, dtype=torch.float32, attn_implementation="eager")
    state = {
        entry.name: torch.from_numpy(entry.make()) for entry in hf_entries(config, weights.arrays.__getitem__)
    }
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.eval()


def truth_of(model: Any, config: ModelConfig, prompt: list[int]) -> dict[str, Floats]:
    """Return every tap by transformers in f32: `truth_of(model, config, ids)["logits"]`."""
    import torch

    listener = Listener(config)
    (listen_to_gpt2 if config.rope is None else listen_to_llama)(listener, model)
    scores: list[Floats] = []
    turned: list[tuple[Floats, Floats]] = []

    def turn(_given: Any, result: Any) -> None:
        turned.append((by_token(result[0]), by_token(result[1])))

    rotary = importlib.import_module(type(model).__module__)
    with (
        torch.no_grad(),
        heard(torch.nn.functional, "softmax", lambda given, _: scores.append(without_batch(given[0]))),
        heard(rotary, "apply_rotary_pos_emb", turn),
    ):
        result = model(torch.tensor([prompt]), output_attentions=True, output_hidden_states=True)
    for handle in listener.handles:
        handle.remove()
    arrays = listener.arrays
    arrays["logits"] = result.logits[0].numpy()
    for i in range(config.n_layer):
        arrays[f"blocks.{i}.attn.pattern"] = without_batch(result.attentions[i])
        arrays[f"blocks.{i}.attn.scores"] = scores[i]
        # hidden_states[i] is the input of block i; the last one is the output of the final norm.
        assert np.array_equal(arrays[f"blocks.{i}.resid_pre"], without_batch(result.hidden_states[i]))
        if turned:
            arrays[f"blocks.{i}.attn.rot_q"], arrays[f"blocks.{i}.attn.rot_k"] = turned[i]
    assert np.array_equal(arrays["final_norm"], without_batch(result.hidden_states[-1]))
    return arrays


@contextmanager
def heard(module: Any, name: str, tell: Callable[[Any, Any], object]) -> Iterator[None]:
    """Call `tell(arguments, result)` whenever module.name is called; do nothing if it does not exist."""
    original = getattr(module, name, None)
    if original is None:
        yield
        return

    def listening(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        tell(args, result)
        return result

    setattr(module, name, listening)
    try:
        yield
    finally:
        setattr(module, name, original)


def without_batch(tensor: Any) -> Floats:
    """Return [1, H, T, T] without the batch axis."""
    array: Floats = tensor.detach()[0].numpy().copy()
    return array


def by_token(tensor: Any) -> Floats:
    """Return [1, H, T, D] as [T, H, D]."""
    return without_batch(tensor).transpose(1, 0, 2)


def listen_to_gpt2(listener: Listener, model: Any) -> None:
    """Record GPT-2's modules."""
    body, heads = model.transformer, listener.config.n_head
    listener.output(body.wte, "embed.token")
    listener.output(body.wpe, "embed.position")
    for i, layer in enumerate(body.h):
        block = f"blocks.{i}"
        around(listener, layer, layer.ln_1, layer.ln_2, block)
        listener.handles.append(layer.attn.c_attn.register_forward_hook(split(listener, block, heads)))
        listener.projection(layer.attn.c_proj, block)
        listener.output(layer.mlp.c_fc, f"{block}.mlp.pre")
        listener.output(layer.mlp.act, f"{block}.mlp.post")
        listener.output(layer.mlp, f"{block}.mlp.out")
    listener.norm(body.ln_f, "final_norm")


def split(listener: Listener, block: str, heads: int) -> Callable[[Any, Any, Any], None]:
    """Return a hook that splits c_attn's output in three."""

    def listen(_module: Any, _inputs: Any, output: Any) -> None:
        for letter, part in zip("qkv", output.chunk(3, dim=-1), strict=True):
            listener.keep(f"{block}.attn.{letter}", part, heads)

    return listen


def listen_to_llama(listener: Listener, model: Any) -> None:
    """Record the modules that Llama, Qwen2 and Qwen3 share."""
    body, config = model.model, listener.config
    listener.output(body.embed_tokens, "embed.token")
    for i, layer in enumerate(body.layers):
        block = f"blocks.{i}"
        around(listener, layer, layer.input_layernorm, layer.post_attention_layernorm, block)
        for letter, heads in (("q", config.n_head), ("k", config.n_kv_head), ("v", config.n_kv_head)):
            listener.output(getattr(layer.self_attn, f"{letter}_proj"), f"{block}.attn.{letter}", heads)
        listener.projection(layer.self_attn.o_proj, block)
        listener.output(layer.mlp.gate_proj, f"{block}.mlp.pre")
        listener.output(layer.mlp.act_fn, f"{block}.mlp.gate")
        listener.output(layer.mlp.up_proj, f"{block}.mlp.up")
        listener.input(layer.mlp.down_proj, f"{block}.mlp.post")
        listener.output(layer.mlp, f"{block}.mlp.out")
    listener.norm(body.norm, "final_norm")


def around(listener: Listener, layer: Any, ln_1: Any, ln_2: Any, block: str) -> None:
    """Record the residual stream and the two norms of a block."""
    listener.input(layer, f"{block}.resid_pre")
    listener.norm(ln_1, f"{block}.ln_1")
    listener.input(ln_2, f"{block}.resid_mid")
    listener.norm(ln_2, f"{block}.ln_2")
    listener.output(layer, f"{block}.resid_post")
