"""A chat template rendered without transformers says what it says with it, and does no more."""

from contextlib import suppress

import pytest
from jinja2 import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from assembler.chat import render

PAIRS = [
    [{"role": "user", "content": "What is\nthis? <b>"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    [*({"role": role, "content": f"{i} é"} for i, role in enumerate(("user", "assistant", "user")))],
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "a loop": "{% for m in messages %}\n<{{ m.role }}>{{ m['content'] | trim }}\n{% endfor %}{{ eos_token }}",
    "white space": "{{ bos_token }}\n  {%- for m in messages -%}\n    {{ m['content'] }}\n  {% endfor %}\n\n!",
    "a namespace": "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.last = m.role %}{% endfor %}{{ ns.n }} {{ ns.last }}",
    "breaks": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}{% break %}"
    "{% endfor %}",
    "json": "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ dict(a='<', b=[1]) | tojson }}",
    "marked for training": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}.",
    "what jinja2 brings": "{% set sep = joiner('|') %}{% set c = cycler('a', 'b') %}"
    "{% for m in messages %}{{ sep() }}{{ c.next() }}{{ m.role }}{% endfor %}",
    "a macro": "{% macro say(m, end='') %}{{ m.role }}: {{ m.content }}{{ end }}{% endmacro %}"
    "{% for m in messages %}{{ say(m, '|' if not loop.last) }}{% endfor %}",
    "what may be given": "{% if tools %}tools{% endif %}{% if documents is not none %}documents{% endif %}"
    "{% if enable_thinking is defined and enable_thinking %}thinking{% endif %}{{ '?' if add_generation_prompt }}",
    "texts": "{% for m in messages[::-1] %}{{ m.content.split('\\n')[0].upper() }}{{ loop.index0 }}{% endfor %}"
    "{{ range(3) | list }}{{ strftime_now('%Y') | length }}",
}


def through_transformers(template: str, messages: list[dict[str, str]]) -> str:
    """The reference."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"<s>": 0, "</s>": 1}, [])), **SPECIAL)
    tokenizer.chat_template = template
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("messages", PAIRS, ids=("one", "system", "three"))
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_says_what_it_says_in_transformers(template, messages) -> None:
    assert render(template, messages, **SPECIAL) == through_transformers(template, messages)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__name__ }}",
        "{{ render.__globals__ }}",
        "{{ lipsum.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__code__ }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(_Namespace__attrs=1) }}",
        "{{ messages.append(1) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ range(10 ** 9) | length }}",
        "{% include '/etc/hostname' %}",
        "{{ raise_exception('the roles must alternate') }}",
    ],
)
def test_a_template_reaches_nothing_but_texts(template) -> None:
    with suppress(TemplateError, OverflowError, TypeError):
        assert render(template, PAIRS[0], **SPECIAL) == ""  # what the sandbox hides is as if it were not there
