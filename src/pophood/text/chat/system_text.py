"""System messages for templates without them: test a template, and merge the text into a user message.

Gemma's and some of Mistral's templates refuse a message with the role "system"; others leave it out. The
usual workaround is to put its text before the first user message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pophood.errors import BadInput, PophoodError
from pophood.text.chat.chat_template import ChatTemplate

_PROBE = "pophood0system"
_ROLES = frozenset({"system", "developer"})


def takes_system(template: ChatTemplate, **variables: Any) -> bool:
    """Return whether the template writes a system message; False if it refuses one or leaves it out.

    `variables` are passed to the template, as the conversation does (`enable_thinking=False`).
    Example: `takes_system(lm.chat_template)` is False for Gemma 2.
    """
    messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "Hi"}]
    try:
        return _PROBE in template.render(messages, **variables)
    except PophoodError:
        return False


def merge_system(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Move the text of each system message to the beginning of the next user message.

    A blank line separates the two. Raises BadInput if a system message is not text, or if no user message
    follows it.

    >>> merge_system([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    [{'role': 'user', 'content': 'Be brief.\\n\\nHi'}]
    """
    merged: list[dict[str, Any]] = []
    waiting: list[str] = []
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if role in _ROLES:
            if not isinstance(content, str):
                raise BadInput(f"the content of message {number} (system) is not text; wanted text to merge")
            waiting += [content] if content.strip() else []
        elif role == "user" and waiting:
            if not isinstance(content, str):
                raise BadInput(
                    f"the content of message {number} (user) is not text; wanted text to merge with"
                )
            merged.append({**message, "content": "\n\n".join([*waiting, content])})
            waiting = []
        else:
            merged.append(dict(message))
    if waiting:
        raise BadInput("no user message follows the system text, so there is nothing to merge it with")
    return merged
