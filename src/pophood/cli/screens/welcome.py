"""What bare `pophood` says: which model is here, and five commands. At most twelve lines, at once."""

from __future__ import annotations

from pophood.cli.terminal.console import Console

# A question for the chat examples that the small model answers correctly; tests/real/test_smollm2.py asks it.
QUESTION = "What is the capital of France?"


def welcome(console: Console) -> None:
    """Print the twelve lines, from what is on disk; no model is loaded, no connection opened."""
    from importlib.metadata import version

    from pophood import hub

    choice = hub.default_choice()
    here = f"Model here: {choice.name} ({choice.why})" if choice else "No model is here yet; run takes one."
    console.out(f"pophood {version('pophood')}: run a language model on this computer, and look inside it")
    console.out(here)
    console.out()
    for example, words in (
        ("pophood demo", "what a language model does, in ten seconds"),
        ('pophood run "The capital of Spain is"', "continue a text"),
        ("pophood chat", "talk with a chat model"),
        ("pophood show", "facts and figures of the model"),
        ("pophood doctor", "is this machine ready?"),
    ):
        console.out(f"  {example:<39} {words}")
    console.out()
    console.out("All commands: pophood --help")
