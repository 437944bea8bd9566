"""Grammars that a text must follow: how one is written down, and which tokens it allows next."""

from pophood.grammar.grammar import Grammar

__all__ = ["Grammar"]
