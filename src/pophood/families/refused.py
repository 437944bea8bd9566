"""Architectures that pophood knows but does not compute, and what they need (small: one table).

They are refused by these words before a tensor is read. A name is `model_type` of config.json or
`general.architecture` of a GGUF file.
"""

from __future__ import annotations

_EXPERTS = "a mixture of experts"
_RECURRENT = "recurrent blocks"
_CONVOLUTIONS = "convolutions in place of attention"
_PER_LAYER = "vectors per block and token, and blocks that share keys"
_OTHER_ATTENTION = "attention with compressed keys"

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe", "qwen2moe", "qwen3moe", "olmoe", "phimoe"), _EXPERTS
    ),
    **dict.fromkeys(("granitemoe", "granitemoeshared", "llama4", "gpt_oss", "gpt-oss", "dbrx"), _EXPERTS),
    **dict.fromkeys(("ernie4_5_moe", "glm4_moe", "hunyuan_v1_moe", "smallthinker"), _EXPERTS),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen35", "qwen3_next", "qwen3next"), _RECURRENT),
    **dict.fromkeys(
        ("mamba", "mamba2", "jamba", "falcon_h1", "granitemoehybrid", "rwkv", "bamba"), _RECURRENT
    ),
    **dict.fromkeys(("granitehybrid", "nemotron_h", "recurrent_gemma", "recurrentgemma"), _RECURRENT),
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm2moe", "lfm2_vl"), _CONVOLUTIONS),
    **dict.fromkeys(("gemma3n", "gemma3n_text", "gemma4", "gemma4_text"), _PER_LAYER),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek2", "minicpm3"), _OTHER_ATTENTION),
}


def words_for(kind: object) -> str:
    """Return what a known architecture would need, to follow its name; "" for an unknown one."""
    need = REFUSED.get(kind) if isinstance(kind, str) else None
    return "" if need is None else f", which needs {need}"
