"""databricks-sdk, unmodified: an entity of system.ai, and a model that embeds, each served and asked."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta

import openai
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole, EndpointCoreConfigInput, ServedEntityInput

FOUNDATION, ENCODER = sys.argv[1:]
LONG = timedelta(minutes=4)
URL, KEY = os.environ["HEADRACE_URL"], os.environ["HEADRACE_API_KEY"]
serving = WorkspaceClient(host=URL, token=KEY).serving_endpoints
told = {}


def served(name, model):
    """An endpoint of one entity, once it is READY."""
    entity = ServedEntityInput(entity_name=model, entity_version="1", workload_size="Small", scale_to_zero_enabled=True)
    config = EndpointCoreConfigInput(name=name, served_entities=[entity])
    return serving.create_and_wait(name=name, config=config, timeout=LONG)


told["foundation"] = served("foundation", FOUNDATION).config.served_entities[0].entity_name
question = ChatMessage(role=ChatMessageRole.USER, content="What is the capital of Japan?")
answer = serving.query("foundation", messages=[question], temperature=0, max_tokens=16)
told["answer"] = answer.choices[0].message.content

served("encoder", ENCODER)
inputs = ["Hello", "What is it?"]
vectors = serving.query("encoder", input=inputs)
told["object"] = vectors.object.value
told["sdk"] = [one.embedding for one in vectors.data]
by_openai = openai.OpenAI(base_url=f"{URL}/serving-endpoints", api_key=KEY)
embedded = by_openai.embeddings.create(model="encoder", input=inputs, encoding_format="float")
told["openai"] = [one.embedding for one in embedded.data]
told["tokens"] = embedded.usage.prompt_tokens
for name in ("foundation", "encoder"):
    serving.delete(name)
print(json.dumps(told))
