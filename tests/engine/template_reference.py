"""Run by the engine's Python: what transformers and what the worker process make of chat templates.

Usage: ``template_reference.py MODEL``, with a JSON list of ``[template or null, messages, add_generation_prompt]`` on
standard input; null is the model's own template. Prints a list of pairs; a refusal is null.
"""

import json
import sys

import transformers

from headrace_engines.serving.chat_prompt import ChatPrompt, render_chat
from headrace_engines.serving.codec import ChatRefused
from headrace_engines.serving.template_process import TemplateProcess
from headrace_engines.transformers.tokenizer import HuggingFaceCodec

tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
codec = HuggingFaceCodec(tokenizer)
templates = TemplateProcess()
own_template = tokenizer.chat_template


def reference(messages, add_generation_prompt):
    """The prompt of transformers itself."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception:
        return None


def ours(messages, add_generation_prompt):
    """The prompt of the engine."""
    try:
        prompt = ChatPrompt(messages=messages, add_generation_prompt=add_generation_prompt)
        return render_chat(codec, templates, prompt)
    except ChatRefused:
        return None


pairs = []
for template, messages, add_generation_prompt in json.load(sys.stdin):
    tokenizer.chat_template = own_template if template is None else template
    pairs.append([reference(messages, add_generation_prompt), ours(messages, add_generation_prompt)])
print(json.dumps(pairs))
