"""POST /v1/completions: a text, texts, token ids, or lists of them, continued, scored, or both."""

from __future__ import annotations

from pophood.errors import PophoodError
from pophood.openai.asked import Asked, Echo, PromptJob, check_jobs, pause_of, wants_usage
from pophood.openai.choices import CompletionShape
from pophood.openai.errors import invalid, of_pophood
from pophood.openai.inspecting import divided, writer_of
from pophood.openai.logprobs import Speller
from pophood.openai.model import ServedModel
from pophood.openai.requests import CompletionFields, read_ids
from pophood.openai.settings import adapters_of, limit_of, settings_of
from pophood.sampling import draw_seed

USUAL_TOKENS = 16  # OpenAI's max_tokens for completions
MOST_PROMPTS, MOST_CHOICES = 2_048, 4_096

Prompt = tuple[tuple[int, ...], Echo]


def asked_of(request: CompletionFields, served: ServedModel) -> Asked:
    """Return what a request asks for. Raises ApiError for a wrong field and a prompt that is too long."""
    limit = limit_of(request)
    limit = USUAL_TOKENS if limit is None else limit
    samples = request.n or 1
    if request.best_of is not None and request.best_of != samples:
        message = (
            f"best_of is {request.best_of}, n is {samples}: all choices are returned, so they must be equal"
        )
        raise invalid(message, "best_of", "unsupported_parameter")
    adapters = adapters_of(request.adapters, served)
    seed = draw_seed() if request.seed in (None, -1) else request.seed
    assert seed is not None
    settings = settings_of(
        request,
        served,
        max_tokens=None if limit < 1 else limit,
        logprobs=request.logprobs,
        seed=seed,
        kind="completion",
    )
    prompts = prompts_of(request, served)
    if len(prompts) * samples > MOST_CHOICES:
        raise invalid(
            f"{len(prompts):,} prompts with n = {samples}: wanted {MOST_CHOICES:,} choices at most", "n"
        )
    settings = divided(settings, len(prompts))
    scores = request.logprobs if request.echo else None
    jobs = tuple(PromptJob(ids, settings, adapters, scores, limit != 0) for ids, _ in prompts)
    check_jobs(jobs, served, "prompt")
    hidden = () if settings.special else served.tokenizer.specials.keys()
    stream = bool(request.stream)
    speller = None if request.logprobs is None else Speller(served.tokenizer, hidden)
    later = stream and wants_usage(request.stream_options)
    return Asked(
        jobs,
        CompletionShape(served.name, served.fingerprint, speller, usage_later=later),
        "prompt",
        seed,
        speller,
        request.logprobs or 0,
        served.tokenizer.stops if settings.stop_ids is None else settings.stop_ids,
        tuple(echo for _, echo in prompts) if request.echo else (),
        stream,
        later,
        bool(request.return_progress),
        inside=writer_of(settings, served, len(prompts)),
        pause=pause_of(request.stream_options),
    )


def prompts_of(request: CompletionFields, served: ServedModel) -> list[Prompt]:
    """Return the prompts of a request, each with its text for `echo`. Raises ApiError."""
    value = request.prompt
    if isinstance(value, str):
        return [_of_text(value, request, served, "prompt")]
    if not isinstance(value, list) or not value:
        raise _no_prompt()
    if all(isinstance(one, str) for one in value):
        _check_number(value)
        return [_of_text(one, request, served, f"prompt[{i}]") for i, one in enumerate(value)]
    if all(isinstance(one, list) for one in value):
        _check_number(value)
        return [_of_ids(one, served, f"prompt[{i}]") for i, one in enumerate(value)]
    if isinstance(value[0], int):
        return [_of_ids(value, served, "prompt")]
    raise _no_prompt()


def _no_prompt() -> Exception:
    wanted = "a text, a list of texts, a list of token ids, or a list of such lists"
    return invalid(f"prompt: wanted {wanted}, not empty", "prompt", "invalid_value")


def _check_number(prompts: list[object]) -> None:
    if len(prompts) > MOST_PROMPTS:
        raise invalid(f"{len(prompts):,} prompts; wanted {MOST_PROMPTS:,} at most", "prompt")


def _of_text(text: str, request: CompletionFields, served: ServedModel, param: str) -> Prompt:
    add_start = request.add_special_tokens is not False
    try:
        ids = served.encode(text, parse_special=request.parse_special is not False, add_start=add_start)
    except PophoodError as error:
        raise of_pophood(error, param) from error
    added = len(served.tokenizer.start_ids) if add_start else 0
    return tuple(ids), Echo(text, added if text else len(ids))


def _of_ids(value: object, served: ServedModel, param: str) -> Prompt:
    ids = read_ids(value, param, served.vocab_size)
    if not ids:
        raise invalid(f"{param}: wanted one token id or more", param)
    return ids, Echo(served.tokenizer.decode(ids, special=True))
