"""Conversations, and chat templates like those of published models, written for these tests."""
# ruff: noqa: E501 - line breaks matter in templates

from __future__ import annotations

from typing import Any

TEMPLATES = {
    "turns": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
        " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "system by default": """
{%- if messages[0].role == 'system' -%}
    {%- set system_message = messages[0].content | trim -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set system_message = "You help." -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{{- bos_token ~ '[SYS]' ~ system_message ~ '[/SYS]' -}}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Roles must alternate: user, assistant, ...') -}}
    {%- endif -%}
    {%- if message.role == 'user' -%}
        {{- ' [INST] ' + message.content.strip() + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message.content.strip() + eos_token -}}
    {%- endif -%}
{%- endfor -%}
""",
    "roles as tokens": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + '\n' + m['content'] | trim + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "macros and tools": """
{%- macro describe(tool, indent=2) -%}
    {{- tool.function.name }}: {{ tool.function.parameters | tojson }}
    {%- for name, spec in (tool.function.parameters.properties or {}).items() | sort %}
 {{ ' ' * indent }}{{ loop.index }}. {{ name | title }} ({{ spec.type | default('any', true) | upper }})
        {%- if name in tool.function.parameters.required | default([]) %} required{% endif %}
    {%- endfor %}
{%- endmacro -%}
{%- if tools is not none and tools %}
<|im_start|>system
{% for tool in tools %}{{ describe(tool) }}
{% endfor %}
{{- tools | map(attribute='function.name') | join(', ') }}{{ tools | length }}<|im_end|>
{% endif -%}
{%- for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content if message.content is string else message.content | selectattr('type', 'equalto', 'text')
   | map(attribute='text') | join(' ') }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson(indent=2) }}
</tool_call>{% endfor %}<|im_end|>
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif -%}
""",
    "thinking": """
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.searching = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content, reasoning = message.content, '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
<|im_start|>assistant
<think>
{{ reasoning.strip('\n') }}
</think>

{{ content }}
        {%- else %}
<|im_start|>assistant
{{ content }}
        {%- endif %}<|im_end|>
    {%- else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}
{%- endif %}
""",
    "loop controls": """
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- if loop.index > 4 %}{% break %}{% endif %}
{{ loop.cycle('>', '<') }} {% generation %}{{ message.content | replace('\\n', ' ') | indent(2) }}{% endgeneration %}
{{- '' if loop.last else '\n---\n' }}
{%- endfor %}{{ eos_token }}
""",
    "filters": (
        "{{ messages | map(attribute='role') | unique | list }}|{{ messages | length }}|"
        "{{ (messages | first).content | upper }}|{{ (messages | last)['content'][:5] | capitalize }}|"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | count }}|{{ 'a,b'.split(',') | join('+') }}|"
        "{{ [3, 1, 2] | sort | reverse | join }}|{{ '%s-%d' | format('x', 3) }}|{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 5 }}|"
        "{{ {'b': 1, 'a': 2} | dictsort }}|{{ {'k': [1, 2.5, none, true]} | tojson }}|{{ undefined_name }}|"
        "{{ '{:>4}|{}'.format(1, 'é') }}|{{ none }}{{ true }}{{ 1.5 }}|{{ 'ab' in 'xaby' }}|{{ 'x' ~ 1 ~ none }}|"
        "{{ range(3) | list }}|{{ [1, 2] + [3] }}|{{ 'a' * 3 }}|{{ 1 if messages else 2 }}|{{ (1, 2)[0] }}"
    ),
    "dates": "{{ strftime_now('%Y') | length }}{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Wëather <b>now</b>",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [user("What is the capital of France?")],
    "three": [
        user("  Hi! \n"),
        assistant("Hello."),
        user("Ünïcödé 日本 'quoted' \"twice\" {{ braces }} {% no %}"),
    ],
    "system": [
        {"role": "system", "content": "  Be brief.\n"},
        user("Why?"),
        assistant("So."),
        user("\tx\n\ny "),
    ],
    "thinking": [user("Sum?"), assistant("<think>\nadd\n</think>\n\nFour"), user("Sure?"), assistant("Yes")],
    "empty": [user("")],
}
