"""The functions of a request: its fields `tools`, `tool_choice` and `parallel_tool_calls`, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pophood.errors import BadInput, PophoodError, quoted, short
from pophood.grammar.grammar import MOST_CHARACTERS
from pophood.openai.errors import invalid
from pophood.openai.tools.formats import KNOWN, CallFormat, call_format
from pophood.openai.tools.parser import CallReading
from pophood.text.chat.chat_template import ChatTemplate

MOST_TOOLS = 128  # OpenAI's bound
CHOICES = ("none", "auto", "required")
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """One function that an answer may call; `parameters` is the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Toolset:
    """The functions of a request, in the format of its template.

    `listed` is what the template reads. With `forced` the answer must call one of `functions`; `several`
    says whether it may have more than one call.
    """

    listed: tuple[Mapping[str, Any], ...]
    functions: tuple[FunctionTool, ...]
    form: CallFormat
    forced: bool = False
    several: bool = True

    @property
    def strict(self) -> bool:
        """True if the arguments of some function must match its schema, whenever it is called."""
        return any(one.strict for one in self.functions)

    @property
    def reading(self) -> CallReading:
        """How the answer is read."""
        names = frozenset(one.name for one in self.functions)
        return CallReading(self.form, names, self.forced, None if self.several else 1)


def toolset_of(
    tools: Sequence[Any] | None, choice: Any, parallel: bool | None, template: ChatTemplate | None
) -> Toolset | None:
    """Return the functions of a request; None if it has none, or its `tool_choice` is "none".

    Raises ApiError for wrong fields, and for a template that does not write functions, or calls in a format
    that is not known.
    """
    mode, named = _choice(choice)
    functions = _functions(tools or ())
    if named is not None and named not in [one.name for one in functions]:
        raise invalid(f"tool_choice: {quoted(named)} is none of the functions in `tools`", "tool_choice")
    if not functions:
        if mode == "required":
            message = "tool_choice wants a call, and `tools` has no function"
            raise invalid(message, "tool_choice", "unsupported_parameter")
        return None
    if mode == "none":
        return None
    form = _form(template)
    if named is not None:
        functions = tuple(one for one in functions if one.name == named)
    several = parallel is not False and named is None
    return Toolset(tuple(tools or ()), functions, form, mode == "required", several)


def takes_tools(template: ChatTemplate) -> bool:
    """Return whether a template writes functions, and calls in a format that is known."""
    try:
        return "tools" in template.variables and call_format(template.source) is not None
    except PophoodError:
        return False


def _form(template: ChatTemplate | None) -> CallFormat:
    if template is None:
        raise invalid("a completion model has no chat template, and no tools", "tools", "no_chat_template")
    if "tools" not in template.variables:
        message = "`tools` is not supported by this model: its chat template has no place for them"
        raise invalid(message, "tools", "unsupported_parameter")
    form = call_format(template.source)
    if form is None:
        message = f"`tools`: the chat template writes calls in a format that is not known; known are {KNOWN}"
        raise invalid(message, "tools", "unsupported_parameter")
    return form


def _choice(value: Any) -> tuple[Literal["none", "auto", "required"], str | None]:
    """Return how calls are chosen, and the function that must be called."""
    if value is None:
        return "auto", None
    if isinstance(value, str) and value in CHOICES:
        return value, None  # type: ignore[return-value]  # one of them
    if isinstance(value, dict) and value.get("type") == "function":
        function = value.get("function", value)  # the Responses API has the name beside the type
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            return "required", name
    wanted = '"none", "auto", "required" or {"type": "function", "function": {"name"}}'
    raise invalid(f"tool_choice: got {short(value)}; wanted {wanted}", "tool_choice", "invalid_value")


def _functions(tools: Sequence[Any]) -> tuple[FunctionTool, ...]:
    if len(tools) > MOST_TOOLS:
        raise invalid(f"tools has {len(tools):,} functions; wanted {MOST_TOOLS} at most", "tools")
    functions = tuple(_function(tool, f"tools[{place}]") for place, tool in enumerate(tools))
    names = [one.name for one in functions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise invalid(f"tools: two functions have the name {quoted(twice)}", "tools")
    characters = sum(len(json.dumps(tool)) for tool in tools)
    if characters > MOST_CHARACTERS:
        message = f"tools has {characters:,} characters of JSON; wanted at most {MOST_CHARACTERS:,}"
        raise invalid(message, "tools")
    return functions


def _function(tool: Any, place: str) -> FunctionTool:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        got = short(tool.get("type") if isinstance(tool, dict) else tool)
        raise invalid(f"{place}: got {got}; wanted an object whose type is function", "tools")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise invalid(f"{place}.function: got {short(function)}; wanted an object", "tools")
    name, parameters, strict = (function.get(key) for key in ("name", "parameters", "strict"))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        wanted = "1 to 64 letters, digits, _ or -"
        raise invalid(f"{place}.function.name: got {short(name)}; wanted {wanted}", "tools")
    if not isinstance(function.get("description"), str | None):
        raise invalid(f"{place}.function.description: wanted a text", "tools")
    if not isinstance(strict, bool | None):
        raise invalid(f"{place}.function.strict: got {short(strict)}; wanted true or false", "tools")
    try:
        return FunctionTool(name, arguments_schema(parameters), bool(strict))
    except BadInput as error:
        raise invalid(f"{place}.function.parameters: {error}", "tools") from error


def arguments_schema(parameters: Any) -> Mapping[str, Any]:
    """Return the schema of arguments, which are an object; without `parameters`, an empty one.

    Properties that the schema neither names nor allows explicitly are left out, as llama.cpp and vLLM do:
    functions are seldom made for them, and small models would write them without end. Raises BadInput.
    """
    if parameters is None:
        return NO_PARAMETERS
    if not isinstance(parameters, dict):
        raise BadInput(f"got {short(parameters)}; wanted a JSON schema")
    kind = parameters.get("type", "object")
    if kind != "object":
        raise BadInput(f"its type is {short(kind)}; wanted object")
    schema: dict[str, Any] = {"type": "object", **parameters}
    open_keys = ("patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref")
    if "properties" in schema and not any(key in schema for key in open_keys):
        schema.setdefault("additionalProperties", False)
    return schema
