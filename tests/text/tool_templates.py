"""Chat templates of four formats of calls, written for these tests in the manner of published ones."""
# ruff: noqa: E501 - line breaks matter in templates

from __future__ import annotations

HERMES = """
{%- if tools %}<|im_start|>system
{{ messages[0].content + '\n\n' if messages[0].role == 'system' }}You may call these functions:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Write each call as
<tool_call>
{"name": <function>, "arguments": <arguments>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{%- if message.content %}
{{ message.content }}
{%- endif %}
{%- for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}
<tool_response>
{{ message.content }}
</tool_response>
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>
{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA = """
{%- if messages[0].role == 'system' %}
{%- set system, rest = messages[0].content | trim, messages[1:] %}
{%- else %}
{%- set system, rest = '', messages %}
{%- endif %}
{{- '<|im_start|>system\n' ~ system ~ '<|im_end|>' }}
{%- for message in rest %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|im_start|>assistant\n{"name": "' ~ call.name ~ '", "parameters": ' ~ (call.arguments | tojson) ~ '}<|im_end|>' }}
{%- elif message.role in ('tool', 'ipython') %}
{{- '<|im_start|>ipython\n' ~ (message.content if message.content is string else message.content | tojson) ~ '<|im_end|>' }}
{%- elif message.role == 'user' and loop.first and tools is not none and tools %}
{{- '<|im_start|>user\nAnswer with a call of a function, as {"name": function name, "parameters": dictionary of argument name and its value}.\n\n' }}
{%- for tool in tools %}{{ tool | tojson(indent=4) ~ '\n\n' }}{% endfor %}
{{- message.content | trim ~ '<|im_end|>' }}
{%- else %}
{{- '<|im_start|>' ~ message.role ~ '\n' ~ (message.content | trim) ~ '<|im_end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

MISTRAL = """
{{- bos_token }}
{%- set last = messages | selectattr('role', 'equalto', 'user') | list | last %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools and message == last %}[AVAILABLE_TOOLS] {{ tools | map(attribute='function') | list | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{{- '[INST] ' ~ message.content ~ '[/INST]' }}
{%- elif message.tool_calls %}
{{- message.content or '' }}[TOOL_CALLS] [
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids of calls have 9 letters') }}{% endif %}
{{- '{"name": "' ~ call.function.name ~ '", "arguments": ' ~ (call.function.arguments | tojson) ~ ', "id": "' ~ call.id ~ '"}' }}
{{- ', ' if not loop.last }}
{%- endfor %}]{{ eos_token }}
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' ~ (message.content | tojson) ~ ', "call_id": "' ~ message.tool_call_id ~ '"}[/TOOL_RESULTS]' }}
{%- else %}
{{- ' ' ~ message.content ~ eos_token }}
{%- endif %}
{%- endfor %}"""

NAMED = """
{{- bos_token }}
{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}[INST]{{ message.content }}[/INST]
{%- elif message.role == 'assistant' %}
{{- message.content or '' }}
{%- for call in message.tool_calls or [] %}
{%- set arguments = call.function.arguments %}
{{- '[TOOL_CALLS]' ~ call.function.name ~ '[ARGS]' ~ (arguments if arguments is string else arguments | tojson) }}
{%- endfor %}{{ eos_token }}
{%- elif message.role == 'tool' %}[TOOL_RESULTS]{{ message.content }}[/TOOL_RESULTS]
{%- else %}[SYSTEM_PROMPT]{{ message.content }}[/SYSTEM_PROMPT]
{%- endif %}
{%- endfor %}"""

PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
XML = (
    PLAIN
    + "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{# <tool_call><function=f> #}<tool_call>"
)

TOOL_TEMPLATES = {"hermes": HERMES, "llama": LLAMA, "mistral spaced": MISTRAL, "mistral named": NAMED}
