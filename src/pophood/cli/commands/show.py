"""`pophood show NAME`: the facts and figures of a model, in the talk's wording where there is one.

They are collected in one dictionary, which is printed for --json or as text.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.options.shared import json_option, verb
from pophood.cli.terminal.console import VERBOSE, Console, facts_of
from pophood.cli.terminal.tables import table
from pophood.errors import NotFound
from pophood.system import size_text

if TYPE_CHECKING:
    from pophood.config import ModelConfig, Rope
    from pophood.hub import KnownModel, Located
    from pophood.model.bundle import Bundle

# Display names of architectures; any other is shown as in its config.
WRITTEN = {
    "gpt2": "GPT-2",
    "llama": "Llama",
    "mistral": "Mistral",
    "ministral": "Ministral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "phi3": "Phi-3",
    "olmo2": "OLMo 2",
    "granite": "Granite",
    "smollm3": "SmolLM3",
    "gpt_neox": "GPT-NeoX",
    "gpt_neo": "GPT-Neo",
}
# Part of the model -> pieces of the canonical names of its tensors.
PARTS = {
    "token embedding": ("embed.token",),
    "position embedding": ("embed.position",),
    "attention": (".attn.",),
    "feed-forward": (".mlp.",),
    "norms": (".ln_1", ".ln_2", "final_norm"),
    "output matrix": ("output.",),
}
SIZES = {  # fact -> attribute of a KnownModel and of a ModelConfig
    "parameters": "n_params",
    "blocks": "n_layer",
    "heads": "n_head",
    "key_value_heads": "n_kv_head",
    "embedding_size": "n_embd",
    "inner_size": "n_inner",
    "context_length": "n_positions",
    "vocabulary_size": "vocab_size",
}


@verb()
@click.argument("name", required=False)
@json_option
def show_command(console: Console, name: str | None, as_json: bool) -> None:
    """Show the facts and figures of a model.

    Shows parameters, blocks, heads, sizes, the precision of each part, memory, licence, source, stop tokens
    and suggested sampling values. Downloads nothing: gpt2 (every size), smollm2 and gemma3-270m are known
    without their weights. -v also checks every tensor for NaN and infinity.

    Example: pophood show gpt2
    """
    from pophood import hub

    choice = hub.default_choice()
    model = name or (choice.name if choice else None)
    if model is None:
        raise click.UsageError("no model is chosen and none is here: name one, as in `pophood show gpt2`")
    known = hub.catalogue.get(model)
    try:
        located = hub.locate(model, offline=True, announce=console.say)
    except NotFound:
        if known is None:
            raise NotFound(f"{model}: not on this machine: `pophood pull {model}` fetches it") from None
        facts = from_catalogue(known)
        console.say(f"{model}: not on this machine; `pophood pull {model}` fetches it")
    else:
        from pophood.model.bundle import open_bundle

        bundle = open_bundle(located.path)
        facts = from_files(located, bundle, known)
        if console.verbosity >= VERBOSE:
            facts["nonfinite"] = nonfinite(bundle)
    console.result(facts, text(facts), as_json=as_json)


def from_catalogue(known: KnownModel) -> dict[str, Any]:
    """Return the facts about a known model whose weights are not on this machine."""
    return {
        "name": known.name,
        "loaded": False,
        "family": WRITTEN["gpt2"] if known.title.startswith("GPT-2") else known.title,
        **sizes(known, *SIZES),
        **facts_of(known, chat="chat", licence="licence", source="repo"),
        "about": about(known),
    }


def sizes(source: KnownModel | ModelConfig, *names: str) -> dict[str, Any]:
    """Return some facts of SIZES about a model."""
    return facts_of(source, **{name: SIZES[name] for name in names})


def about(known: KnownModel) -> dict[str, Any]:
    """Return dates, training data, links and the other sizes of a known model."""
    from pophood.hub import catalogue

    return {
        **facts_of(known, "title", "announced", "weights_public", "training_data"),
        "links": list(known.links),
        "sizes": [
            {
                "name": other.name,
                **sizes(other, "parameters", "blocks", "heads", "embedding_size"),
                "weights_public": other.weights_public,
            }
            for other in map(catalogue.__getitem__, known.family)
        ],
    }


def from_files(found: Located, bundle: Bundle, known: KnownModel | None) -> dict[str, Any]:
    """Return the facts from a model's own files, without decoding any weight."""
    from pophood.model.memory import WIDENED_BLOCKS, computed_precision, plan_memory

    config, tokenizer, stored_type = bundle.config, bundle.tokenizer, bundle.weights.stored_type
    plan = plan_memory(config, stored_type, precision="auto")
    return {
        "name": found.name,
        "loaded": True,
        "family": WRITTEN.get(config.architecture, config.architecture),
        **sizes(config, "parameters", "blocks", "heads", "key_value_heads"),
        "head_size": config.head_dim,
        **sizes(config, "embedding_size", "inner_size", "context_length"),
        "context_limit": config.limit.why if config.limit else None,
        "longest_context": config.most_positions,
        "vocabulary_size": config.vocab_size,
        "positions": positions(config),
        "attention_window": windows(config),
        "factors": factors(config),
        "norm": {"layer": "layer norm", "rms": "RMS norm"}[config.norm] + f", epsilon {config.norm_eps:g}",
        "activation": config.activation + (", gated" if config.gated_mlp else ""),
        "tied_output": config.tied_output,
        "precision": parts(bundle),
        "file_bytes": dict(bundle.precisions),
        "bits_per_weight": round(8 * bundle.weights.nbytes / config.n_params, 2),
        "run_precision": computed_precision(config, stored_type, "auto"),
        "widened": sorted(set(bundle.precisions) & set(WIDENED_BLOCKS)),
        "memory": {
            "weights": plan.weights,
            "least": plan.least,
            "full_context": plan.full,
            "keys_and_values": plan.kv_type,
        },
        "start_tokens": {str(id_): tokenizer.token_text(id_) for id_ in tokenizer.start_ids},
        "stop_tokens": [
            {"id": id_, "text": tokenizer.token_text(id_), "named_by": where}
            for id_, where in tokenizer.stops.items()
        ],
        "chat": bundle.chat_template is not None,
        "suggested": dict(bundle.suggested),
        "remarks": list(bundle.remarks),
        "licence": bundle.licence or found.licence,
        "source": found.source or bundle.source,
        "revision": found.revision,
        "file": str(found.path),
        "about": about(known) if known else None,
    }


def positions(config: ModelConfig) -> str:
    """Return how the model encodes positions."""
    if config.rope is None:
        return "learned vectors"
    scaled = scaling_of(config.rope, config.n_positions)
    part = f", {config.rope.share:.0%} of each head" if config.rope.share != 1 else ""
    blocks = config.block_attention
    still = [str(i) for i, block in enumerate(blocks) if block.rope is None]
    none = f"; none in blocks {', '.join(still)}" if still else ""
    local = next((b.rope for b in blocks if b.rope not in (None, config.rope)), None)
    other = "" if local is None else f"; base {local.theta:,.0f} in blocks with a window"
    return f"rotary, base {config.rope.theta:,.0f}{scaled}{part}{other}{none}"


def scaling_of(rope: Rope, context: int) -> str:
    """Return how rotary positions are scaled, to follow the base; "" if they are not."""
    if rope.long_divisors is not None:
        own = "long" if context > rope.original_context else "short"
        return f", longrope with its {own} factors (the long ones beyond {rope.original_context:,} tokens)"
    if rope.scaling == "dynamic":
        return f", dynamic scaling x {rope.factor:g} (a higher base for windows beyond {context:,} tokens)"
    return "" if rope.scaling == "none" else f", {rope.scaling} scaling x {rope.factor:g}"


def windows(config: ModelConfig) -> str | None:
    """Return the width of attention windows and the blocks that have one; None without windows."""
    widths = [block.window for block in config.block_attention]
    if not any(widths):
        return None
    width = next(width for width in widths if width)
    free = [str(i) for i, own in enumerate(widths) if own is None]
    return f"{width:,} tokens" + (
        f", but blocks {', '.join(free)} see everything" if free else " in every block"
    )


def factors(config: ModelConfig) -> dict[str, float]:
    """Return the caps and multipliers that a model has, by name."""
    values = {
        "cap of scores": config.score_cap,
        "cap of logits": config.logit_cap,
        "scale of scores": config.attention_scale,
        "embedding multiplied by": config.embedding_scale,
        "what blocks add multiplied by": config.residual_scale,
        "logits divided by": config.logit_divisor,
    }
    return {name: value for name, value in values.items() if value not in (None, 1.0)}


def parts(bundle: Bundle) -> dict[str, list[str]]:
    """Return, for each part of the model, the types of its tensors in the file."""
    kinds_of: dict[str, list[str]] = {}
    for name in bundle.weights:
        kind = bundle.weights.stored_type(name)
        part = next((part for part, marks in PARTS.items() if any(mark in name for mark in marks)), name)
        if kind not in kinds_of.setdefault(part, []):
            kinds_of[part].append(kind)
    return kinds_of


def nonfinite(bundle: Bundle) -> list[dict[str, Any]]:
    """Return every tensor with a NaN or an infinity, and the index of its first one."""
    return [
        {"tensor": name, "index": list(index)}
        for name, index in bundle.weights.check_finite()
        if index is not None
    ]


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts as text, beginning with the lines that the talk shows."""
    longest = facts.get("longest_context", 0)
    lines = [
        f"Model Loaded: {facts['name']}"
        if facts["loaded"]
        else f"Model: {facts['name']} (not on this machine)",
        f"Number of {facts['family']} Parameters: {facts['parameters']:,}",
        f"Transformer blocks: {facts['blocks']}",
        f"Attention heads: {facts['heads']}",
        f"Embedding size: {facts['embedding_size']}",
        f"Context length: {facts['context_length']}"
        + (f", since {facts['context_limit']}" if facts.get("context_limit") else "")
        + (f", {longest:,} with --context" if longest > facts["context_length"] else ""),
        f"Vocabulary size: {facts['vocabulary_size']:,}",
        "",
        *_shape(facts),
        *(_files(facts) if facts["loaded"] else []),
        f"Licence: {facts['licence'] or 'not named'}",
        f"Source: {facts['source'] or 'unknown'}"
        + (f", revision {facts['revision']}" if facts.get("revision") else ""),
    ]
    if facts["loaded"]:
        lines.append(f"File: {facts['file']}")
    lines += [f"Not a finite number: {bad['tensor']}{bad['index']}" for bad in facts.get("nonfinite") or []]
    if facts.get("nonfinite") == []:
        lines.append("Every weight is a finite number")
    return "\n".join([*lines, *_about(facts["about"])])


def _shape(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"Feed-forward size: {facts['inner_size']}"]
    if facts["key_value_heads"] != facts["heads"]:
        lines.append(f"Key/value heads: {facts['key_value_heads']}")
    if facts["loaded"]:
        lines += [
            f"Head size: {facts['head_size']}",
            f"Positions: {facts['positions']}",
            *([f"Attention window: {facts['attention_window']}"] if facts["attention_window"] else []),
            *(f"{name[0].upper()}{name[1:]}: {value:g}" for name, value in facts["factors"].items()),
            f"Norm: {facts['norm']}",
            f"Activation: {facts['activation']}",
            f"Output matrix: {'the token embedding again (tied)' if facts['tied_output'] else 'its own'}",
        ]
    return lines


def _files(facts: Mapping[str, Any]) -> list[str]:
    from pophood.model.memory import COMPUTED_BLOCKS, WIDENED_BLOCKS

    memory = facts["memory"]
    stored = ", ".join(f"{kind} {size_text(n)}" for kind, n in facts["file_bytes"].items())
    starts = ", ".join(f"{id_} {text!r}" for id_, text in facts["start_tokens"].items())
    suggested = ", ".join(f"{name} {value:g}" for name, value in facts["suggested"].items())
    stops = [f"{stop['id']} {stop['text']!r} (named by {stop['named_by']})" for stop in facts["stop_tokens"]]
    blocks = {*COMPUTED_BLOCKS, *WIDENED_BLOCKS} & set(facts["file_bytes"])
    run = (
        "blocks as stored" if blocks else "f32" if facts["run_precision"] == "f32" else "products in bfloat16"
    )
    if facts["widened"]:
        run += f" ({', '.join(facts['widened'])} widened to 8 bits)"
    return [
        f"Precision in the file: {stored} ({facts['bits_per_weight']:.2f} bits per weight)",
        *(f"  {part}: {', '.join(kinds)}" for part, kinds in facts["precision"].items()),
        f"Computed at: {run}, keys and values in {memory['keys_and_values']}",
        f"Memory: {size_text(memory['weights'])} for weights, {size_text(memory['least'])} at least, "
        f"{size_text(memory['full_context'])} with a full context",
        f"Start tokens: {starts or 'none'}",
        f"Stop tokens: {'; '.join(stops) or 'none'}",
        f"Chat template: {'yes' if facts['chat'] else 'none (a completion model)'}",
        f"Suggested sampling: {suggested + ' (used with --model-defaults)' if suggested else 'none'}",
        *(f"Note: {remark}" for remark in facts["remarks"]),
    ]


def _about(known: Mapping[str, Any] | None) -> list[str]:
    if known is None:
        return []
    lines = [
        "",
        f"{known['title']}: announced {known['announced']}, weights public {known['weights_public']}",
        f"Trained on {known['training_data']}",
        *known["links"],
    ]
    if len(known["sizes"]) > 1:
        rows = [
            [name, f"{parameters:,}", *others]
            for name, parameters, *others in (one.values() for one in known["sizes"])
        ]
        headings = ["model", "parameters", "blocks", "heads", "embedding", "weights public"]
        lines += ["", table(headings, rows, sys.stdout, right=[1, 2, 3, 4])]
    return lines
