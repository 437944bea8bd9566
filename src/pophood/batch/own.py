"""Lines in pophood's own shape that generate: a text to continue, or a conversation to answer.

Their answers are those of `LM.generate`, `LM.samples` and `LM.chat` with the same settings, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pophood.batch.model import BatchModel
from pophood.batch.shapes import JobResult, LineRequest, OwnShape, finite
from pophood.errors import BadInput, short
from pophood.generate import GenerateSettings, Token
from pophood.generate.settings import Truncation, fit
from pophood.openai.asked import PromptJob
from pophood.openai.chat import prompt_of, tools_of
from pophood.openai.errors import invalid, of_pophood, unknown_model
from pophood.openai.requests import ChatFields, CompletionFields, GeneratingFields, read_fields, read_ids
from pophood.openai.settings import adapters_of, limit_of, settings_of
from pophood.openai.tools.constraint import unenforced, with_tools
from pophood.openai.tools.parser import CallReading, read_answer

USUAL_TOKENS = 100  # new tokens of a completion, as in `pophood run`; a chat goes on to its end
SAME = {"samples": "n", "template": "chat_template_kwargs"}  # names of LM.stream and LM.chat -> of the fields
DIRECT = ("special", "stop_ids", "details", "top", "truncate")  # fields of GenerateSettings alone
NOT_HERE = {
    "stream": "an answer is written when it is complete",
    "echo": 'the log-probabilities of a text come with "score": true',
    "best_of": "all samples are returned: ask for `n`",
}


def generated(data: dict[str, Any], shape: OwnShape, model: BatchModel) -> LineRequest:
    """Return what a line with `prompt` or `messages` asks for. Raises ApiError."""
    direct = {name: data.pop(name) for name in DIRECT if data.get(name) is not None}
    for name, other in SAME.items():
        if name in data:
            if other in data:
                raise invalid(f"{name} and {other} mean the same: give one", name)
            data[other] = data.pop(name)
    for name, why in NOT_HERE.items():
        if data.get(name):
            raise invalid(f"`{name}` is not supported in a line: {why}", name, "unsupported_parameter")
    if "messages" in data:
        return _chat(read_fields(data, ChatFields), direct, shape, model)
    return _completion(read_fields(data, CompletionFields), direct, shape, model)


def _completion(
    fields: CompletionFields, direct: Mapping[str, Any], shape: OwnShape, model: BatchModel
) -> LineRequest:
    check_model(fields.model, model)
    limit = limit_of(fields)
    if limit is None and model.defaults.max_tokens is None and not model.defaults.endless:
        limit = USUAL_TOKENS
    made = _settings(fields, limit, fields.logprobs, shape, model)
    return _request(_prompt_ids(fields, model), fields, _with_direct(made, direct, model), shape, model)


def _chat(fields: ChatFields, direct: Mapping[str, Any], shape: OwnShape, model: BatchModel) -> LineRequest:
    check_model(fields.model, model)
    limit = limit_of(fields, ("max_completion_tokens", fields.max_completion_tokens))
    if fields.top_logprobs and not fields.logprobs:
        raise invalid("top_logprobs needs `logprobs: true`", "top_logprobs")
    top = (fields.top_logprobs or 0) if fields.logprobs else None
    adapters = adapters_of(fields.adapters, model.served)
    tools = tools_of(fields, adapters, model.served)
    prompt = prompt_of(fields, adapters, tools, model.served)
    settings = _with_direct(_settings(fields, limit, top, shape, model), direct, model)
    if tools is None:
        return _request(tuple(prompt.ids), fields, settings, shape, model, prompt.left_out)
    settings = with_tools(settings, tools, model.served)
    left_out = prompt.left_out + unenforced(tools, settings, model.served)
    return _request(tuple(prompt.ids), fields, settings, shape, model, left_out, tools.reading)


def _request(
    ids: tuple[int, ...],
    fields: ChatFields | CompletionFields,
    settings: GenerateSettings,
    shape: OwnShape,
    model: BatchModel,
    warnings: Sequence[str] = (),
    reading: CallReading | None = None,
) -> LineRequest:
    """Return the request for a prompt, which is cut if it is too long and `truncate` allows it.

    `reading`: how the calls in its answer are read, if it may have some.
    """
    served = model.served
    try:
        prompt, truncation = fit(ids, served.window, settings, served.tokenizer.start_ids)
    except BadInput as error:
        raise of_pophood(error, "messages" if isinstance(fields, ChatFields) else "prompt") from error
    job = PromptJob(prompt, settings, adapters_of(fields.adapters, served))
    return LineRequest(shape, (job,), lambda results: _outputs(results[0], truncation, warnings, reading))


def _settings(
    fields: ChatFields | CompletionFields,
    limit: int | None,
    top: int | None,
    shape: OwnShape,
    model: BatchModel,
) -> GenerateSettings:
    """Return the settings with those of the run where the line says nothing."""
    defaults = model.defaults
    if limit == 0:
        raise invalid("max_tokens is 0; wanted 1 or more, or -1 to the end of the window", "max_tokens")
    limit = defaults.max_tokens if limit is None else limit
    seed = defaults.seed_of(shape.line.number) if fields.seed in (None, -1) else fields.seed
    assert seed is not None
    return settings_of(
        with_defaults(fields, model),
        model.served,
        max_tokens=None if limit == -1 else limit,
        logprobs=top,
        seed=seed,
        kind="chat" if isinstance(fields, ChatFields) else "completion",
    )


def with_defaults(fields: GeneratingFields, model: BatchModel) -> Any:
    """Return the fields with the run's usual stops and special tokens where the line says nothing."""
    defaults = model.defaults
    given: dict[str, Any] = {}
    if fields.stop is None and defaults.stop:
        given["stop"] = list(defaults.stop)
    if fields.skip_special_tokens is None and defaults.special:
        given["skip_special_tokens"] = False
    return replace(fields, **given) if given else fields


def _with_direct(
    settings: GenerateSettings, direct: Mapping[str, Any], model: BatchModel
) -> GenerateSettings:
    """Return the settings with those that are named as `LM.stream` names them."""
    given = dict(direct)
    if isinstance(given.get("details"), bool):
        given["details"] = "top" if given["details"] else "plain"
    if "stop_ids" in given:
        given["stop_ids"] = read_ids(given["stop_ids"], "stop_ids", model.served.vocab_size)
    if not isinstance(given.get("special", False), bool):
        raise invalid(f"special: got {short(given['special'])}; wanted true or false", "special")
    try:
        return replace(settings, **given)
    except BadInput as error:
        raise of_pophood(error, str(error).partition(" ")[0]) from error


def _prompt_ids(fields: CompletionFields, model: BatchModel) -> tuple[int, ...]:
    """Return the tokens of a prompt. Special tokens in a text are text, unless `parse_special` is true."""
    value, served = fields.prompt, model.served
    if isinstance(value, list) and value and isinstance(value[0], int):
        return read_ids(value, "prompt", served.vocab_size)
    if not isinstance(value, str) and value != []:
        raise invalid("prompt: wanted a text or a list of token ids; a line has one prompt", "prompt")
    text = value if isinstance(value, str) else ""
    try:
        add_start = fields.add_special_tokens is not False
        return tuple(served.encode(text, parse_special=bool(fields.parse_special), add_start=add_start))
    except BadInput as error:
        raise of_pophood(error, "prompt") from error


def check_model(name: str | None, model: BatchModel) -> None:
    """Raise ApiError, 404, for another model's name."""
    if not model.served.answers_to(name):
        raise unknown_model(str(name), model.served.name)


# ---- answers ----


def _outputs(
    result: JobResult, truncation: Truncation | None, warnings: Sequence[str], reading: CallReading | None
) -> dict[str, Any]:
    running, settings = result.running, result.running.request.settings
    samples: dict[int, list[Token]] = {
        number: [] for number in range(settings.first_sample, settings.first_sample + settings.samples)
    }
    for token in result.tokens:
        samples[token.sample].append(token)
    body: dict[str, Any] = {
        "outputs": [_output(tokens, settings, reading) for tokens in samples.values()],
        "seed": running.seed,
        "prompt_tokens": len(running.request.prompt),
        "new_tokens": len(result.tokens),
    }
    if truncation is not None:
        body["truncated"] = {"kind": truncation.kind, "dropped": truncation.dropped, "at": truncation.at}
    if warnings:
        body["warnings"] = list(warnings)
    return body


def _output(
    tokens: Sequence[Token], settings: GenerateSettings, reading: CallReading | None
) -> dict[str, Any]:
    text = "".join(token.text for token in tokens)
    output: dict[str, Any] = {"completion": text, "finish": tokens[-1].finish}
    if reading is not None:
        output["completion"], calls = read_answer(reading, text)
        if calls:
            output["tool_calls"] = [{"name": name, "arguments": arguments} for name, arguments in calls]
    if settings.details != "plain":
        output["tokens"] = [_token(token) for token in tokens]
    return output


def _token(token: Token) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "id": token.id,
        "text": token.text,
        "log_probability": finite(token.log_probability),
        "entropy": finite(token.entropy),
    }
    if token.top is not None and token.log_mass is not None:
        facts["top"] = [
            {"id": id_, "text": text, "log_probability": finite(logit - token.log_mass)}
            for id_, text, logit, _ in token.top
        ]
    return facts
