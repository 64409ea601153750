"""Model Garden through google-cloud-aiplatform, unmodified: what there is, where it runs, deploy, ask, delete.

Run by an interpreter that has the client, with the server's address and a key in the environment; prints JSON.
"""

from __future__ import annotations

import json
import os
import sys

import vertexai
from google.api_core import exceptions
from google.oauth2.credentials import Credentials
from vertexai.preview import model_garden

DEMO = "huggingfacetb/smollm2@smollm2-135m-instruct"


def look() -> dict[str, object]:
    """Lists and options."""
    model = model_garden.OpenModel(DEMO)
    return {
        "all": model_garden.list_deployable_models(),
        "gemma": model_garden.list_deployable_models(model_filter="gemma-3-1b"),
        "hub": model_garden.list_deployable_models(list_hf_models=True, model_filter="qwen3-0.6b"),
        "options": len(model.list_deploy_options()),
        "concise": model_garden.OpenModel("google/gemma3@gemma-3-1b-it").list_deploy_options(concise=True),
        "hub_options": len(model_garden.OpenModel("Qwen/Qwen3-0.6B").list_deploy_options()),
    }


def deploy() -> dict[str, object]:
    """Deploy the demonstration model, ask it, and delete it."""
    endpoint = model_garden.OpenModel(DEMO).deploy(
        accept_eula=True,
        machine_type="g2-standard-12",
        accelerator_type="NVIDIA_L4",
        accelerator_count=1,
        dedicated_endpoint_disabled=True,
        endpoint_display_name="from-the-garden",
    )
    question = {"role": "user", "content": "What is the capital of Japan?"}
    parameters = {"max_tokens": 16, "temperature": 0}
    answer = endpoint.predict(instances=[{"messages": [question]}], parameters=parameters)
    endpoint.delete(force=True)
    return {"name": endpoint.resource_name, "answer": answer.predictions[0]["choices"][0]["message"]["content"]}


def refused() -> dict[str, object]:
    """A licence that is not accepted, weights that are nowhere, a model that does not exist."""
    llama = model_garden.OpenModel("meta/llama3-2@llama-3.2-1b-instruct")
    told: dict[str, object] = {"before": llama.check_license_agreement_status()}
    llama.accept_model_license_agreement()
    told["after"] = llama.check_license_agreement_status()
    asked = {
        "licence": lambda: model_garden.OpenModel("google/gemma3@gemma-3-1b-it").deploy(),
        "weights": lambda: model_garden.OpenModel("google/gemma3@gemma-3-1b-it").deploy(accept_eula=True),
        "nothing": lambda: model_garden.OpenModel("google/gemini@001").list_deploy_options(),
    }
    for name, ask in asked.items():
        try:
            ask()
        except exceptions.GoogleAPICallError as error:
            told[name] = {"type": type(error).__name__, "reason": error.reason, "text": str(error)}
    return told


vertexai.init(
    project=os.environ["HEADRACE_PROJECT"],
    location="us-central1",
    api_endpoint=os.environ["HEADRACE_URL"],
    api_transport="rest",
    credentials=Credentials(token=os.environ["HEADRACE_API_KEY"]),
)
print(json.dumps({"look": look, "deploy": deploy, "refused": refused}[sys.argv[1]]()))
