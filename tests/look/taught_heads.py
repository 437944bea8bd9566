"""A GPT-2 of two blocks whose heads are taught one habit each, for tests of head labels.

Token rows are random and positions sinusoidal, both fixed. The blocks learn from the weight that each head
puts on the keys of its habit. Block 0: head 0 the previous token, head 1 the same token. Block 1: head 0
induction, head 1 the first token. The other heads are taught nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.tiny_vocabulary import write_tokenizer

VOCABULARY, WIDTH, HEADS = 50_257, 128, 4
WORDS, REPEATS, ROWS, STEPS = 25, 4, 8, 200
TAUGHT = {(0, 0): "previous token", (0, 1): "same token", (1, 0): "induction", (1, 1): "first token"}


def taught_model(folder: Path) -> Path:
    """Train the model on one thread (a fixed seed, so the same weights every time) and write it."""
    before = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        model = _untaught()
        _teach(model)
    finally:
        torch.set_num_threads(before[0])
        torch.set_rng_state(before[1])
    model.save_pretrained(folder)
    write_tokenizer(folder, "gpt2", VOCABULARY)
    return folder


def _untaught() -> GPT2LMHeadModel:
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    shape = {"n_positions": 128, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "n_inner": 4}
    config = GPT2Config(vocab_size=VOCABULARY, attn_implementation="eager", **shape, **quiet)
    model = GPT2LMHeadModel(config)
    angle = torch.arange(128)[:, None] / 20.0 ** (2 * torch.arange(WIDTH // 2)[None] / WIDTH)
    with torch.no_grad():
        model.transformer.wte.weight.normal_(0.0, 1.0)
        model.transformer.wpe.weight.copy_(3.0 * torch.cat([angle.sin(), angle.cos()], dim=1))
    for table in (model.transformer.wte, model.transformer.wpe):
        table.weight.requires_grad_(False)
    return model


def _teach(model: GPT2LMHeadModel) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(STEPS):
        words = torch.randint(0, VOCABULARY - 1, (ROWS, WORDS))
        start = torch.full((ROWS, 1), VOCABULARY - 1)
        ids = torch.cat([start, words.repeat(1, REPEATS)], dim=1)
        patterns = model.transformer(ids, output_attentions=True).attentions
        loss = torch.zeros(()) + sum(
            _missed(patterns[layer][:, head], _keys(ids, habit)) for (layer, head), habit in TAUGHT.items()
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def _keys(ids: torch.Tensor, habit: str) -> torch.Tensor:
    """Return the keys [B, T, T] that a head with this pattern attends to."""
    equal = (ids[:, :, None] == ids[:, None, :]).tril()
    keys = torch.zeros_like(equal)
    if habit == "previous token":
        keys |= torch.diag(torch.ones(ids.shape[1] - 1, dtype=torch.bool), -1)
    elif habit == "first token":
        keys[:, :, 0] = True
    elif habit == "same token":
        keys = equal
    else:
        keys[:, :, 1:] = equal.tril(-1)[:, :, :-1]
    return keys


def _missed(pattern: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    weight = (pattern * keys).sum(-1)[keys.any(-1)]
    return -(weight + 1e-9).log().mean()
