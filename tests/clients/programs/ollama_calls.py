"""Calls of Ollama's Python client, printed as JSON: the model, a chat, a stream, a continuation, an error."""

import json
import sys

import ollama

(host,) = sys.argv[1:]
client = ollama.Client(host=host)
model = client.list().models[0].model
shown = client.show(model)
asked = {"model": model, "messages": [{"role": "user", "content": "What is the capital of Japan?"}]}
options = {"temperature": 0, "num_predict": 24}
answer = client.chat(**asked, options=options)
pieces = list(client.chat(**asked, options=options, stream=True))
try:
    client.chat(**(asked | {"model": "nobody"}))
except ollama.ResponseError as error:
    failure = [error.status_code, error.error]
print(
    json.dumps(
        {
            "model": model,
            "window": shown.modelinfo[f"{shown.modelinfo['general.architecture']}.context_length"],
            "capabilities": shown.capabilities,
            "text": answer.message.content,
            "streamed": "".join(piece.message.content for piece in pieces),
            "counts": [answer.prompt_eval_count, answer.eval_count, pieces[-1].eval_count],
            "done": [answer.done, answer.done_reason, pieces[-1].done_reason],
            "continued": client.generate(model, "One, two,", raw=True, options=options).response,
            "error": failure,
        }
    )
)
