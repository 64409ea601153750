"""A notebook for an entry: it deploys the model with Vertex AI's own client, asks it something, and undoes both.

Written in nbformat 4.5 (https://nbformat.readthedocs.io/en/latest/format_description.html), whose JSON is all that it
takes. Where the server is, and by which key, it reads from the environment, as the command line does.
"""

from __future__ import annotations

from typing import Any

from headrace.catalogue.entries import Entry

_SETTINGS = """\
import os

import vertexai
from google.oauth2.credentials import Credentials
from vertexai import model_garden

URL = os.environ.get("HEADRACE_URL", "http://127.0.0.1:8080")
KEY = os.environ["HEADRACE_API_KEY"]
PROJECT = os.environ.get("HEADRACE_PROJECT", "default")
LOCATION = os.environ.get("HEADRACE_LOCATION", "us-central1")

vertexai.init(
    project=PROJECT, location=LOCATION, api_endpoint=URL, api_transport="rest", credentials=Credentials(token=KEY)
)"""

_DEPLOY = """\
endpoint = model.deploy(accept_eula=ACCEPT_LICENCE, dedicated_endpoint_disabled=True)
print(endpoint.resource_name)"""

_ASK = """\
answer = endpoint.predict(instances=[{instance}], parameters={{"max_tokens": 32, "temperature": 0.0}})
print(answer.predictions[0])"""

_UNDO = "endpoint.delete(force=True)"


def notebook_of(entry: Entry) -> dict[str, Any]:
    """The notebook's JSON."""
    cells = [
        _text(_about(entry)),
        _text("Settings: where the server is, and your key. The client is `pip install google-cloud-aiplatform`."),
        _code(_SETTINGS),
        _text("The model, and the machines on which it has room."),
        _code(f'model = model_garden.OpenModel("{entry.id}")\nprint(model.list_deploy_options(concise=True))'),
        _text(_licence(entry)),
        _code(f"ACCEPT_LICENCE = {not entry.licence.accept}"),
        _text("Deploy it. This returns when it answers."),
        _code(_DEPLOY),
        _text("Ask it something."),
        _code(_ASK.format(instance=_instance(entry))),
        _text("Take it off again, and its endpoint with it."),
        _code(_UNDO),
    ]
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _about(entry: Entry) -> str:
    return (
        f"# {entry.display_name}\n\n"
        f"`{entry.id}`, by {entry.publisher_name}: {entry.parameters:,} parameters, sequences of up to "
        f"{entry.context_tokens:,} tokens{', reads images' if entry.images else ''}. "
        f"On the Hugging Face Hub it is `{entry.hub}`."
    )


def _licence(entry: Entry) -> str:
    licence = f"[{entry.licence.name}]({entry.licence.url})"
    if entry.licence.accept:
        return f"Its publisher asks you to accept the {licence} first: read it, and set this to `True` if you do."
    return f"Its licence, {licence}, asks for no acceptance."


def _instance(entry: Entry) -> str:
    if entry.instruct:
        return '{"messages": [{"role": "user", "content": "What is the capital of Japan?"}]}'
    return '{"prompt": "The capital of Japan is"}'


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
