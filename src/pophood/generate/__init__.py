"""Generation: the loop from prompt tokens to a stream of tokens, its settings, stop strings, prefix reuse."""

from pophood.generate.batch import BatchRun, generate_batch
from pophood.generate.choose import Finish, Timings, Token, Top
from pophood.generate.loop import Run, generate
from pophood.generate.prefix import Decoder, PrefixCache
from pophood.generate.settings import Details, GenerateSettings, Truncate, Truncation
from pophood.generate.stops import StopStrings

__all__ = [
    "BatchRun",
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
    "generate_batch",
]
