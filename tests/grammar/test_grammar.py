"""Texts that follow a grammar: their form, forced tokens, probabilities, ends, errors, and company."""

from __future__ import annotations

import gc
import json
import math
import re
import weakref
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import pophood
from pophood.errors import BadInput, EngineError, Unsupported
from pophood.generate import GenerateSettings, Scheduler
from pophood.generate.request import Request
from pophood.grammar import Grammar, matching
from pophood.grammar.matching import CompiledGrammar, Constraint, bits, compiled
from pophood.sampling import SamplingSettings

FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"const": "a form whose words are given"},
        "size": {"type": "integer", "minimum": 1, "maximum": 99},
        "name": {"type": "string", "maxLength": 12},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["kind", "size", "name", "tags"],
    "additionalProperties": False,
}
WILD: dict[str, Any] = {"top_k": 0, "temperature": 1.5}
CHAINS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"seed": 1},
    {"seed": 2, **WILD},
    {"seed": 3, "top_k": 5, "top_p": 0.8, "typical_p": 0.9, "xtc_probability": 0.5},
    {"seed": 4, "repetition_penalty": 1.3, "dry_multiplier": 0.8, "min_p": 0.05},
    {"temperature": 0, "presence_penalty": 1.0, "logit_bias": {40: 2.0}},
]


@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_gives_the_form(lm: pophood.LM, chain: dict[str, Any]) -> None:
    made = lm.generate("Once", grammar=Grammar.json_schema(FORM), max_tokens=400, **chain)
    jsonschema.validate(json.loads(made.completion), FORM)
    assert list(json.loads(made.completion)) == list(FORM["properties"])
    assert made.tokens[-1].finish == "stop"


@pytest.mark.parametrize(
    ("grammar", "form"),
    [
        (Grammar.regex(r"[0-9]{4}-[0-9]{2}"), r"\d{4}-\d\d"),
        (Grammar.choice(["yes", "no (.*)", "perhaps\n"]), r"yes|no \(\.\*\)|perhaps\n"),
        (Grammar.gbnf('root ::= "<" word ">"\nword ::= [a-z]{2,5}'), r"<[a-z]{2,5}>"),
        (Grammar.lark('start: "<" WORD ">"\nWORD: /[a-z]{2,5}/'), r"<[a-z]{2,5}>"),
        (Grammar.of_text('root ::= "é" | "日本"'), "é|日本"),
        (Grammar.json_schema({"type": "string", "enum": ["😀", "\u2028"]}), ".*"),
    ],
)
def test_every_kind_of_grammar_is_followed(lm: pophood.LM, grammar: Grammar, form: str) -> None:
    for seed in range(5):
        made = lm.generate("Once", grammar=grammar, seed=seed, max_tokens=60, **WILD)
        assert re.fullmatch(form, made.completion), made.completion
        assert made.tokens[-1].finish == "stop"


def test_any_object_is_an_object_and_a_schema_of_true_is_any_json(lm: pophood.LM) -> None:
    found = set()
    for seed in range(40):
        made = lm.generate("Once", grammar=Grammar.json_object(), seed=seed, max_tokens=60, **WILD)
        if made.tokens[-1].finish == "stop":
            assert isinstance(json.loads(made.completion), dict)
        else:
            assert made.completion.startswith("{") and made.tokens[-1].finish == "length"
        value = lm.generate("Once", grammar=Grammar.json_schema(True), seed=seed, max_tokens=60, **WILD)
        if value.tokens[-1].finish == "stop":
            found.add(type(json.loads(value.completion)))
    assert len(found) >= 3


@pytest.mark.parametrize("chain", CHAINS)
def test_forced_tokens_change_nothing(
    lm: pophood.LM, chain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens, texts, probabilities and likeliest tokens are those of a run that appends one at a time."""
    grammar = Grammar.json_schema(FORM)
    passes = count_passes(lm, monkeypatch)
    forced = lm.generate("Once", grammar=grammar, details="top", max_tokens=400, **chain)
    fewer = len(passes)
    monkeypatch.setattr(matching, "MOST_FORCED", 0)
    plain = lm.generate("Once", grammar=grammar, details="top", max_tokens=400, **chain)
    assert fewer < len(passes) - fewer <= len(plain.tokens) + 1
    assert [facts(token) for token in forced.tokens] == [facts(token) for token in plain.tokens]


def count_passes(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    passes: list[int] = []
    whole = type(lm.engine).summary

    def counted(*args: Any, **options: Any) -> Any:
        passes.append(1)
        return whole(*args, **options)

    monkeypatch.setattr(type(lm.engine), "summary", counted)
    return passes


def facts(token: pophood.Token) -> tuple[Any, ...]:
    return (
        *(token.id, token.text, token.position, token.logit, token.probability, token.entropy, token.top),
        *(token.finish, token.final_probability, token.log_mass),
    )


def test_probabilities_are_those_of_the_allowed_tokens(lm: pophood.LM) -> None:
    """They sum to 1 over what may follow, and a token that must follow has 1."""
    grammar = Grammar.regex("(ab|cd|c)x")
    made = lm.generate("Once", grammar=grammar, details="top", top=10, temperature=0)
    first = made.tokens[0]
    assert first.top is not None
    allowed = {lm.detokenize([id_]) for id_, *_ in first.top}
    assert allowed <= {"a", "ab", "c", "cd", "cx", "abx", "cdx"} and len(allowed) >= 2
    assert sum(probability for *_, probability in first.top) == pytest.approx(1)
    with lm.engine.sequence() as sequence:
        row = lm.engine.logits([(sequence, lm.tokenize("Once"))])[0]
    ids = [id_ for id_, *_ in first.top]
    mass = float(np.log(np.exp(row[ids].astype(np.float64)).sum()))
    assert first.log_mass == pytest.approx(mass, abs=1e-6)
    assert first.logit == row[first.id]
    last = made.tokens[-1]
    assert (last.probability, last.entropy, last.final_probability) == (1.0, 0.0, 1.0)
    assert last.top is not None and len(last.top) == 1


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 13, 21])
def test_a_text_that_is_cut_ends_by_its_length(lm: pophood.LM, most: int) -> None:
    whole = lm.generate("Once", grammar=Grammar.json_schema(FORM), seed=1, max_tokens=400)
    made = lm.generate("Once", grammar=Grammar.json_schema(FORM), seed=1, max_tokens=most)
    assert [token.id for token in made.tokens] == [token.id for token in whole.tokens[:most]]
    assert made.tokens[-1].finish == ("length" if most < len(whole.tokens) else "stop")


def test_the_window_ends_it(lm: pophood.LM) -> None:
    ids = lm.tokenize("a") * (lm.engine.context - 3)
    made = lm.generate(ids, grammar=Grammar.json_schema(FORM), max_tokens=None, seed=1)
    assert made.tokens[-1].finish == "context" and len(made.tokens) == 4


def test_stop_texts_end_it_and_hide_what_follows(lm: pophood.LM) -> None:
    """Forced tokens after a stop text are not told, and the next call reuses only what was told."""
    made = lm.generate("Once", grammar=Grammar.json_schema(FORM), seed=1, stop=["form"], max_tokens=400)
    assert made.completion == '{"kind": "a ' and made.tokens[-1].finish == "stop_string"
    again = lm.generate("Once", grammar=Grammar.json_schema(FORM), seed=1, max_tokens=400)
    jsonschema.validate(json.loads(again.completion), FORM)


def test_a_stop_token_comes_only_where_the_text_is_complete(lm: pophood.LM) -> None:
    (end,) = lm.tokenize("<|im_end|>", parse_special=True)
    for seed in range(10):
        wanted = {"logit_bias": {end: 100.0}, "seed": seed}
        made = lm.generate("Once", grammar=Grammar.regex("a{3,9}"), **wanted)
        assert made.completion == "aaa" and made.tokens[-1].id == end
    none = lm.generate("Once", grammar=Grammar.regex("a{3,9}"), stop_ids=(), seed=1)
    assert none.completion == "a" * 9 and none.tokens[-1].finish == "stop"
    more = lm.generate("Once", grammar=Grammar.regex("a{3,9}"), min_tokens=9, seed=1)
    assert more.completion == "a" * 9 or len(more.tokens) > 9


def test_a_bias_against_everything_that_is_allowed_is_an_error(lm: pophood.LM) -> None:
    (token,) = lm.tokenize("a")
    with pytest.raises(BadInput, match="forbidden"):
        lm.generate("Once", grammar=Grammar.regex("aaaa"), logit_bias={token: -math.inf})


def test_samples_are_those_of_each_alone(lm: pophood.LM) -> None:
    grammar = Grammar.json_schema(FORM)
    together = lm.samples("Once", 4, grammar=grammar, seed=9, max_tokens=400, **WILD)
    for number, one in enumerate(together):
        alone = lm.generate("Once", grammar=grammar, seed=9, first_sample=number, max_tokens=400, **WILD)
        assert one.completion == alone.completion
        jsonschema.validate(json.loads(one.completion), FORM)
    assert len({one.completion for one in together}) == 4


def test_a_batch_of_constrained_and_free_texts_gives_the_bits_of_each_alone(lm: pophood.LM) -> None:
    grammars = [None, Grammar.json_schema(FORM), Grammar.regex("[a-f]{20,30}"), None, Grammar.json_object()]
    chains = [SamplingSettings(), SamplingSettings(top_k=0), SamplingSettings(temperature=0)]
    every = [
        GenerateSettings(chain, max_tokens=60, seed=seed, grammar=grammar, details=details, samples=2)
        for seed, (grammar, chain) in enumerate((g, c) for g in grammars for c in chains)
        for details in ("plain", "top")
    ]
    prompts = [
        tuple(lm.tokenize(f"Once upon a time {number}" * (number % 5 + 1))) for number in range(len(every))
    ]

    def results(numbers: list[int]) -> dict[int, list[tuple[Any, ...]]]:
        scheduler = Scheduler(lm.engine, lm.bundle.tokenizer, together=64)
        running = {scheduler.submit(Request(prompts[n], every[n])): n for n in numbers}
        found: dict[int, list[tuple[Any, ...]]] = {n: [] for n in numbers}
        while not scheduler.idle:
            for one, token in scheduler.step().tokens:
                found[running[one]].append((token.sample, *facts(token)))
        assert all(one.error is None for one in running)
        return found

    together = results(list(range(len(every))))
    for number in range(len(every)):
        alone = results([number])[number]
        assert sorted(together[number], key=lambda one: one[0]) == sorted(alone, key=lambda one: one[0])


def test_a_scored_prompt_is_scored_without_its_grammar(lm: pophood.LM) -> None:
    prompt = tuple(lm.tokenize("Once upon a time there was"))
    expected = lm.score(list(prompt)).log_probabilities
    scheduler = Scheduler(lm.engine, lm.bundle.tokenizer)
    running = scheduler.submit(
        Request(prompt, GenerateSettings(grammar=Grammar.json_schema(FORM), max_tokens=400, seed=1), scores=3)
    )
    text = ""
    while not scheduler.idle:
        text += "".join(token.text for _, token in scheduler.step().tokens)
    scores = [score.log_probability for score in running.scores]
    assert scores[1:] == pytest.approx(expected[1:].tolist())
    jsonschema.validate(json.loads(text), FORM)


# ---- errors ----


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (lambda: Grammar.json_schema({"not": {}}), "Unimplemented keys"),
        (
            lambda: Grammar.json_schema({"type": "object", "x-guidance": {"lenient": True}, "not": {}}),
            "Unimpl",
        ),
        (lambda: Grammar.json_schema({"$ref": "https://example.org/x"}), "JSON schema cannot be used"),
        (lambda: Grammar.json_schema({"type": "nothing"}), "JSON schema cannot be used"),
        (lambda: Grammar.json_schema(False), "JSON schema"),
        (lambda: Grammar.json_schema("{"), "is no JSON"),
        (lambda: Grammar.json_schema("[]"), "wanted an object, true or false"),
        (lambda: Grammar.json_schema('{"minimum": NaN}'), "NaN"),
        (lambda: Grammar.json_schema({"const": math.inf}), "is no JSON"),
        (lambda: Grammar.regex("\ud800"), "half a character"),
        (lambda: Grammar.json_schema({"const": "\ud800"}), "JSON schema cannot be used"),
        (lambda: Grammar.regex("(?=a)b"), "regular expression cannot be used"),
        (lambda: Grammar.regex("("), "regular expression cannot be used"),
        (lambda: Grammar.regex(""), "allows no text"),
        (lambda: Grammar.gbnf('root ::= "a'), "grammar cannot be used"),
        (lambda: Grammar.gbnf('rot ::= "a"'), "grammar cannot be used"),
        (lambda: Grammar.gbnf("root ::= " + "(" * 50_000), "grammar cannot be used"),
        (lambda: Grammar.lark("start: missing"), "grammar cannot be used"),
        (lambda: Grammar.choice([]), "a choice needs texts"),
        (lambda: Grammar.choice("yes"), "a choice needs texts"),
        (lambda: Grammar.regex("a" * 300_000), "wanted at most"),
        (lambda: Grammar("ebnf", "x"), "wanted one of"),  # type: ignore[arg-type]
        (lambda: Grammar.regex(5), "wanted a text"),  # type: ignore[arg-type]
        (lambda: {"type": "object"}, "wanted a Grammar"),
        (lambda: Grammar.gbnf('root ::= "a"\n' + 'r ::= "a"\n' * 500), "501 rules"),
        (lambda: Grammar.regex("a" * 300_000), "300,000 characters"),
    ],
)
def test_a_wrong_grammar_is_refused_before_anything_is_computed(
    lm: pophood.LM, grammar: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(lm, monkeypatch)
    with pytest.raises(BadInput, match=re.escape(words)) as caught:
        lm.generate("Once", grammar=grammar())
    assert "\n" not in str(caught.value)
    assert not passes


def failing(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the matcher fail at its step number `at`, as llguidance fails: nothing is raised."""
    steps = 0
    consume = Constraint._consume

    def broken(self: Constraint, tokens: Any) -> None:
        nonlocal steps
        steps += 1
        consume(self, [*tokens, 10**6] if steps == at else tokens)

    monkeypatch.setattr(Constraint, "_consume", broken)


@pytest.mark.parametrize("at", range(1, 21))
def test_a_matcher_that_fails_ends_the_text_with_an_error(
    lm: pophood.LM, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(at, monkeypatch)
    with pytest.raises(EngineError, match="the grammar's matcher failed"):
        lm.generate("Once", grammar=Grammar.regex("[a-z]{90}"), seed=1)


def test_a_mask_without_tokens_is_an_error(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    grammar = compiled(Grammar.regex("[a-z]{90}"), lm.bundle.tokenizer, lm.config.vocab_size)
    constraint = grammar.constraint()
    monkeypatch.setattr(matching, "_read_mask", lambda matcher, size: (bits([], size), False))
    with pytest.raises(EngineError, match="allows no token"):
        constraint.take(lm.tokenize("a")[0])


def test_another_token_than_the_forced_one_is_an_error(lm: pophood.LM) -> None:
    grammar = compiled(Grammar.json_schema(FORM), lm.bundle.tokenizer, lm.config.vocab_size)
    constraint = grammar.constraint()
    constraint.take(int(np.flatnonzero(unpacked(grammar))[0]))
    assert constraint.forced
    with pytest.raises(EngineError, match="forces another"):
        constraint.take(0 if constraint.forced[0] else 1)


def unpacked(grammar: CompiledGrammar) -> Any:
    return np.unpackbits(grammar.first.view(np.uint8), bitorder="little")[: grammar.size]


def test_without_the_extra_one_line_names_it(lm: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    other = pophood.load(lm.path)
    with pytest.raises(Unsupported, match=re.escape("`pip install 'pophood[grammar]'`")):
        other.generate("Once", grammar=Grammar.json_object())


# ---- the vocabulary ----


def test_special_tokens_are_never_text(lm: pophood.LM) -> None:
    grammar = compiled(Grammar.regex("(.|\n)*"), lm.bundle.tokenizer, lm.config.vocab_size)
    allowed = unpacked(grammar)
    assert not allowed[list(lm.bundle.tokenizer.specials)].any()
    assert allowed[lm.tokenize("a")[0]]


def test_grammars_are_compiled_once_and_few_are_kept(lm: pophood.LM) -> None:
    tokenizer, size = lm.bundle.tokenizer, lm.config.vocab_size
    first = compiled(Grammar.regex("a+"), tokenizer, size)
    assert compiled(Grammar.regex("a+"), tokenizer, size) is first
    for number in range(matching.KEPT):
        compiled(Grammar.regex(f"b{number}"), tokenizer, size)
    assert compiled(Grammar.regex("a+"), tokenizer, size) is not first


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_other_vocabularies(family: str, tmp_path: Any) -> None:
    from tests.tiny import tiny_folder

    lm = pophood.load(tiny_folder(tmp_path / "m", family, n_positions=512))
    for seed in range(3):
        made = lm.generate("", grammar=Grammar.json_schema(FORM), seed=seed, max_tokens=400, **WILD)
        jsonschema.validate(json.loads(made.completion), FORM)


def test_a_model_that_is_gone_leaves_nothing(folder: Path) -> None:
    other = pophood.load(folder)
    other.generate("Once", grammar=Grammar.regex("abc"))
    gone = weakref.ref(other.bundle.tokenizer)
    del other
    gc.collect()
    assert gone() is None


def test_a_text_that_the_tokenizer_would_change_is_cut_by_hand(lm: pophood.LM) -> None:
    told = matching._Told(lm.bundle.tokenizer, lm.config.vocab_size)
    for text in ("Once upon a time", "naïve 日本", '{"a": '):
        data = text.encode()
        assert told(data) == lm.tokenize(text)
        assert b"".join(map(lm.bundle.tokenizer.token_bytes, told._longest(data))) == data
    assert told(b"\xe6\x97") == [lm.bundle.tokenizer.id_of("\\xE6"), lm.bundle.tokenizer.id_of("\\x97")]
    assert lm.tokenize("<|im_end|>", parse_special=True)[0] not in told(b"<|im_end|>")
