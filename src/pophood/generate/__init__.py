"""Generation: the loop from prompt tokens to a stream of tokens, its settings, stop strings, prefix reuse."""

from pophood.generate.loop import Finish, Run, Timings, Token, Top, generate
from pophood.generate.prefix import Decoder, PrefixCache
from pophood.generate.settings import Details, GenerateSettings, Truncate, Truncation
from pophood.generate.stops import StopStrings

__all__ = [
    "Decoder",
    "Details",
    "Finish",
    "GenerateSettings",
    "PrefixCache",
    "Run",
    "StopStrings",
    "Timings",
    "Token",
    "Top",
    "Truncate",
    "Truncation",
    "generate",
]
