"""What the doctor says of templates as publishers write them: what is lost, and nothing else."""

import pytest

from headrace.weights.templates import Template, check_template

ALTERNATE = "raise_exception('Conversation roles must alternate user/assistant/user/assistant/...')"
GEMMA_2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ " + ALTERNATE + " }}"
    "{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + "
    "'<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ " + ALTERNATE + " }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
CALLS_AS_TEXT = (  # DeepSeek's and others join the arguments as the text that they are
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name + ' ' + call.function.arguments }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (GEMMA_2, ["system message", "tool calls"]),
        (LLAMA_2, ["tool calls"]),
        (ZEPHYR, ["tool calls"]),
        (CALLS_AS_TEXT, []),
    ],
    ids=["Gemma 2", "Llama 2", "Zephyr", "arguments as text"],
)
def test_a_published_template_loses_what_its_model_never_had(text, lost):
    """System messages and tools are missed where they are; nobody's turn is complained about."""
    found = list(check_template(Template("t", text, "", {"bos_token": "<s>", "eos_token": "</s>"})))
    assert {finding.code for finding in found} <= {"CHAT_TEMPLATE_LIMITED"}
    assert len(found) == len(lost)
    for finding, what in zip(found, lost, strict=True):
        assert what in finding.message
        assert finding.severity == "warning"


def test_a_template_for_tools_is_tried_with_tools():
    """Where a folder has a second template, tools are its business."""
    assert list(check_template(Template("t", ZEPHYR, CALLS_AS_TEXT, {"eos_token": "</s>"}))) == []


def test_a_template_sees_no_environment(monkeypatch):
    """Keys in the environment of whoever checks are not handed to the process that tries the template."""
    from headrace.weights.templates import rehearsal

    seen = []
    original = rehearsal.subprocess.run

    def run(command, **options):
        seen.append(options["env"])
        return original(command, **options)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(rehearsal.subprocess, "run", run)
    list(check_template(Template("t", ZEPHYR, "", {})))
    assert seen
    assert "AWS_SECRET_ACCESS_KEY" not in seen[0]
