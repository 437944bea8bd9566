"""Talk with a chat model: python examples/chat_loop.py [MODEL]. An empty line ends the conversation."""

from __future__ import annotations

import sys

import pophood

lm = pophood.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
conversation: list[dict[str, str]] = []
while True:
    try:
        question = input("> ")
    except EOFError:
        break
    if not question:
        break
    conversation.append({"role": "user", "content": question})
    answer = ""
    for token in lm.chat(conversation, temperature=0, max_tokens=100):
        print(token.text, end="", flush=True)
        answer += token.text
    print()
    conversation.append({"role": "assistant", "content": answer})
