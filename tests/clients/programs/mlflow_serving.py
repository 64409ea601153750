"""MLflow's deployments client, unmodified: a serving endpoint made, asked whole and streamed, changed and deleted."""

from __future__ import annotations

import json
import sys
import time

from mlflow.deployments import get_deploy_client

MODEL = sys.argv[1]
QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of Japan?"}],
    "max_tokens": 16,
    "temperature": 0,
}
client = get_deploy_client("databricks")
told = {}


def settled():
    """The endpoint, once no update of it is under way."""
    for _ in range(480):
        found = client.get_endpoint("mf1")
        if found["state"]["config_update"] != "IN_PROGRESS":
            return found
        time.sleep(0.5)
    raise SystemExit(f"it does not settle: {found}")


entity = {"name": "m", "entity_name": MODEL, "entity_version": "1", "workload_size": "Small"}
client.create_endpoint(name="mf1", config={"name": "mf1", "config": {"served_entities": [entity]}})
told["made"] = settled()["state"]
told["listed"] = [one["name"] for one in client.list_endpoints()]
told["chat"] = client.predict(endpoint="mf1", inputs=QUESTION)["choices"][0]["message"]["content"]
pieces = [chunk["choices"][0] for chunk in client.predict_stream(endpoint="mf1", inputs=QUESTION) if chunk["choices"]]
told["streamed"] = "".join(piece["delta"].get("content") or "" for piece in pieces)
client.update_endpoint_config(endpoint="mf1", config={"served_entities": [{**entity, "scale_to_zero_enabled": True}]})
told["updated"] = settled()["config"]["served_entities"][0]["scale_to_zero_enabled"]
client.delete_endpoint(endpoint="mf1")
told["left"] = [one["name"] for one in client.list_endpoints()]
print(json.dumps(told))
