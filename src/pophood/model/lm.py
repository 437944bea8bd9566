"""LM: a language model ready to use. It joins a model's files, its engine and the functions on them.

`load` opens a model by name, folder or file. The generation loop is in `generate/`, the forward pass in
`model/engine.py`, the probabilities of a text in `model/score.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood import hub
from pophood.adapters.adapter import Adapter
from pophood.config import ModelConfig
from pophood.errors import BadInput, ContextOverflow, Unsupported
from pophood.generate import BatchRun, GenerateSettings, PrefixCache, Run, Token, generate, generate_batch
from pophood.generate.scheduler import TOGETHER
from pophood.model.bundle import Bundle, Weights, open_bundle
from pophood.model.engine import CancelFlag, Engine, Rows
from pophood.model.memory import COMPUTED_BLOCKS, WIDENED_BLOCKS, computed_precision
from pophood.model.score import Score, check_k, score_ids, top_table
from pophood.model.trace import Trace, TracePlan, plan_trace, trace
from pophood.sampling import SamplingSettings
from pophood.table import Table, count
from pophood.text.chat.chat_template import ChatTemplate, encode_chat
from pophood.text.chat.thoughts import thought_tags

Text = str | Sequence[int]  # a prompt: text, or token ids
AdapterSource = Adapter | str | PathLike[str]  # an adapter, a PEFT folder, or a .gguf file
AdapterChoice = AdapterSource | tuple[AdapterSource, float]  # alone (factor 1), or with a factor


@dataclass(frozen=True, slots=True)
class Generation:
    """One finished sample: `text` is the prompt followed by its `completion`."""

    text: str
    completion: str
    tokens: list[Token]
    seconds: float
    seed: int


class LM:
    """A language model, ready to run; `load` opens one.

    lm = pophood.load("smollm2")
    lm.generate("The capital of Spain is", max_tokens=10, temperature=0).text
    """

    def __init__(self, bundle: Bundle, engine: Engine, name: str | None = None) -> None:
        self.bundle = bundle
        self.engine = engine
        self.name = name or bundle.name
        self.adapters: tuple[tuple[Adapter, float], ...] = ()
        self.adapter_places: tuple[tuple[str, float], ...] = ()  # (path or name, factor)
        self.adapter_titles: tuple[str, ...] = ()  # what views call them, if that is not their places
        self._own_template = bundle.chat_template

    def __repr__(self) -> str:
        return f"LM({self.name!r}, {count(self.n_params, 'parameter')}, {self.engine.precision}, {self.path})"

    @property
    def config(self) -> ModelConfig:
        """The architecture: n_layer, n_head, n_embd, n_positions, vocab_size and the rest."""
        return self.bundle.config

    @property
    def run_precision(self) -> str:
        """The precision that `pophood run` computes this model at by default: "auto" or "f32"."""
        return computed_precision(self.config, self.bundle.weights.stored_type, "auto")

    def at(self, precision: str, progress: Callable[[int, int], object] | None = None) -> LM:
        """Return this model at a precision: itself, or another engine with the same weights and adapters.

        Evaluations compute at "f32", so that their figures do not depend on how fast a model runs.
        `progress` is as in `load`.
        """
        if self.engine.precision == precision and (precision != "f32" or self.engine.kv == "f32"):
            return self
        engine = Engine(self.config, precision, self.engine.threads, self.engine.context)
        engine.load(self.bundle.weights, progress)
        other = LM(self.bundle, engine, self.name)
        if self.adapters:
            engine.use_adapters(self.adapters)
            other.adapters, other.adapter_places = self.adapters, self.adapter_places
        return other

    @property
    def how_computed(self) -> str:
        """The precision in words: "auto (blocks as stored)", "auto (products in bfloat16)", "f32", "q8"."""
        if self.engine.precision != "auto":
            return self.engine.precision
        blocks = set(self.bundle.precisions) & {*COMPUTED_BLOCKS, *WIDENED_BLOCKS}
        return f"auto ({'blocks as stored' if blocks else 'products in bfloat16'})"

    @property
    def path(self) -> Path:
        """The folder or file that the model came from."""
        return self.bundle.path

    @property
    def n_params(self) -> int:
        """The number of parameters: 124,439,808 for GPT-2 small."""
        return self.config.n_params

    @property
    def weights(self) -> Weights:
        """The tensors by name, read-only float32: `lm.weights["transformer.wte.weight"]`."""
        self.engine.turns.rows(1)  # decoding one takes long
        return self.bundle.weights

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The template that turns a conversation into a prompt; None for a completion model."""
        return self.bundle.chat_template

    @property
    def own_template(self) -> ChatTemplate | None:
        """The template in the model's own files, whatever adapters are used."""
        return self._own_template

    @property
    def has_template_of_adapter(self) -> bool:
        """True if an adapter's chat template replaces the model's own."""
        return self._own_template is not None and self.bundle.chat_template is not self._own_template

    def use_adapters(self, adapters: Sequence[AdapterChoice]) -> None:
        """Compute with these adapters instead of the present ones; [] removes all. No weight is changed.

        A chat template in an adapter's folder, with which it was trained, replaces the model's own; the last
        one counts. Raises NotFound, BadFile, Unsupported for the files, BadInput for another model's adapter.

            lm.use_adapters(["notes-lora", ("style-lora", 0.5)])
        """
        from pophood.adapters.open import open_adapter, template_of

        opened: list[tuple[Adapter, float]] = []
        places: list[tuple[str, float]] = []
        template = self._own_template
        for choice in adapters:
            source, factor = choice if isinstance(choice, tuple) else (choice, 1.0)
            if not np.isfinite(factor):
                raise BadInput(f"the scale of an adapter is {factor}; wanted a number such as 0.5")
            places.append((source.name if isinstance(source, Adapter) else fspath(source), float(factor)))
            if isinstance(source, Adapter):
                opened.append((source, float(factor)))
                continue
            opened.append((open_adapter(fspath(source), self.config), float(factor)))
            own = template_of(fspath(source))
            if own is not None and (template is None or own != template.source):
                template = ChatTemplate(own, names=self.bundle.tokenizer.names)
        self._prefix.forget()
        self.engine.use_adapters(opened)
        self.adapters = tuple(opened)
        self.adapter_places, self.adapter_titles = tuple(places), ()
        self.bundle = replace(self.bundle, chat_template=template)

    # ---- text and tokens ----

    def tokenize(self, text: str, *, parse_special: bool = False, add_start: bool = True) -> list[int]:
        """Return the token ids of a text; special tokens in it are ordinary text unless `parse_special`."""
        return self.bundle.tokenizer.encode(text, parse_special=parse_special, add_start=add_start)

    def detokenize(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Return the text of token ids, with its spaces; special tokens are left out unless `special`."""
        return self.bundle.tokenizer.decode(ids, special=special)

    def tokens(self, text: Text) -> Table:
        """Return the tokens of a text as a table: position, token_id, token_text."""
        spell = self.bundle.tokenizer.token_text
        rows = tuple((i, token, spell(token)) for i, token in enumerate(self._ids(text)))
        return Table(("position", "token_id", "token_text"), rows)

    def next(self, text: Text, k: int = 10) -> Table:
        """Return a table of the k likeliest next tokens: token_id, token_text, logit, probability."""
        check_k(k, self.config.vocab_size)
        return top_table(self._logits(text, "last")[0], k, self.bundle.tokenizer.token_text)

    def logits(self, text: Text) -> NDArray[np.float32]:
        """Return the logits after every token: [T, V]. `[-1]` predicts the next token."""
        return self._logits(text, "all")

    def score(self, text: Text, *, window: int | None = None, overlap: int = 0, **options: Any) -> Score:
        """Return the log-probability of every token of a text, read in windows (see `score.score_ids`).

        `lm.score("...").perplexity`
        """
        ids = self.tokenize(text) if isinstance(text, str) else list(text)
        return score_ids(self.engine, ids, window=window, overlap=overlap, **options)

    # ---- generation ----

    def stream(
        self,
        prompt: Text,
        *,
        parse_special: bool = False,
        cancel: CancelFlag | None = None,
        **settings: Any,
    ) -> Run:
        """Continue a prompt and return a run, which yields a `Token` record for each token.

        `settings` are the fields of GenerateSettings (max_tokens, samples, seed, stop, truncate...) and of
        SamplingSettings (temperature, top_k, top_p...). `details="top"`, or True, adds
        probability, entropy and the top 10 to each token. `grammar`, a `Grammar`, is a form that the text
        must have, such as a JSON schema. Keys and values of the last call are reused for the tokens that both
        prompts begin with.

            for token in lm.stream("Once upon a time"): print(token.text, end="")
        """
        ids = self.tokenize(prompt, parse_special=parse_special) if isinstance(prompt, str) else prompt
        chosen = _generate_settings(settings)
        return generate(self.engine, self.bundle.tokenizer, ids, chosen, self._prefix, cancel)

    def generate(self, prompt: Text, **settings: Any) -> Generation:
        """Continue a prompt until the sample ends; keywords as in `stream`.

        lm.generate("The capital of Spain is", max_tokens=10, top_k=40, temperature=0.8).text
        """
        return self.samples(prompt, 1, **settings)[0]

    def samples(self, prompt: Text, n: int, **settings: Any) -> list[Generation]:
        """Return n continuations of one prompt, computed as one batch; sample i is the same as alone."""
        run = self.stream(prompt, samples=n, **settings)
        return self._collect(run, [prompt] * n, run.settings.first_sample)

    def batch(
        self,
        prompts: Sequence[Text],
        *,
        together: int = TOGETHER,
        parse_special: bool = False,
        cancel: CancelFlag | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """Continue several prompts in one batch; the result i is what `generate` gives for prompt i alone.

        Each pass over the weights serves all of them, `together` at a time: when one ends, the next prompt
        takes its place. Keywords as in `stream`, but for `samples`; nothing of earlier calls is reused.

            [one.completion for one in lm.batch(["The capital of Spain is", "Once upon a time"], seed=1)]
        """
        ids = [
            self.tokenize(prompt, parse_special=parse_special) if isinstance(prompt, str) else prompt
            for prompt in prompts
        ]
        chosen = _generate_settings(settings)
        run = generate_batch(self.engine, self.bundle.tokenizer, ids, chosen, cancel, together=together)
        return self._collect(run, prompts)

    def _collect(self, run: Run | BatchRun, prompts: Sequence[Text], first: int = 0) -> list[Generation]:
        """Run to the end and return a result for each prompt; the tokens of prompt 0 have sample `first`."""
        samples: list[list[Token]] = [[] for _ in prompts]
        for token in run:
            samples[token.sample - first].append(token)
        starts = [prompt if isinstance(prompt, str) else self.detokenize(prompt) for prompt in prompts]
        texts = ["".join(token.text for token in tokens) for tokens in samples]
        return [
            Generation(start + text, text, tokens, tokens[-1].seconds, run.seed)
            for start, text, tokens in zip(starts, texts, samples, strict=True)
        ]

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        template: Mapping[str, Any] | None = None,
        cancel: CancelFlag | None = None,
        **settings: Any,
    ) -> Run:
        """Answer a question, or a conversation: [{"role": "user", "content": "..."}, ...].

        `template` holds variables for the chat template, such as `tools` or `enable_thinking`. Special tokens
        are recognised only in what the template itself writes. Tags of a thought (`<think>`) are shown.
        Raises Unsupported without a template, BadInput for a variable that the template never reads and for
        messages that it leaves out.

            "".join(token.text for token in lm.chat("What is the capital of Japan?", temperature=0))
            lm.chat("Why?", template={"enable_thinking": False})
        """
        if self.chat_template is None:
            raise Unsupported(
                f"{self.name} is a completion model, without a chat template: use generate or stream"
            )
        talk = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        variables = dict(template or {})
        self.chat_template.check_variables(variables)
        tokenizer = self.bundle.tokenizer
        ids = encode_chat(tokenizer, self.chat_template, talk, **variables)
        defaults = {"max_tokens": None, "shown": tuple(thought_tags(tokenizer.specials))}
        chosen = _generate_settings(defaults | settings)
        return generate(self.engine, tokenizer, ids, chosen, self._prefix, cancel)

    # ---- inside ----

    def trace(self, text: Text, taps: Sequence[str] = ("*",), cancel: CancelFlag | None = None) -> Trace:
        """Run a text through the model once and keep the intermediate arrays.

        `taps` are names or wildcards (docs/taps.md), "!..." leaves matches out; the default is everything.
        `plan_trace` tells the memory beforehand. Raises BadInput for a tap that does not exist, OutOfMemory
        for arrays that do not fit.

            lm.trace("The capital of Spain is", taps=["blocks.*.attn.pattern"])["blocks.0.attn.pattern"]
        """
        return trace(self.engine, self._ids(text), taps, cancel)

    def plan_trace(self, text: Text, taps: Sequence[str] = ("*",)) -> TracePlan:
        """Return the memory that `trace` would need, array by array."""
        return plan_trace(self.config, len(self._ids(text)), taps)

    @cached_property
    def _prefix(self) -> PrefixCache:
        return PrefixCache(self.engine)

    def _ids(self, text: Text) -> list[int]:
        ids = self.tokenize(text) if isinstance(text, str) else list(text)
        if not ids:
            raise BadInput("the text is empty: give at least one token")
        if len(ids) > self.engine.context:
            why = self.config.limited_by(self.engine.context)
            raise ContextOverflow(len(ids), self.engine.context, "shorten the text", why=why)
        return ids

    def _logits(self, text: Text, rows: Rows) -> NDArray[np.float32]:
        with self.engine.sequence() as sequence:
            return self.engine.logits([(sequence, self._ids(text))], rows=rows)


def load(
    name: str | PathLike[str] | hub.Located | None = None,
    *,
    precision: str = "auto",
    kv: str = "auto",
    refresh: bool = False,
    threads: int | None = None,
    context: int | None = None,
    offline: bool | None = None,
    adapters: Sequence[AdapterChoice] = (),
    announce: Callable[[str], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    weights: bool = True,
) -> LM:
    """Load a model: a name ("gpt2", "smollm2"), a hub id, a folder, a .gguf file, or None for the default.

    A model that is not on this machine is downloaded. `announce` receives a line about that, and about each
    value in its files that is left out; by default they are warnings on stderr. `refresh` downloads the model
    again; `offline` forbids every connection. `precision` and `kv` are as in `Engine`. `threads` and
    `context` default to the machine's and the model's. `adapters` are as in `LM.use_adapters`.
    `progress(done, total)` counts weights while they are packed. Without `weights` none is read: such a
    model tells what it is and how it would be computed. Raises subclasses of PophoodError.

        lm = pophood.load("gpt2")
    """
    if isinstance(name, hub.Located):
        located = name
    elif refresh and name is not None:
        located = hub.pull(fspath(name), force=True, announce=announce)
    else:
        located = hub.locate(None if name is None else fspath(name), offline=offline, announce=announce)
    bundle = open_bundle(located.path)
    for remark in bundle.remarks:
        (announce or hub.say_to_log)(remark)
    engine = Engine(bundle.config, precision, threads, context, kv)
    if weights:
        engine.load(bundle.weights, progress)
    else:
        engine.settle(bundle.weights)
    lm = LM(bundle, engine, located.name)
    if adapters:
        lm.use_adapters(adapters)
    return lm


def _generate_settings(settings: dict[str, Any]) -> GenerateSettings:
    """Distribute keywords over GenerateSettings and its SamplingSettings; BadInput names unknown ones."""
    sampling = {field.name for field in fields(SamplingSettings)}
    own = {field.name for field in fields(GenerateSettings)} - {"sampling"}
    unknown = sorted(set(settings) - sampling - own)
    if unknown:
        raise BadInput(
            f"no setting is called {', '.join(unknown)}; there are: {', '.join(sorted(sampling | own))}"
        )
    if isinstance(details := settings.get("details"), bool):
        settings["details"] = "top" if details else "plain"
    chosen = SamplingSettings(**{name: settings[name] for name in sampling & settings.keys()})
    return GenerateSettings(sampling=chosen, **{name: settings[name] for name in own & settings.keys()})
