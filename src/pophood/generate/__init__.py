"""Generation: the scheduler (the loop), one prompt, several prompts, settings, stops, the prefix cache."""

from pophood.generate.batch import BatchRun, generate_batch
from pophood.generate.choose import Finish, Timings, Token, Top
from pophood.generate.decoder import Decoder
from pophood.generate.inside import BestTokens, Inside, Inspect
from pophood.generate.loop import Run, generate
from pophood.generate.prefix import PrefixCache, TokenScore
from pophood.generate.request import Request, Running
from pophood.generate.scheduler import Scheduler
from pophood.generate.settings import Details, GenerateSettings, Truncate, Truncation
from pophood.generate.stops import StopStrings

__all__ = [
    "BatchRun",
    "BestTokens",
    "Decoder",
    "Details",
    "Finish",
    "GenerateSettings",
    "Inside",
    "Inspect",
    "PrefixCache",
    "Request",
    "Run",
    "Running",
    "Scheduler",
    "StopStrings",
    "Timings",
    "Token",
    "TokenScore",
    "Top",
    "Truncate",
    "Truncation",
    "generate",
    "generate_batch",
]
