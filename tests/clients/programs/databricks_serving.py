"""databricks-sdk, unmodified: a serving endpoint made, asked in every way, given another config and deleted."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta

import openai
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import ResourceAlreadyExists, ResourceDoesNotExist
from databricks.sdk.service.serving import (
    ChatMessage,
    ChatMessageRole,
    DataframeSplitInput,
    EndpointCoreConfigInput,
    EndpointTag,
    Route,
    ServedEntityInput,
    TrafficConfig,
)

MODEL = sys.argv[1]
LONG = timedelta(minutes=4)
URL, KEY = os.environ["HEADRACE_URL"], os.environ["HEADRACE_API_KEY"]
QUESTION = "What is the capital of Japan?"
client = WorkspaceClient(host=URL, token=KEY)
serving = client.serving_endpoints
told = {}


def entity(name, **fields):
    """One of the model's first version."""
    return ServedEntityInput(entity_name=MODEL, entity_version="1", name=name, **fields)


made = serving.create_and_wait(
    name="sdk1",
    config=EndpointCoreConfigInput(name="sdk1", served_entities=[entity("a", workload_size="Small")]),
    tags=[EndpointTag(key="team", value="x")],
    timeout=LONG,
)
told["made"] = [made.name, made.state.ready.value, made.state.config_update.value, made.tags[0].key, len(made.id)]
told["listed"] = [one.name for one in serving.list()]
told["entity"] = [
    (one.name, one.entity_version, one.state.deployment.value) for one in serving.get("sdk1").config.served_entities
]
chat = serving.query(
    "sdk1", messages=[ChatMessage(role=ChatMessageRole.USER, content=QUESTION)], temperature=0, max_tokens=16
)
told["chat"] = chat.choices[0].message.content
told["completion"] = (
    serving.query("sdk1", prompt="The capital of Japan is", temperature=0, max_tokens=4).choices[0].text
)
frame = DataframeSplitInput(columns=["prompt", "max_tokens", "temperature"], data=[["The capital of Japan is", 4, 0]])
told["split"] = serving.query("sdk1", dataframe_split=frame).predictions
records = [{"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16, "temperature": 0}]
told["records"] = serving.query("sdk1", dataframe_records=records).predictions[0]["choices"][0]["message"]["content"]
told["inputs"] = serving.query("sdk1", inputs=["The capital of Japan is"]).predictions
told["instances"] = serving.query("sdk1", instances=["The capital of Japan is"]).predictions
stream = requests.post(
    f"{URL}/serving-endpoints/sdk1/invocations",
    headers={"Authorization": f"Bearer {KEY}"},
    json={"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16, "temperature": 0, "stream": True},
    stream=True,
    timeout=60,
)
events = [line[6:] for line in stream.iter_lines() if line.startswith(b"data: ")]
told["stream"] = "".join(json.loads(one)["choices"][0]["delta"].get("content") or "" for one in events[:-1])
told["stream_end"] = events[-1].decode()
compatible = openai.OpenAI(base_url=f"{URL}/serving-endpoints", api_key=KEY)
answer = compatible.chat.completions.create(
    model="sdk1", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=16
)
told["openai"] = answer.choices[0].message.content
completed = compatible.completions.create(model="sdk1", prompt="The capital of Japan is", temperature=0, max_tokens=4)
told["openai_completion"] = completed.choices[0].text
updated = serving.update_config_and_wait(
    "sdk1",
    served_entities=[entity("a", workload_size="Small"), entity("b", workload_size="Small")],
    traffic_config=TrafficConfig(
        routes=[
            Route(served_model_name="a", traffic_percentage=80),
            Route(served_model_name="b", traffic_percentage=20),
        ]
    ),
    timeout=LONG,
)
told["updated"] = {one.served_model_name: one.traffic_percentage for one in updated.config.traffic_config.routes}
told["errors"] = []
for mistake in (
    lambda: serving.get("nothing-here"),
    lambda: serving.create("sdk1", config=EndpointCoreConfigInput(name="sdk1", served_entities=[entity("a")])),
    lambda: serving.query("nothing-here", prompt="x"),
    lambda: serving.query("sdk1"),
):
    try:
        mistake()
    except Exception as error:
        told["errors"].append([type(error).__name__, str(error)])
assert issubclass(ResourceAlreadyExists, Exception)
assert issubclass(ResourceDoesNotExist, Exception)
serving.delete("sdk1")
told["left"] = [one.name for one in serving.list()]
print(json.dumps(told))
