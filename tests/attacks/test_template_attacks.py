"""Hostile chat templates: none reaches Python or exceeds its limits, and each is refused by a typed error.

An escape would show as the canary file, as an object's repr in the output, or as an untyped error. Bombs are
timed: 2 s for rendering, plus what parsing a template of the largest size takes.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pophood.errors import BadFile, BadInput, PophoodError, Unsupported
from pophood.text.chat import template_budget
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.chat.messages import Messages
from tests.attacks.mutate import peak_memory

MESSAGES: Messages = [{"role": "user", "content": "hello", "list": [1, [2]], "name": "x"}]

# Ways out of a sandbox: the classic walks over classes and globals, the two that Jinja itself once left open
# (CVE-2024-56326: str.format kept for later; CVE-2025-27516: str.format by |attr), what templates start from.
ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ [].__class__.__mro__[-1].__subclasses__()[40]('CANARY', 'w') }}",
    "{{ ().__class__ }}",
    "{{ {}.__class__ }}",
    "{{ (1).__class__ }}",
    "{{ 1.5.__class__ }}",
    "{{ true.__class__ }}",
    "{{ none.__class__ }}",
    "{{ messages.__class__ }}",
    "{{ messages[0].__class__ }}",
    "{{ messages[0].content.__class__ }}",
    "{{ messages | attr('__class__') }}",
    "{{ '' | attr('__cla' ~ 'ss__') }}",
    "{{ ''['__cla' ~ 'ss__'] }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ [''] | map(attribute='__class__.__mro__') | list }}",
    "{{ [''] | selectattr('__class__') | list }}",
    "{{ ['', 'a'] | sort(attribute='__class__') }}",
    "{{ [''] | join('', '__class__') }}",
    "{{ [''] | sum(attribute='__class__', start='') }}",
    "{{ [''] | max(attribute='__class__') }}",
    "{{ [''] | unique(attribute='__class__') | list }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__.__mro__}' | format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ '{0[__class__]}'.format('') }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | list }}",
    "{{ ('{0.__class__}' | attr('format'))('') }}",
    "{{ ['{0.__class__}'.format] | map('string') | list }}",
    "{% for f in ['{0.__class__}'.format] %}{{ f('') }}{% endfor %}",
    "{{ '%(x)s' % {'x': ''.__class__} }}",
    "{{ self.__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{% block b %}{{ self.b.__globals__ }}{% endblock %}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace().__class__ }}",
    "{% set n = namespace(a=1) %}{{ n.__init__ }}{{ n._Namespace__attrs }}",
    "{{ dict.__base__ }}",
    "{{ dict.mro() }}",
    "{{ dict.fromkeys(['a']) }}",
    "{{ range.__class__ }}",
    "{{ range(3).__class__ }}",
    "{{ range(3).__reduce__() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception.__code__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__ }}{{ kwargs.__class__ }}{% endmacro %}{{ m(1) }}",
    "{% for x in messages %}{{ loop._iterable }}{% endfor %}",
    "{% for x in messages %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in messages %}{{ loop.cycle.__globals__ }}{% endfor %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages[0].setdefault('a', 1) }}",
    "{{ messages[0].list.clear() }}",
    "{{ (1).to_bytes(9, 'big') }}",
    "{{ 'x'.encode().__class__ }}",
    "{{ 'x'.translate({}) }}",
    "{{ 'x'.maketrans({}) }}",
    "{{ config }}{{ request.application }}{{ environment.globals }}",
    "{{ __import__('os').system('touch CANARY') }}",
    "{{ open('CANARY', 'w') }}{{ eval('1') }}{{ exec('1') }}",
    "{{ undefined_thing.__class__ }}",
    "{{ undefined_thing._fail_with_undefined_error.__globals__ }}",
    "{{ ''.join.__self__ }}",
    "{{ ''.upper.__call__ }}",
    "{% include 'CANARY' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% from 'os' import system %}{{ system('touch CANARY') }}",
    "{% extends 'x' %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{{ messages | pprint }}{{ messages | xmlattr }}",
    "{{ pophood_tick }}{{ '' | pophood_slice(0, 1) | attr('x') }}",
    "{{ [1, 2] | pophood_join | attr('__class__') }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_template_reaches_python(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = repr(MESSAGES)
    try:
        text = ChatTemplate(source).render(MESSAGES)
    except (Unsupported, BadInput, BadFile) as error:
        text = ""
        assert str(error).isprintable()
    for trace in (
        "<class",
        "<function",
        "<built-in",
        "<bound",
        "<module",
        "object at 0x",
        "<jinja2",
        "dict_",
    ):
        assert trace not in text, text
    assert not any(tmp_path.iterdir()) and repr(MESSAGES) == before


def test_there_are_enough_ways_out_among_them() -> None:
    assert len(set(ESCAPES)) == len(ESCAPES) >= 50
    refused = 0
    for source in ESCAPES:
        try:
            ChatTemplate(source).render(MESSAGES)
        except PophoodError:
            refused += 1
    # The others write nothing, or plain data; an undefined name is empty, as always in Jinja.
    assert refused >= len(ESCAPES) - 6


def doubled(times: int, expression: str) -> str:
    """Return a template in which an expression doubles a variable many times."""
    return (
        "{% set n = namespace(x='ab') %}"
        f"{{% for i in range({times}) %}}{{% set n.x = {expression} %}}{{% endfor %}}{{{{ n.x }}}}"
    )


BOMBS = {
    "nested loops": "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4,
    "filtered loops": "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}"
    "{% endfor %}",
    "loops without calls": "{% set r = range(99999) %}" + "{% for a in r %}" * 4 + "{% endfor %}" * 4,
    "compared nests": "{% set a = [1] %}{% set b = [1] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60
    + "{{ a == b }}",
    "a range": "{{ range(10 ** 9) | length }}",
    "a product": "{{ 'a' * 10 ** 10 }}",
    "a list product": "{{ [0] * 10 ** 10 }}",
    "a tilde": doubled(100, "n.x ~ n.x"),
    "a sum": doubled(100, "n.x + n.x"),
    "a join": doubled(100, "[n.x, n.x] | join"),
    "a replacement": doubled(100, "n.x.replace('a', n.x)"),
    "a replacement filter": doubled(100, "n.x | replace('a', n.x)"),
    "a format": doubled(100, "'%s%s' % (n.x, n.x)"),
    "a format method": doubled(100, "'{0}{0}'.format(n.x)"),
    "a list sum": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "a square": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "nested lists": "{% set a = ['lol'] %}" + "{% set a = [a, a, a, a, a, a, a, a, a, a] %}" * 30 + "{{ a }}",
    "nested tuples": "{% set a = 'lol' %}" + "{% set a = (a, a) %}" * 60 + "{{ a | string }}",
    "nested objects": "{% set a = 1 %}" + "{% set a = {'x': a, 'y': a} %}" * 60 + "{{ a | tojson }}",
    "nested by dict": "{% set a = 1 %}" + "{% set a = dict(x=a, y=a) %}" * 60 + "{{ a | tojson }}",
    "nested by list": "{% set a = [1] %}" + "{% set a = [[a], [a]] | sum(start=[]) %}" * 60,
    "padding": "{{ 'a' | center(10 ** 9) }}",
    "padding by method": "{{ 'a'.ljust(10 ** 9) }}{{ 'a'.rjust(10 ** 9) }}{{ 'a'.zfill(10 ** 9) }}",
    "width by percent": "{{ '%1000000000d' % 1 }}",
    "width by argument": "{{ '%*d' % (10 ** 9, 1) }}",
    "width by format": "{{ '{:1000000000}'.format(1) }}",
    "width within format": "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
    "width by filter": "{{ '%1000000000d' | format(1) }}",
    "precision": "{{ '%.1000000000f' % 1.5 }}",
    "indentation": "{{ ('\\n' * 99999) | indent(99999) }}",
    "indentation by text": "{{ ('\\n' * 99999) | indent('x' * 99999) }}",
    "indentation of json": "{{ messages | tojson(indent=10 ** 8) }}",
    "separators of json": "{{ range(9999) | list | tojson(separators=(',' * 99999, ':')) }}",
    "a long join": "{{ (range(99999) | list) | join('x' * 99999) }}",
    "a long join by method": "{{ ('x' * 99999).join(range(99999) | map('string')) }}",
    "rounding": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "slices": "{{ messages | slice(10 ** 9) | list }}",
    "batches": "{{ messages | batch(10 ** 9, 'x') | list }}",
    "sums of lists": "{{ range(99999) | map('list') | sum(start=[]) }}",
    "random words": "{{ lipsum(n=10 ** 8) }}",
    "dates": "{{ strftime_now('%1000000000Y') }}",
    "output": "{% for i in range(99999) %}" + "A" * 1000 + "{% endfor %}",
    "output of values": "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "captured output": "{% set x %}{% for i in range(99999) %}" + "A" * 9999 + "{% endfor %}{% endset %}",
    # One large text many times in a list: cheap to store, expensive to write, compare and search.
    "written lists": "{% set l = ['a' * 999999] * 99999 %}{{ l | upper }}",
    "formatted lists": "{% set l = ['a' * 9999] * 99999 %}{{ '%s' % l }}{{ '{!r}'.format(l) }}",
    "compared lists": "{% set a = 'a' * 999999 %}{% set b = 'a' * 999998 + 'a' %}"
    "{{ [a] * 99999 == [b] * 99999 }}{{ (a ~ 'x') in [b ~ 'y'] * 99999 }}",
    "output of macros": "{% macro m() %}{% for i in range(99999) %}"
    + "A" * 9999
    + "{% endfor %}{% endmacro %}{% set x = m() %}",
    "calls that double": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(99) }}",
    "calls without end": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "callers that double": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 18
    + "x"
    + "{% endcall %}" * 18,
    "recursive loops": "{% for a in messages recursive %}{{ loop(messages) }}{{ loop(messages) }}"
    "{% endfor %}",
    "blocks without end": "{% block b %}{{ self.b() }}{% endblock %}",
    "filtered text": "{% filter replace('a', 'a' * 999) %}" * 6 + "a" + "{% endfilter %}" * 6,
    "cycles": "{% for i in range(99999) %}{{ loop.cycle('a' * 9999, 'b') }}{% endfor %}",
    "comparisons": "{% set x = range(90000) | list %}" + "{% if x == x[:] %}{% endif %}" * 2_000,
    "searches": "{% set x = range(90000) | list %}" + "{% if -1 in x %}{% endif %}" * 2_400,
    "copies": "{% set x = range(90000) | list %}" + "{% set y = x[:] %}" * 2_400,
    "sorting": "{% for i in range(99999) %}{{ range(99999) | sort | first }}{% endfor %}",
    "deep parentheses": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "deep lists": "{{ " + "[" * 9999 + "]" * 9999 + " }}",
    "deep conditions": "{% if 1 %}" * 2_400 + "{% endif %}" * 2_400,
    "deep loops": "{% for x in y %}" * 30 + "{% endfor %}" * 30,
    "a long sum": "{{ " + "1 + " * 30_000 + "1 }}",
    "many nots": "{{ " + "not " * 30_000 + "1 }}",
    "many tags": "{{ a }}" * 18_000,
    "a long number": "{{ " + "9" * 100_000 + " }}",
}


MEMORY = 256 << 20


def test_what_a_list_holds_counts_wherever_it_is() -> None:
    assert template_budget.entries([1, [2, "x"], {"a": (3,)}]) == 8
    for large in ([0] * 100_001, [[0] * 999] * 101, ["a" * 99_999] * 99, {"a": {"b": [0] * 100_001}}):
        with pytest.raises(template_budget.LimitReached):
            template_budget.entries(large)


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_stopped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_budget, "MOST_SECONDS", 0.2)  # 2 s are timed below
    before = peak_memory()
    with pytest.raises(PophoodError) as caught:
        ChatTemplate(BOMBS[kind]).render(MESSAGES)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert peak_memory() - before < MEMORY


@pytest.mark.parametrize("kind", ["nested loops", "callers that double"])
def test_a_bomb_has_two_seconds_of_the_processor(kind: str) -> None:
    template = ChatTemplate(BOMBS[kind])
    started = time.thread_time()
    with pytest.raises(BadFile, match="was stopped: it takes more than 2 s"):
        template.render(MESSAGES)
    assert time.thread_time() - started >= 2


def test_what_is_allowed_is_not_stopped() -> None:
    long = [{"role": "user", "content": "word " * 2_000}] * 60
    template = ChatTemplate("{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim }}\n{% endfor %}")
    assert len(template.render(long)) == 60 * (10_000 + 6)


def test_a_conversation_past_the_limit_is_refused_by_name() -> None:
    with pytest.raises(BadFile, match="stopped: it writes more than 1 MiB"):
        ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}").render(
            [{"role": "user", "content": "x" * 300_000}] * 4
        )
