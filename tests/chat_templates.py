r"""Chat templates written after the documented behaviour of published model families.

| name | past thoughts | the trained (last) turn's thought | generation prompt ends with |
|---|---|---|---|
| `r1_distill` | dropped | dropped: `content.split('</think>')[-1]` | `<think>\n` |
| `qwen3` | dropped | kept as `<think>\n…\n</think>\n\n`, added if absent | `<|im_start|>assistant\n` |
| `llama3` | kept | kept; contents are trimmed | `<|end_header_id|>\n\n` |
| `chatml` | kept | kept, verbatim | `<|im_start|>assistant\n` |
| `reasoning_field` | dropped | from the field `reasoning_content`; cut out of `content` | `<|assistant|>\n` |

`qwen3` knows `enable_thinking`: false ends the generation prompt with an empty thought.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One chat template.

    Attributes:
        jinja: the template.
        eos_token: the turn end.
        bos_token: the token the template writes first, None if it writes none.
        opens_thought: whether the generation prompt ends with an opening tag.
        keeps_last_thought: whether the last turn's thought, given inside `content`, survives rendering.
    """

    jinja: str
    eos_token: str
    bos_token: str | None = None
    opens_thought: bool = False
    keeps_last_thought: bool = True


ROLE_MARKS = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|User|>",
    "<|Assistant|>",
    "<|begin_of_sentence|>",
    "<|end_of_sentence|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)

_R1_DISTILL = """\
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] -%}{%- endif -%}
{%- endfor -%}
{{- bos_token + ns.system -}}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- '<|User|>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {%- set content = message['content'] -%}
    {%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1] -%}{%- endif -%}
    {{- '<|Assistant|>' + content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|Assistant|><think>\\n' -}}{%- endif -%}
"""

_QWEN_3 = """\
{%- set ns = namespace(last_query=-1) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}{%- set ns.last_query = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set content = message['content'] -%}
  {%- if message['role'] == 'assistant' -%}
    {%- set thought = '' -%}
    {%- if message['reasoning_content'] is string -%}
      {%- set thought = message['reasoning_content'] -%}
    {%- elif '</think>' in content -%}
      {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
      {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if loop.index0 > ns.last_query and (loop.last or thought) -%}
      {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
    {%- else -%}
      {{- content -}}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
  {%- else -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
  {%- if enable_thinking is defined and enable_thinking is false -%}
    {{- '<think>\\n\\n</think>\\n\\n' -}}
  {%- endif -%}
{%- endif -%}
"""

_LLAMA_3 = """\
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim -}}
  {{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_CHATML = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_REASONING_FIELD = """\
{%- set ns = namespace(last_query=-1) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}{%- set ns.last_query = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set content = message['content'] -%}
  {%- if '</think>' in content -%}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
  {%- endif -%}
  {{- '<|' + message['role'] + '|>\\n' -}}
  {%- if message['role'] == 'assistant' and loop.index0 > ns.last_query -%}
    {%- if message['reasoning_content'] is string -%}
      {{- '<think>' + message['reasoning_content'].strip() + '</think>\\n' -}}
    {%- endif -%}
  {%- endif -%}
  {{- content + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""

TEMPLATES: Mapping[str, ChatTemplate] = MappingProxyType(
    {
        "r1_distill": ChatTemplate(
            _R1_DISTILL,
            eos_token="<|end_of_sentence|>",
            bos_token="<|begin_of_sentence|>",
            opens_thought=True,
            keeps_last_thought=False,
        ),
        "qwen3": ChatTemplate(_QWEN_3, eos_token="<|im_end|>"),
        "llama3": ChatTemplate(_LLAMA_3, eos_token="<|eot_id|>", bos_token="<|begin_of_text|>"),
        "chatml": ChatTemplate(_CHATML, eos_token="<|im_end|>"),
        "reasoning_field": ChatTemplate(_REASONING_FIELD, eos_token="<|end|>", keeps_last_thought=False),
    }
)
