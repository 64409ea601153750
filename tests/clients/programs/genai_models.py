"""google-genai, unmodified: the models that it lists, as JSON."""

from __future__ import annotations

import json
import os

from google import genai
from google.genai.types import HttpOptions
from google.oauth2.credentials import Credentials

client = genai.Client(
    vertexai=True,
    project=os.environ["HEADRACE_PROJECT"],
    location="us-central1",
    credentials=Credentials(token=os.environ["HEADRACE_API_KEY"]),
    http_options=HttpOptions(base_url=os.environ["HEADRACE_URL"]),
)
print(json.dumps([model.name for model in client.models.list(config={"page_size": 2})]))
