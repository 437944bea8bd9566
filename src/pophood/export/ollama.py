"""Writes an Ollama Modelfile: path of the weights, chat template in Go's language, stops, sampling values.

Chat templates are programs in Jinja, while Ollama's are in Go. The template is not translated but tried on a
few conversations of made-up words. If each comes out as fixed text around each message, the equivalent Go
template is written. Any other template is left out, with a note; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pophood.errors import PophoodError
from pophood.model.bundle import Bundle
from pophood.text.chat.chat_template import ChatTemplate

SYSTEM, USER, ANSWER, AGAIN = "Qsyst7", "Quser7", "Qansw7", "Qmore7"
_PARAMETERS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


@dataclass(frozen=True, slots=True)
class Turns:
    """A chat format without conditions: the text before and after the words of each role."""

    before: str  # before the conversation, without the start token, which readers add themselves
    around: dict[str, tuple[str, str]]  # role -> (text before, text after)
    prompt: str  # before the answer to generate
    system: str | None  # the system text of the template itself, used if the conversation has none

    def render(self, messages: list[tuple[str, str]], *, prompt: bool) -> str:
        """Render (role, words) pairs as the Go template does."""
        if self.system is not None and messages[0][0] != "system":
            messages = [("system", self.system), *messages]
        turns = (self.around[role][0] + words + self.around[role][1] for role, words in messages)
        return self.before + "".join(turns) + (self.prompt if prompt else "")


def modelfile(bundle: Bundle, weights: str, template: str | None = None) -> tuple[str, list[str]]:
    """Return the Modelfile for a GGUF file of this name beside it, and notes.

    Example: `modelfile(bundle, "notes.gguf")[0]` begins "FROM ./notes.gguf".
    """
    lines, notes = [f"FROM ./{weights}"], list[str]()
    names = bundle.tokenizer.names
    chat = bundle.chat_template if template is None else ChatTemplate(template, names=names)
    if chat is None:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    else:
        turns = recognise(chat, bundle)
        if turns is None:
            notes.append(
                "the Modelfile has no TEMPLATE: the model's chat template does more than put text around each"
                " turn, so Ollama uses the one in the GGUF file; check its answers"
            )
        else:
            lines.append(f'TEMPLATE """{go_template(turns)}"""')
            if turns.system is not None:
                lines.append(f'SYSTEM """{turns.system}"""')
    stops = (bundle.tokenizer.token_text(id_) for id_ in sorted(bundle.tokenizer.stops))
    lines += (f'PARAMETER stop "{stop}"' for stop in stops)
    suggested = ((theirs, bundle.suggested.get(ours)) for ours, theirs in _PARAMETERS.items())
    lines += (f"PARAMETER {name} {value:g}" for name, value in suggested if value is not None)
    return "\n".join(lines) + "\n", notes


def recognise(chat: ChatTemplate, bundle: Bundle) -> Turns | None:
    """Return the format of a chat template if it has no conditions, else None."""
    if "strftime_now" in chat.source:
        return None  # today's date would be fixed in the file
    starts = "".join(bundle.tokenizer.token_text(id_) for id_ in bundle.tokenizer.start_ids)

    def rendered(*messages: tuple[str, str], prompt: bool = False) -> str:
        conversation = [{"role": role, "content": words} for role, words in messages]
        text = chat.render(conversation, add_generation_prompt=prompt)
        return text.removeprefix(starts)

    try:
        turns = _take_apart(rendered)
        sound = turns is not None and all(
            rendered(*messages, prompt=prompt) == turns.render(list(messages), prompt=prompt)
            for messages in _CONVERSATIONS
            for prompt in (False, True)
            if not (prompt and messages[-1][0] == "assistant")
        )
    except PophoodError:
        return None
    if turns is None or not sound:
        return None
    texts = [turns.before, turns.prompt, turns.system or "", *sum(turns.around.values(), ())]
    return None if any(odd in text for text in texts for odd in ("{{", "}}", '"""')) else turns


_U, _A, _S = ("user", USER), ("assistant", ANSWER), ("system", SYSTEM)
_CONVERSATIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (_U,),
    (_S, _U),
    (_U, _A),
    (_S, _U, _A),
    (_U, _A, ("user", AGAIN)),
    (_S, _U, _A, ("user", AGAIN), ("assistant", "two words"), ("user", "and\nlines")),
)


def _take_apart(rendered: Callable[..., str]) -> Turns | None:
    long = rendered(_S, _U, _A, ("user", AGAIN))
    words = (SYSTEM, USER, ANSWER, AGAIN)
    if any(long.count(word) != 1 for word in words):
        return None
    first, rest = long.split(SYSTEM)
    to_user, rest = rest.split(USER)
    to_answer, rest = rest.split(ANSWER)
    to_again, after_user = rest.split(AGAIN)
    after_answer = rendered(_U, _A).rpartition(ANSWER)[2]
    with_prompt = rendered(_S, _U, _A, ("user", AGAIN), prompt=True)
    if not (to_answer.startswith(after_user) and to_again.startswith(after_answer)):
        return None
    before_user = to_again[len(after_answer) :]
    if not (to_user.endswith(before_user) and with_prompt.startswith(long)):
        return None
    after_system = to_user[: len(to_user) - len(before_user)]
    around = {
        "system": (first, after_system),
        "user": (before_user, after_user),
        "assistant": (to_answer[len(after_user) :], after_answer),
    }
    prompt = with_prompt[len(long) :]
    head = rendered(_U).partition(USER)[0]  # the text before the first user message without a system message
    before = head.removesuffix(before_user)
    if head.endswith(before_user) and first.startswith(before):
        around["system"] = (first[len(before) :], after_system)
        return Turns(before, around, prompt, None)
    if head.startswith(first) and head.endswith(to_user):
        return Turns("", around, prompt, head[len(first) : len(head) - len(to_user)])
    return None


def go_template(turns: Turns) -> str:
    """Write the same format in Go's template language, over Ollama's .Messages."""
    roles = [
        f'{{{{ {word} eq .Role "{role}" }}}}{turns.around[role][0]}{{{{ .Content }}}}{turns.around[role][1]}'
        for word, role in (("if", "system"), ("else if", "user"), ("else if", "assistant"))
    ]
    return f"{turns.before}{{{{ range .Messages }}}}{''.join(roles)}{{{{ end }}}}{{{{ end }}}}{turns.prompt}"
