"""Calls of openai-python, printed as JSON: chat, stream, `.stream()` helper, completions, models, errors."""

import json
import sys

import openai

base_url, key, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=key)
found = {"models": [one.id for one in client.models.list()]}
asked = {
    "model": model,
    "messages": [{"role": "user", "content": "What is the capital of Japan?"}],
    "max_tokens": 24,
    "temperature": 0,
}
answer = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
found["chat"] = answer.choices[0].message.content
found["usage"] = answer.usage.model_dump()
found["bytes"] = bytes(b for one in answer.choices[0].logprobs.content for b in one.bytes).decode()
stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
chunks = list(stream)
found["streamed"] = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
found["stream_usage"] = chunks[-1].usage.model_dump()
with client.chat.completions.stream(**asked, n=2, seed=1) as helper:
    for _ in helper:
        pass
    final = helper.get_final_completion()
found["helper"] = [[one.message.role, one.message.content] for one in final.choices]
legacy = client.completions.create(
    model=model, prompt="One, two, three,", max_tokens=8, temperature=0, logprobs=2, echo=True
)
found["legacy"] = legacy.choices[0].text
found["legacy_logprobs"] = legacy.choices[0].logprobs.model_dump()
texts = ["a cat", "a tax form"]
found["embeddings"] = [one.embedding for one in client.embeddings.create(model=model, input=texts).data]
errors = {}
for name, call in {
    "model": lambda: client.chat.completions.create(**(asked | {"model": "nobody"})),
    "overflow": lambda: client.completions.create(model=model, prompt=[5] * 100_000),
    "field": lambda: client.chat.completions.create(**asked, modalities=["text", "audio"]),
    "key": lambda: openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).models.list(),
}.items():
    try:
        call()
    except openai.APIStatusError as error:
        errors[name] = [type(error).__name__, error.status_code, error.code]
found["errors"] = errors
print(json.dumps(found))
