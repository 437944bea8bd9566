"""Write the golden arrays of TransformerLens: run by hand, in an environment of its own (docs/taps.md).

    PYTHONPATH=.:src ENVIRONMENT/bin/python tests/look/golden/write_transformer_lens.py

Nothing is downloaded: the models are those of recipe.py, their tensors are put into a HookedTransformer as
they are (no folding, no centring), and every hook of interest is kept.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import numpy as np

from pophood.config import ModelConfig
from tests.look.golden.recipe import CASES, Case, Floats, Golden, golden, write_golden

OUTER = ("hook_embed", "hook_pos_embed", "ln_final.hook_scale", "ln_final.hook_normalized")
INNER = (
    *("hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized"),
    *(
        f"attn.hook_{name}"
        for name in ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z", "result")
    ),
    *("hook_attn_out", "hook_resid_mid", "ln2.hook_scale", "ln2.hook_normalized"),
    *("mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"),
)


def hooked(config: ModelConfig, tensors: dict[str, Floats], *, copied: bool = True) -> Any:
    """Return a HookedTransformer with these weights: `hooked(config, dict(values.items()))`.

    `copied=False` leaves them where they are, turned and cut by views.
    """
    lens, torch = importlib.import_module("transformer_lens"), importlib.import_module("torch")
    settings = lens_config(config)
    model = lens.HookedTransformer(lens.HookedTransformerConfig(**settings), move_to_device=False)
    state = {
        name: torch.from_numpy(np.ascontiguousarray(array) if copied else array)
        for name, array in lens_tensors(config, tensors).items()
    }
    kept = {"mask", "IGNORE", "rotary_sin", "rotary_cos"}  # buffers that it creates itself
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    assert not unexpected and not [name for name in missing if name.rsplit(".", 1)[-1] not in kept], missing
    model.eval().requires_grad_(False)
    return model


def lens_config(config: ModelConfig) -> dict[str, Any]:
    """Return the HookedTransformerConfig settings for one of our configurations."""
    settings: dict[str, Any] = {
        "n_layers": config.n_layer,
        "d_model": config.n_embd,
        "n_ctx": config.n_positions,
        "d_head": config.head_dim,
        "n_heads": config.n_head,
        "d_mlp": config.n_inner,
        "d_vocab": config.vocab_size,
        "act_fn": {"gelu_tanh": "gelu_new", "silu": "silu"}[config.activation],
        "normalization_type": {"layer": "LN", "rms": "RMS"}[config.norm],
        "eps": config.norm_eps,
        "gated_mlp": config.gated_mlp,
        "use_qk_norm": config.qk_norm,
        "init_weights": False,
        "device": "cpu",
    }
    if config.n_kv_head != config.n_head:
        settings["n_key_value_heads"] = config.n_kv_head
    if (rope := config.rope) is not None:
        settings |= {"positional_embedding_type": "rotary", "rotary_base": rope.theta}
        settings |= {"rotary_dim": config.head_dim, "rotary_adjacent_pairs": False}  # pairs (i, i + D/2)
        if rope.scaling == "llama3":
            settings |= {
                "use_NTK_by_parts_rope": True,
                "NTK_by_parts_factor": rope.factor,
                "NTK_by_parts_low_freq_factor": rope.low_freq_factor,
                "NTK_by_parts_high_freq_factor": rope.high_freq_factor,
                "NTK_original_ctx_len": rope.original_context,
            }
    return settings


def lens_tensors(config: ModelConfig, given: dict[str, Floats]) -> dict[str, Floats]:
    """Return our tensors under TransformerLens' names, as [inputs, outputs] and split by heads."""
    h, k, d, c = config.n_head, config.n_kv_head, config.head_dim, config.n_embd
    grouped = "_" if k != h else ""
    tensors = {"embed.W_E": given["embed.token"]}
    if config.rope is None:
        tensors["pos_embed.W_pos"] = given["embed.position"]
    for i in range(config.n_layer):
        ours, theirs = f"blocks.{i}.", f"blocks.{i}."
        tensors |= norm(given, f"{ours}ln_1", f"{theirs}ln1") | norm(given, f"{ours}ln_2", f"{theirs}ln2")
        for letter, heads in (("q", h), ("k", k), ("v", k)):
            mark = grouped if letter != "q" else ""
            weight = given[f"{ours}attn.{letter}.weight"].reshape(heads, d, c).transpose(0, 2, 1)
            bias = given.get(f"{ours}attn.{letter}.bias", np.zeros(heads * d, np.float32))
            tensors[f"{theirs}attn.{mark}W_{letter.upper()}"] = weight
            tensors[f"{theirs}attn.{mark}b_{letter.upper()}"] = bias.reshape(heads, d)
        tensors[f"{theirs}attn.W_O"] = given[f"{ours}attn.out.weight"].T.reshape(h, d, c)
        tensors[f"{theirs}attn.b_O"] = given.get(f"{ours}attn.out.bias", np.zeros(c, np.float32))
        if config.qk_norm:
            for letter in "qk":
                tensors[f"{theirs}attn.{letter}_norm.w"] = given[f"{ours}attn.{letter}_norm.weight"]
        for ours_name, name in (("up", "in"), ("down", "out"), ("gate", "gate")):
            if (key := f"{ours}mlp.{ours_name}.weight") in given:
                tensors[f"{theirs}mlp.W_{name}"] = given[key].T
        for ours_name, name, width in (("up", "in", config.n_inner), ("down", "out", c)):
            zero = np.zeros(width, np.float32)
            tensors[f"{theirs}mlp.b_{name}"] = given.get(f"{ours}mlp.{ours_name}.bias", zero)
    tensors |= norm(given, "final_norm", "ln_final")
    tensors["unembed.W_U"] = given.get("output.weight", given["embed.token"]).T
    tensors["unembed.b_U"] = np.zeros(config.vocab_size, np.float32)
    return tensors


def norm(given: dict[str, Floats], ours: str, theirs: str) -> dict[str, Floats]:
    """Return the gain of a norm, and its shift if it has one."""
    parts = {f"{theirs}.w": given[f"{ours}.weight"]}
    return parts | ({f"{theirs}.b": given[f"{ours}.bias"]} if f"{ours}.bias" in given else {})


def hooks_of(case: Case) -> dict[str, Golden]:
    """Run the prompt and record every hook; "logits" is the model's return value."""
    torch = importlib.import_module("torch")
    model = hooked(case.config, dict(case.values.items()))
    model.set_use_attn_result(True)
    with torch.no_grad():
        logits, cache = model.run_with_cache(torch.tensor([case.prompt]), return_type="logits")
    names = list(OUTER) + [f"blocks.{i}.{name}" for i in range(case.config.n_layer) for name in INNER]
    kept = {name: golden(name, cache[name][0].numpy()) for name in names if name in cache}
    return kept | {"logits": golden("logits", logits[0].numpy())}


def main() -> None:
    """Write every case."""
    versions = {name: importlib.metadata.version(name) for name in ("transformer-lens", "torch")}
    for case in CASES.values():
        hooks = hooks_of(case)
        write_golden(case, hooks, versions)
        print(f"{case.path.name}: {len(hooks)} arrays, {case.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
