"""A model's configuration as the C++ engine takes it, with the frequencies of every block (small: one call).

The engine is opened with a context window, which decides the divisors of "longrope".
"""

from __future__ import annotations

from pophood import _native
from pophood.config import ModelConfig

_ACTIVATIONS = {"gelu_tanh": 0, "gelu": 1, "silu": 2}
_NORM_PLACES = {"before": 0, "after": 1, "both": 2}
_SAME_FIELDS = (  # fields of ModelConfig that the native configuration takes unchanged
    *("n_layer", "n_head", "n_kv_head", "n_embd", "head_dim", "n_inner", "vocab_size", "norm_eps"),
    *("gated_mlp", "qkv_bias", "attn_out_bias", "mlp_bias", "tied_output"),
)


def native_config(config: ModelConfig, context: int) -> _native.Config:
    """Return the configuration of an engine with this context window."""
    native = _native.Config(
        **{name: getattr(config, name) for name in _SAME_FIELDS},
        n_positions=context,
        rms_norm=config.norm == "rms",
        activation=_ACTIVATIONS[config.activation],
        qk_norm=config.qk_norm is not None,
    )
    blocks = config.block_attention
    ropes = list(dict.fromkeys(block.rope for block in blocks if block.rope is not None))
    native.set_attention(
        frequencies=[rope.frequencies(config.head_dim, context).tolist() for rope in ropes],
        rotary_scales=[rope.magnitude for rope in ropes],
        rotary_of=[-1 if block.rope is None else ropes.index(block.rope) for block in blocks],
        windows=[block.window or 0 for block in blocks],
        scale=config.attention_scale or 0.0,
        cap=config.score_cap or 0.0,
        qk_norm_whole=config.qk_norm == "all",
    )
    native.set_stream(
        norm_places=_NORM_PLACES[config.norm_places],
        parallel=config.parallel,
        embedding_scale=config.embedding_scale,
        residual_scale=config.residual_scale,
        logit_scale=1.0 / config.logit_divisor,
        logit_cap=config.logit_cap or 0.0,
    )
    return native
