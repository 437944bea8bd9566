"""The fields that every family has, limits on their sizes, and the keys that mean the same in all of them."""

from __future__ import annotations

from typing import Any

from pophood.config import ModelConfig
from pophood.families.keys import HARMLESS, Key, Only, Used, count, flag, harmless, only, real

# Each limit is several times that of the largest published model. A file that claims more is lying, and
# refusing it here keeps all later sums and tables small.
N_LAYER = Used("n_layer", count(1_024))
N_HEAD = Used("n_head", count(1_024))
N_KV_HEAD = Used("n_kv_head", count(1_024))
HEAD_DIM = Used("head_dim", count(1_024))
N_EMBD = Used("n_embd", count(131_072))
N_INNER = Used("n_inner", count(1_048_576))
VOCAB_SIZE = Used("vocab_size", count(4_194_304))
N_POSITIONS = Used("n_positions", count(1 << 28))
NORM_EPS = Used("norm_eps", real(0.0, 1.0))
TIED_OUTPUT = Used("tied_output", flag)

NEEDED = ("n_layer", "n_head", "n_embd", "n_inner", "vocab_size", "n_positions", "norm_eps")
_UNCHANGED = ("n_layer", "n_head", "n_embd", "vocab_size", "norm_eps", "activation", "tied_output")

MOST_PARAMETERS = 1 << 42
DAMAGED = "the configuration is damaged"

_OWN_CODE = "the model needs Python code of its own, which pophood never runs"
_PACKED = "otherwise the matrices are packed in another format"
_ATTENTIONS = ("eager", "sdpa", "flash_attention_2")  # implementations of the same attention
_DECODERS = "only decoders are computed"
_NOT_CAUSAL = "otherwise a position sees later ones"

# Keys that transformers (4 and 5) writes into any config.json, and that other tools leave there.
GENERIC_HF_KEYS: dict[str, Key] = {
    # Author, tools, and the type of the numbers, which the tensors state themselves.
    **harmless("_name_or_path", "name_or_path", "_commit_hash", "torch_dtype", "dtype", "is_llama_config"),
    **harmless("transformers_version", "transformers.js_config", "unsloth_fixed", "unsloth_version"),
    **harmless("model_type", "architectures"),
    # The form in which results are returned.
    **harmless("use_cache", "return_dict", "output_hidden_states", "output_attentions", "output_scores"),
    **harmless("return_dict_in_generate", "torchscript", "use_bfloat16", "tf_legacy_loss", "is_decoder"),
    **harmless("gradient_checkpointing", "chunk_size_feed_forward", "_attn_implementation_autoset"),
    **harmless("keys_to_ignore_at_inference", "tie_last_hidden_states", "cache_implementation"),
    # Token ids and the tokenizer's class, which the tokenizer reads itself.
    **harmless("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
    **harmless("tokenizer_class", "prefix"),
    # Heads for other tasks; their tensors would be refused as left over.
    **harmless("finetuning_task", "task_specific_params", "problem_type", "id2label", "label2id"),
    **harmless("num_labels", "_num_labels"),
    # Suggestions for generation, which is the caller's choice.
    **harmless("assistant_confidence_threshold", "assistant_lookbehind", "num_assistant_tokens"),
    **harmless("num_assistant_tokens_schedule", "target_lookbehind", "max_new_tokens", "min_new_tokens"),
    **harmless("max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "typical_p"),
    **harmless("repetition_penalty", "length_penalty", "diversity_penalty", "no_repeat_ngram_size"),
    **harmless("encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids"),
    **harmless("num_beams", "num_beam_groups", "num_return_sequences", "early_stopping"),
    **harmless("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
    **harmless("remove_invalid_values", "exponential_decay_length_penalty", "epsilon_cutoff", "eta_cutoff"),
    # Refused unless they have their default.
    **only(({},), _OWN_CODE, "auto_map", "custom_pipelines"),
    **only(_ATTENTIONS, _OWN_CODE, "_attn_implementation", "attn_implementation"),
    **only((False,), _OWN_CODE, "trust_remote_code"),
    **only((), _OWN_CODE, "_attn_implementation_internal", "_experts_implementation_internal"),
    # Unless they are empty, `_refuse_packed` refuses these first.
    **only(({},), _PACKED, "quantization", "quantization_config", "compression_config"),
    **only((False,), _DECODERS, "is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder"),
    **only((), _DECODERS, "cross_attention_hidden_size"),
    **only((True,), _NOT_CAUSAL, "is_causal"),
    **only((False,), _NOT_CAUSAL, "use_bidirectional_attention"),
    **only(({},), "blocks that differ are not computed", "pruned_heads", "per_layer_config"),
}

# Not a key in the file: in most files the token matrix gives the size of the vocabulary.
TOKEN_ROWS = "the number of rows of token_embd.weight"

# GGUF keys below "{architecture}." that all families here share.
GENERIC_GGUF_KEYS: dict[str, Key] = {
    "block_count": N_LAYER,
    "embedding_length": N_EMBD,
    "vocab_size": HARMLESS,  # llama.cpp uses the tokenizer's number, which is that of the token matrix
    TOKEN_ROWS: VOCAB_SIZE,
    "context_length": N_POSITIONS,
    "attention.causal": Only((True,), _NOT_CAUSAL),
    "attention.max_alibi_bias": Only((0,), "positions by bias are not computed"),
    "attention.clamp_kqv": Only((0,), "clamping is not computed"),
    "use_parallel_residual": Only((False,), "attention and feed-forward are computed one after the other"),
    **only((0,), "mixtures of experts are not computed", "expert_count", "expert_used_count"),
    # Only used by mixtures of experts, which the two keys above refuse.
    **harmless("expert_feed_forward_length", "expert_gating_func", "expert_weights_norm"),
    **harmless("expert_weights_scale"),
    # Factors of other families; these values change nothing (0 is "off" in llama.cpp).
    **only((0, 1), "scaling is not computed", "logit_scale", "embedding_scale", "residual_scale"),
    **only((0,), "capped scores are not computed", "attn_logit_softcapping", "final_logit_softcapping"),
    "pooling_type": Only((0,), "pooled embeddings are not computed"),
    "tensor_data_layout": Only(("", "Meta AI original pth"), "the order of the rows would be unknown"),
}

# GGUF keys outside "{architecture}." that matter. Besides them, only the descriptions in `general.` are read,
# and `tokenizer.`, which the tokenizer reads itself.
GGUF_FILE_KEYS: dict[str, Key] = {
    "general.type": Only(("model",), "the file is an adapter, a projector or a part of a model"),
    "adapter.type": Only((), "the file is an adapter, not a model"),
}


def config_of(architecture: str, fields: dict[str, Any], **others: Any) -> ModelConfig:
    """Build a config from the fields that mean the same in every family, and from `others`."""
    return ModelConfig(architecture=architecture, **{name: fields[name] for name in _UNCHANGED}, **others)
