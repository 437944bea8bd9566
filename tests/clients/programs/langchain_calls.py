"""Calls of LangChain's classes, printed as JSON: an answer, a stream, log-probabilities, embeddings."""

import json
import sys

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

base_url, key, model = sys.argv[1:]
chat = ChatOpenAI(base_url=base_url, api_key=key, model=model, temperature=0, max_tokens=24)
question = [("system", "You answer in one sentence."), ("human", "What is the capital of Japan?")]
answer = chat.invoke(question)
pieces = list(chat.stream(question))
embeddings = OpenAIEmbeddings(base_url=base_url, api_key=key, model=model, check_embedding_ctx_length=False)
print(
    json.dumps(
        {
            "text": answer.content,
            "usage": answer.usage_metadata,
            "embeddings": embeddings.embed_documents(["a cat", "a tax form"]),
            "streamed": "".join(piece.content for piece in pieces),
            "logprobs": len(
                chat.bind(logprobs=True).invoke(question).response_metadata["logprobs"]["content"]
            ),
        }
    )
)
