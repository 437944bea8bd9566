"""A request for the scheduler, and its state while it waits, is computed, and ends."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from pophood.errors import PophoodError
from pophood.generate.choose import Chooser, Finish, Sample, Timings
from pophood.generate.decoder import Decoder, Flag, KvBlocks
from pophood.generate.inside import Inside
from pophood.generate.pooling import Pool, Pooling
from pophood.generate.prefix import TokenScore
from pophood.generate.settings import GenerateSettings
from pophood.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to continue, to score, or both.

    `prompt` is computed as it is: `loop.prepared` checks it. `adapters` are numbers of the engine's (None:
    the engine's own choice). Requests of one `client` wait for each other, those of several take turns. With
    `scores` every token of the prompt is scored, with so many of the likeliest tokens beside it. With
    `generates` False nothing is generated; `pools` then makes one vector of the whole prompt.
    """

    prompt: tuple[int, ...]
    settings: GenerateSettings = field(default_factory=GenerateSettings)
    adapters: tuple[int, ...] | None = None
    client: Hashable = None
    scores: int | None = None
    generates: bool = True
    pools: Pooling | None = None


class Running:
    """A request that was submitted. Any thread may `cancel` it and read its state.

    `reused` of its prompt's tokens were not computed again, `read` are in the engine. `scores` are those of
    the prompt's tokens so far, `insides` are told of those that are inspected. It has ended when `ended` is
    true: normally, by `cancel`, or by `error`.
    """

    def __init__(self, request: Request, engine: Decoder, tokenizer: Tokenizer) -> None:
        self.request = request
        if (inspect := request.settings.inspect) is not None:
            inspect.check(engine.config.n_layer, engine.config.n_head, engine.config.vocab_size)
        self.chooser = Chooser(tokenizer, request.settings, engine.config.vocab_size, engine.context)
        self.samples: list[Sample] = []  # those that are being written
        self.first: Sample | None = None  # whose sequence reads the prompt
        self.read = self.reused = 0
        self.known = 0  # tokens of the prompt that the prefix cache has, though `reused` may be fewer
        self.scores: list[TokenScore] = []
        self.insides: list[Inside] = []
        self.pool = None if request.pools is None else Pool(request.pools, engine.config.n_embd)
        self.looked = 0  # values that were told of the model's insides
        self.error: PophoodError | None = None
        self.ended = False
        self.held = False  # True: not to be admitted yet
        self.blocks = blocks_needed(
            KvBlocks.of(engine.config),
            len(request.prompt),
            request.settings,
            request.generates,
            engine.context,
            request.pools,
        )
        self.flag: Flag = engine.cancel_flag()

    def cancel(self) -> None:
        """End it at the next block of the model."""
        self.flag.set()

    @property
    def cancelled(self) -> bool:
        return self.flag.is_set

    @property
    def seed(self) -> int:
        return self.chooser.seed

    @property
    def timings(self) -> Timings:
        return self.chooser.timings

    @property
    def finishes(self) -> dict[int, Finish]:
        """Why each sample ended, by its number."""
        return self.chooser.finishes

    @property
    def to_read(self) -> int:
        """Tokens of the prompt that are fed. Without an answer the last one is not: its row says nothing."""
        return len(self.request.prompt) - (not self.request.generates and self.pool is None)

    @property
    def reading(self) -> bool:
        return self.read < self.to_read


def blocks_needed(
    kv: KvBlocks,
    prompt: int,
    settings: GenerateSettings,
    generates: bool,
    context: int,
    pools: Pooling | None = None,
) -> int:
    """Return the KV blocks that all samples of a prompt need together when each has its full length."""
    if not generates:
        return kv.computed(prompt - (pools is None))
    new = context if settings.max_tokens is None else settings.max_tokens
    whole = min(prompt + new - 1, context)  # the last token is never fed
    own = kv.computed(whole, prompt)  # of a sample that shares the whole blocks of the prompt
    return kv.computed(whole) + (settings.samples - 1) * own
