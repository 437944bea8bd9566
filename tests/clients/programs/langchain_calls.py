"""Calls of LangChain's ChatOpenAI, printed as JSON: an answer, a stream, log-probabilities."""

import json
import sys

from langchain_openai import ChatOpenAI

base_url, key, model = sys.argv[1:]
chat = ChatOpenAI(base_url=base_url, api_key=key, model=model, temperature=0, max_tokens=24)
question = [("system", "You answer in one sentence."), ("human", "What is the capital of Japan?")]
answer = chat.invoke(question)
pieces = list(chat.stream(question))
print(
    json.dumps(
        {
            "text": answer.content,
            "usage": answer.usage_metadata,
            "streamed": "".join(piece.content for piece in pieces),
            "logprobs": len(
                chat.bind(logprobs=True).invoke(question).response_metadata["logprobs"]["content"]
            ),
        }
    )
)
