"""The output of bare `pophood`: the default model and five commands, in at most twelve lines."""

from __future__ import annotations

from pophood.cli.terminal.console import Console

# The chat examples' question. The small model answers it correctly, as tests/real/test_smollm2.py checks.
QUESTION = "What is the capital of France?"


def welcome(console: Console) -> None:
    """Print the lines from what is on disk, without loading a model or opening a connection."""
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
