"""GPT-2 (Radford et al. 2019), all sizes: learned positions, layer norms with biases, GELU, fused qkv.

Read from Hugging Face folders, which store matrices as [in, out], and from GGUF files of architecture gpt2.
"""

from __future__ import annotations

from pophood.config import ModelConfig
from pophood.errors import BadFile
from pophood.families import standard
from pophood.families.family import Family, Fields, TensorName
from pophood.families.keys import HARMLESS, Key, Only, Used, choice, harmless, per_block

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",  # the same polynomial with its terms in another order
    "gelu": "gelu",
}

HF_KEYS: dict[str, Key] = {
    **standard.GENERIC_HF_KEYS,
    **dict.fromkeys(("n_layer", "num_hidden_layers"), standard.N_LAYER),
    **dict.fromkeys(("n_head", "num_attention_heads"), standard.N_HEAD),
    **dict.fromkeys(("n_embd", "hidden_size"), standard.N_EMBD),
    "n_inner": standard.N_INNER,
    "vocab_size": standard.VOCAB_SIZE,
    **dict.fromkeys(("n_positions", "max_position_embeddings", "n_ctx"), standard.N_POSITIONS),
    "activation_function": Used("activation", choice(ACTIVATIONS)),
    "layer_norm_epsilon": standard.NORM_EPS,
    "tie_word_embeddings": standard.TIED_OUTPUT,
    "scale_attn_weights": Only((True,), "otherwise scores are not divided by the root of the head size"),
    "scale_attn_by_inverse_layer_idx": Only((False,), "otherwise the scores of block i are divided by i + 1"),
    "reorder_and_upcast_attn": Only((False,), "otherwise the order of the arithmetic differs"),
    # Dropout and initialisation matter only in training.
    **harmless("attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range"),
    # A classification head, and keys from before transformers 3.
    **harmless("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
    **harmless("summary_use_proj", "predict_special_tokens", "n_special", "output_past"),
}

GGUF_KEYS: dict[str, Key] = {
    **standard.GENERIC_GGUF_KEYS,
    "attention.head_count": per_block(standard.N_HEAD),
    "attention.head_count_kv": per_block(standard.N_KV_HEAD),
    "feed_forward_length": per_block(standard.N_INNER),
    "attention.layer_norm_epsilon": standard.NORM_EPS,
    "rope.dimension_count": HARMLESS,  # some converters write it, although GPT-2 has no RoPE
}


def build(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a GPT-2 from these fields; BadFile if they contradict each other."""
    n_embd, n_head = fields["n_embd"], fields["n_head"]
    if n_embd % n_head:
        raise BadFile(f"{n_embd} features do not divide into {n_head} heads: {standard.DAMAGED}")
    if fields.get("n_kv_head", n_head) != n_head:
        raise BadFile(f"{fields['n_kv_head']} key heads for {n_head} query heads: GPT-2 has as many of both")
    return standard.config_of(
        architecture,
        fields,
        n_kv_head=n_head,
        head_dim=n_embd // n_head,
        n_inner=fields["n_inner"] or 4 * n_embd,
        n_positions=fields["n_positions"],
        norm="layer",
        gated_mlp=False,
        rope=None,
        qkv_bias=True,
        attn_out_bias=True,
        mlp_bias=True,
        qk_norm=None,
    )


def _weight_and_bias(
    canonical: str, hf: str, gguf: str, part: tuple[int, int] = (0, 1), conv1d: bool = True
) -> tuple[TensorName, TensorName]:
    return (
        TensorName(f"{canonical}.weight", f"{hf}.weight", f"{gguf}.weight", part, conv1d),
        TensorName(f"{canonical}.bias", f"{hf}.bias", f"{gguf}.bias", part),
    )


TENSORS = (
    TensorName("embed.token", "wte.weight", "token_embd.weight"),
    TensorName("embed.position", "wpe.weight", "position_embd.weight"),
    *_weight_and_bias("blocks.{i}.ln_1", "h.{i}.ln_1", "blk.{i}.attn_norm", conv1d=False),
    *_weight_and_bias("blocks.{i}.attn.q", "h.{i}.attn.c_attn", "blk.{i}.attn_qkv", part=(0, 3)),
    *_weight_and_bias("blocks.{i}.attn.k", "h.{i}.attn.c_attn", "blk.{i}.attn_qkv", part=(1, 3)),
    *_weight_and_bias("blocks.{i}.attn.v", "h.{i}.attn.c_attn", "blk.{i}.attn_qkv", part=(2, 3)),
    *_weight_and_bias("blocks.{i}.attn.out", "h.{i}.attn.c_proj", "blk.{i}.attn_output"),
    *_weight_and_bias("blocks.{i}.ln_2", "h.{i}.ln_2", "blk.{i}.ffn_norm", conv1d=False),
    *_weight_and_bias("blocks.{i}.mlp.up", "h.{i}.mlp.c_fc", "blk.{i}.ffn_up"),
    *_weight_and_bias("blocks.{i}.mlp.down", "h.{i}.mlp.c_proj", "blk.{i}.ffn_down"),
    *_weight_and_bias("final_norm", "ln_f", "output_norm", conv1d=False),
    TensorName("output.weight", "lm_head.weight", "output.weight"),
)

GPT2 = Family(
    name="gpt2",
    classes=("GPT2LMHeadModel", "GPT2Model"),
    build=build,
    tensors=TENSORS,
    hf_keys=HF_KEYS,
    hf_defaults={
        "n_inner": None,
        "n_positions": 1024,
        "activation": "gelu_tanh",
        "norm_eps": 1e-5,
        "tied_output": True,
    },
    hf_prefix="transformer.",
    hf_ignored=frozenset({"h.{i}.attn.bias", "h.{i}.attn.masked_bias"}),  # the causal mask, as a table
    gguf_name="gpt2",
    gguf_keys=GGUF_KEYS,
    gguf_defaults={"activation": "gelu_tanh"},
)
