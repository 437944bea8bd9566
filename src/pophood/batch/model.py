"""BatchModel: a loaded model, and what is equal for all lines: names, adapters, usual settings, memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from pophood.adapters.adapter import Adapter
from pophood.adapters.open import template_of
from pophood.batch.facts import BatchFacts
from pophood.errors import BadInput
from pophood.generate import PrefixCache
from pophood.generate.decoder import BLOCK, KvBlocks
from pophood.generate.scheduler import MOST_TOGETHER
from pophood.model.identity import adapter_digest, public_name, weights_digest
from pophood.model.lm import LM
from pophood.model.memory import plan_memory
from pophood.openai.model import ServedAdapter, ServedModel, fingerprint
from pophood.sampling import SEED_LIMIT, SamplingSettings
from pophood.system import available_memory
from pophood.text.chat.chat_template import ChatTemplate

PREFIX_BLOCKS = 256  # of finished prompts and answers, or one window if that is more


@dataclass(frozen=True, slots=True)
class LineDefaults:
    """Settings of lines that name none. `max_tokens` None: the usual number of each kind of line.

    `seed` is the run's; `created` is the time that answers in OpenAI's shape state.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_tokens: int | None = None
    endless: bool = False  # `max_tokens` None then means: to the end of the window
    stop: tuple[str, ...] = ()
    special: bool = False
    seed: int = 0
    created: int = 0

    def seed_of(self, number: int) -> int:
        """Return the seed of a line, which depends on its number and the run's seed only; 32 bits.

        >>> LineDefaults(seed=1).seed_of(1), LineDefaults(seed=1).seed_of(2)
        (34241681, 4145649918)
        """
        text = f"{self.seed % SEED_LIMIT} {number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class BatchModel:
    """A model, and everything about it that is equal for all lines of a run.

    model = BatchModel(pophood.load("smollm2"), LineDefaults(seed=7))
    """

    def __init__(
        self,
        lm: LM,
        defaults: LineDefaults | None = None,
        *,
        aliases: Sequence[str] = (),
        most_samples: int = MOST_TOGETHER,
        fingerprint: str | None = None,
    ) -> None:
        """`aliases` are further names for which lines may ask, `fingerprint` replaces this machine's.

        Raises BadInput for adapters of one name.
        """
        self.lm, self.defaults = lm, defaults or LineDefaults()
        self.adapters = _by_name(lm)
        templates = {
            adapter.name: template_of(place)
            for (adapter, _), (place, _) in zip(lm.adapters, lm.adapter_places, strict=True)
        }
        names = lm.bundle.tokenizer.names
        self.served = ServedModel(
            public_name(lm),
            lm.bundle.tokenizer,
            lm.own_template,
            lm.engine.context,
            lm.config.vocab_size,
            fingerprint or self.fingerprint,
            aliases=(lm.name, *aliases),
            adapters={
                name: ServedAdapter(name, None if source is None else ChatTemplate(source, names=names))
                for name, source in templates.items()
            },
            usual_adapters=tuple((adapter.name, scale) for adapter, scale in lm.adapters),
            sampling=self.defaults.sampling,
            most_samples=most_samples,
            layers=lm.config.n_layer,
            heads=lm.config.n_head,
        )

    # ---- what it is ----

    @cached_property
    def weights(self) -> str:
        """A hash that tells the model's files apart."""
        return weights_digest(self.lm.path)

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint` of answers in OpenAI's shape."""
        import pophood

        engine = self.lm.engine
        return fingerprint(pophood.__version__, self.weights, engine.precision, engine.isa)

    def facts(self) -> BatchFacts:
        """Return what the answers of this run depend on."""
        import pophood

        lm, defaults = self.lm, self.defaults
        rounds = "bfloat16" in lm.how_computed  # its products differ in bits between instruction sets
        return BatchFacts(
            pophood.__version__,
            defaults.created,
            lm.name,
            self.weights,
            lm.engine.precision,
            lm.engine.kv,
            lm.engine.context,
            f"{lm.how_computed} {lm.engine.isa}" if rounds else lm.how_computed,
            [[adapter.name, scale, adapter_digest(adapter)] for adapter, scale in lm.adapters],
            _settings(defaults),
            defaults.seed,
        )

    # ---- memory ----

    def blocks(self, together: int) -> int:
        """Return how many blocks of keys and values all lines and the prefix cache may take.

        That is what `together` texts of a whole window take, or half of the memory that is free.
        """
        lm = self.lm
        plan = plan_memory(
            lm.config, lm.weights.stored_type, lm.engine.context, lm.engine.precision, lm.engine.kv
        )
        window = KvBlocks.of(lm.config).computed(lm.engine.context)
        free = available_memory() // 2 // (BLOCK * plan.cache_per_position)
        return max(1, min(together * window + self._prefix_blocks, free))

    def prefix(self, blocks: int) -> PrefixCache:
        """Return a prefix cache for all lines."""
        return PrefixCache(self.lm.engine, min(self._prefix_blocks, blocks))

    @property
    def _prefix_blocks(self) -> int:
        return max(PREFIX_BLOCKS, KvBlocks.of(self.lm.config).computed(self.lm.engine.context))


def _by_name(lm: LM) -> dict[str, Adapter]:
    found: dict[str, Adapter] = {}
    for adapter, _ in lm.adapters:
        if adapter_digest(found.setdefault(adapter.name, adapter)) != adapter_digest(adapter):
            raise BadInput(f"two adapters are called {adapter.name}: rename the folder of one")
    return found


def _settings(defaults: LineDefaults) -> Mapping[str, Any]:
    """Return the usual settings as JSON has them, without the seed."""
    settings = asdict(defaults.sampling)
    settings["logit_bias"] = {str(id_): str(value) for id_, value in defaults.sampling.logit_bias.items()}
    limits = asdict(defaults)
    return settings | {name: limits[name] for name in ("max_tokens", "endless", "stop", "special")}
