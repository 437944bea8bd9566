"""A Jinja sandbox in which a template cannot reach Python, run forever, or produce unlimited output.

A chat template is a program from a stranger's file. It runs in this process, not in a child: a child takes
0.1 s to start, is killed differently on every system, and could use all memory before it is killed. Instead,
everything that repeats or grows is charged to a `Budget` first: loops, calls, filters, comparisons and
operators check the clock, and texts and lists are measured before they are made. Attributes, methods and
filters are allowed by list; anything else is refused by name.

The text of messages is `SourcedText`. A filter or function that does not carry sources along gives its result
all sources of its inputs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, _PassArg

from pophood.text.chat.sourced import SourcedText, join_texts, join_with, sources_in, tainted
from pophood.text.chat.template_budget import (
    MOST_BITS,
    MOST_OUTPUT,
    MOST_TAGS,
    MOST_WIDTH,
    Budget,
    LimitReached,
    entries,
)
from pophood.text.chat.template_format import BoundedFormatter, format_filter, indent_filter, percent
from pophood.text.chat.template_syntax import GenerationTag, Instrument


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DATA = (str, int, float, list, tuple, dict, type(None))
_METHODS: dict[type, frozenset[str]] = {
    str: _words(
        "strip lstrip rstrip split rsplit splitlines partition rpartition startswith endswith find rfind"
        " index count lower upper title capitalize casefold swapcase replace join removeprefix removesuffix"
        " format ljust rjust center zfill isdigit isalpha isalnum isspace isupper islower isnumeric isdecimal"
    ),
    list: _words("index count"),
    tuple: _words("index count"),
    dict: _words("get items keys values"),
    LoopContext: _words(
        "index index0 revindex revindex0 first last length cycle changed previtem nextitem depth depth0"
    ),
}
_FILTERS = _words(
    "abs capitalize center count d default dictsort first float format indent int items last length list"
    " lower map max min reject rejectattr replace reverse round select selectattr sort sum title trim"
    " truncate unique upper wordcount"
)
# Filters that turn any input into text.
_TEXT_FILTERS = _words(
    "capitalize center format indent lower replace string title trim truncate upper wordcount"
)
# Filters built from operations that carry sources along, and filters that return one of their inputs.
_FOLLOW_SOURCES = _words("capitalize center format indent join lower replace trim truncate upper")
_PASS_THROUGH = _words("d default first last max min pophood_join pophood_slice pophood_tick safe string")
# In "%": a width or precision of 1000 or more, or one that is taken from the arguments.
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(?:\d{4}|\*|\d*\.(?:\d{4}|\*))")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The Jinja environment of chat templates, with one budget per rendering and thread."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
    concat = staticmethod(join_texts)  # Jinja joins the output of macros and blocks with it

    def __init__(self, functions: Mapping[str, Callable[..., Any]], tojson: Callable[..., str]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
            finalize=_written,
            cache_size=0,
        )
        self._local = threading.local()
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": Namespace, **functions}
        self._callable = frozenset(map(id, self.globals.values()))
        filters = {name: self._guarded(name, FILTERS[name]) for name in _FILTERS}
        own: dict[str, Callable[..., Any]] = {
            "tojson": tojson,
            "safe": lambda value: value,
            "string": lambda value: value,
            "join": self._join_filter,
            "format": format_filter,
            "indent": indent_filter,
            "pophood_tick": lambda value: value,  # `_guarded` checks the clock and measures
            "pophood_join": self._join,
            "pophood_slice": lambda value, *bounds: value[slice(*bounds)],
        }
        self.filters = {**filters, **{name: self._guarded(name, function) for name, function in own.items()}}

    @property
    def budget(self) -> Budget:
        return self._local.budget  # type: ignore[no-any-return]

    def run(self, template: Any, variables: Mapping[str, object]) -> str:
        """Render within the limits; raises LimitReached, SecurityError, or whatever the template raises."""
        self._local.budget = Budget()
        parts: list[str] = []
        size = 0
        for part in template.generate(variables):
            size += len(part)
            if size > MOST_OUTPUT:
                raise LimitReached(f"it writes more than {MOST_OUTPUT >> 20} MiB")
            parts.append(part)
        return join_texts(parts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if source.count("{{") + source.count("{%") > MOST_TAGS:
            raise LimitReached(f"it has more than {MOST_TAGS:,} tags")
        tree: nodes.Template = Instrument().visit(Parser(self, source, name, filename).parse())
        return tree

    # Access to attributes and functions.

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Evaluate `obj.attribute`: an allowed method or property, else an entry of a dict."""
        return self._reach(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Evaluate `obj[argument]`: an entry, else as `obj.argument`."""
        try:
            return obj[argument]
        except (TypeError, LookupError, AttributeError):
            if isinstance(argument, str):
                return self._reach(obj, argument)
            return self.undefined(obj=obj, name=argument)

    def _reach(self, obj: Any, name: str) -> Any:
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind) and name in allowed:
                return getattr(obj, name)
        if isinstance(obj, (dict, Namespace)):
            try:
                return obj[name] if isinstance(obj, dict) else getattr(obj, name)
            except (LookupError, AttributeError):
                pass
        if isinstance(obj, Undefined):
            obj._fail_with_undefined_error()
        kind = str if isinstance(obj, str) else type(obj)
        data = isinstance(obj, _DATA)  # plain data has only attributes that `dir` lists
        if name in dir(kind) or (name.startswith("_") and not data):
            raise SecurityError(f"it asks for {name[:60]!r} of a {kind.__name__}")
        if isinstance(obj, BlockReference):
            raise SecurityError("it reaches into its own blocks")
        return self.undefined(obj=obj, name=name)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a macro, a function that the template was given, or an allowed method."""
        budget = __self.budget
        budget.tick()
        method = isinstance(__obj, (BuiltinMethodType, MethodType))
        if method and isinstance(__obj.__self__, (str, list, tuple, dict)):
            if __obj.__name__ not in __self._methods_of(__obj.__self__):
                raise SecurityError(f"it calls {__obj.__name__!r}")
            if isinstance(__obj.__self__, str):
                for scope in ("_loop_vars", "_block_vars"):  # Jinja passes these to every call
                    kwargs.pop(scope, None)
                return budget.checked(__self._call_text(__obj.__self__, __obj.__name__, args, kwargs))
        elif not __self._may_call(__obj):
            if isinstance(__obj, Undefined):
                __obj._fail_with_undefined_error()
            raise SecurityError(f"it calls a {type(__obj).__name__}")
        result = budget.checked(__context.call(__obj, *args, **kwargs))
        if type(result) is str and id(__obj) in __self._callable:  # macros carry sources along by themselves
            return tainted(result, sources_in((args, kwargs)))
        return result

    def _may_call(self, obj: Any) -> bool:
        if isinstance(obj, (Macro, LoopContext, BlockReference)) or id(obj) in self._callable:
            return True
        return isinstance(obj, MethodType) and isinstance(obj.__self__, LoopContext)

    @staticmethod
    def _methods_of(obj: object) -> frozenset[str]:
        return next((names for kind, names in _METHODS.items() if isinstance(obj, kind)), frozenset())

    def _call_text(self, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "join" and args:
            return self._join_with(text, args[0])
        if name == "format":
            return BoundedFormatter(self, self.charge_written).vformat(text, args, kwargs)
        if name == "replace":
            self._check_replace(text, *args)
        if name in ("ljust", "rjust", "center", "zfill"):
            self._check_width(*args)
        sources = sources_in((args, kwargs))
        if sources and not isinstance(text, SourcedText):
            text = SourcedText(text, ((len(text), ()),) if text else ())
        result = getattr(text, name)(*args, **kwargs)
        return tainted(result, sources) if type(result) is str else result

    # Operations that can grow: measured before they run.

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator to two values, after charging for the size of its result."""
        self.budget.tick()
        if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            self.budget.charge(len(left) + len(right))
        elif operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, (str, list, tuple)) and isinstance(times, int):
                    self.budget.charge(len(many) * max(times, 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > MOST_BITS:
                raise LimitReached(f"it makes a number of more than {MOST_BITS} bits")
        elif operator == "%" and isinstance(left, str):
            self._check_percent(left, right if isinstance(right, tuple) else [right])
            return self.budget.checked(percent(left, right))
        return self.budget.checked(super().call_binop(context, operator, left, right))

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        wanted = _PassArg.from_obj(function)

        @pass_context
        def guarded(context: Context, *args: Any, **kwargs: Any) -> Any:
            self.budget.tick()
            if name in _TEXT_FILTERS and not isinstance(args[0], str):
                args = (_as_text(self, args[0]), *args[1:])
            self._check_filter(name, args, kwargs)
            if wanted is not None:  # some of Jinja's filters take one of these before the value
                first = {"context": context, "environment": self, "eval_context": context.eval_ctx}
                args = (first[wanted.name], *args)
            result = self.budget.checked(function(*args, **kwargs))
            follows = name in _FOLLOW_SOURCES and isinstance(result, SourcedText)
            if not isinstance(result, str) or name in _PASS_THROUGH or follows:
                return result
            return tainted(result, sources_in((args, kwargs)))

        return guarded

    def _check_filter(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse a filter whose result would be far larger than its input."""
        value, rest = args[0], [*args[1:], *kwargs.values()]
        if name == "replace":
            self._check_replace(value, *rest)
        elif name in ("center", "round", "truncate", "int", "float"):
            self._check_width(*rest)
        elif name == "indent":
            width = rest[0] if rest else 4
            self._check_width(*rest)
            self.budget.charge(value.count("\n") * (len(width) if isinstance(width, str) else int(width)))
        elif name == "format":
            self._check_percent(value, rest)
        elif name == "sum":
            if any(isinstance(item, (list, tuple)) for item in rest):
                raise LimitReached("it adds up lists")
        elif name == "tojson":
            self.charge_written(value)

    def _check_percent(self, form: str, values: Iterable[Any]) -> None:
        if _WIDE_PERCENT.search(form):
            raise LimitReached("it formats with a width of 1000 or more")
        for value in values:
            self.charge_written(value)

    def _check_width(self, *values: object) -> None:
        for value in values:
            if isinstance(value, (int, float)) and abs(value) > MOST_WIDTH:
                raise LimitReached(f"it uses a width of more than {MOST_WIDTH:,}")

    def _check_replace(self, text: str, old: object = "", new: object = "", *_: object) -> None:
        self.charge_written([old, new])
        self.budget.charge(len(text) + text.count(str(old)) * len(str(new)))

    def charge_written(self, value: object) -> None:
        """Charge for a value written as text: its entries and all their characters.

        Refuse all but plain data.
        """
        size, pending = entries(value), [value]
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                size += len(item)
            elif isinstance(item, dict):
                pending.extend([*item, *item.values()])
            elif isinstance(item, (list, tuple)):
                pending.extend(item)
            elif not isinstance(item, (int, float, Undefined, type(None))):
                raise SecurityError(f"it writes a {type(item).__name__}")
        self.budget.charge(size)

    # Filters that `Instrument` puts around the nodes of a template.

    def _join(self, values: list[Any]) -> str:
        return self._join_with("", (_as_text(self, value) for value in values))

    def _join_filter(self, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = map(make_attrgetter(self, attribute), values)
        return self._join_with(_as_text(self, d), (_as_text(self, value) for value in values))

    def _join_with(self, separator: str, values: Iterable[Any]) -> str:
        texts: list[str] = []
        for text in values:
            self.budget.tick()
            texts.append(text)
            if isinstance(text, str):
                self.budget.charge(len(text) + len(separator))
        self.budget.charge(sum(map(len, texts)) + len(separator) * len(texts))
        return join_with(separator, texts)


@pass_context
def _written(context: Context, value: object) -> object:
    """Write the value of `{{ value }}`; everything that a template outputs is charged here."""
    environment = context.environment
    assert isinstance(environment, ChatEnvironment)
    return _as_text(environment, value)


def _as_text(environment: ChatEnvironment, value: object) -> str:
    environment.charge_written(value)
    text = str(value)
    return text if isinstance(value, str) else tainted(text, sources_in(value))
