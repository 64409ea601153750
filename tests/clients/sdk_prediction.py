"""Run by the environment of the vendor's SDK, never by ours: predictions by its REST transport.

Its arguments are the server's address, a key, and the endpoint's full name; its last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform_v1, aiplatform_v1beta1
from google.oauth2.credentials import Credentials
from google.protobuf import json_format, struct_pb2

URL, KEY, ENDPOINT = sys.argv[1:]
OPTIONS: dict[str, Any] = {
    "transport": "rest",
    "client_options": {"api_endpoint": URL},
    "credentials": Credentials(token=KEY),
}
QUESTION = "What is the capital of Japan?"
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16, "temperature": 0}


def value(content: Any) -> struct_pb2.Value:
    """JSON as the SDK takes it; every number is a double in it."""
    return json_format.ParseDict(content, struct_pb2.Value())


def shown(message: Any) -> Any:
    """A message as JSON."""
    return json_format.MessageToDict(type(message).pb(message))


def refused(work: Callable[[], Any]) -> dict[str, Any]:
    """What an error of the SDK says of itself."""
    try:
        work()
    except exceptions.GoogleAPICallError as error:
        return {"type": type(error).__name__, "reason": error.reason, "message": error.message}
    return {"type": "nothing"}


def main() -> None:
    """Do it all, by the service of each version of the API."""
    client = aiplatform_v1.PredictionServiceClient(**OPTIONS)
    beta = aiplatform_v1beta1.PredictionServiceClient(**OPTIONS)
    completion = {"prompt": "The capital of Japan is", "maxOutputTokens": 4}
    instances = [completion, {"text": "The capital of Japan is"}, CHAT | {"@requestFormat": "chatCompletions"}]
    parameters = value({"temperature": 0, "maxOutputTokens": 8})
    predicted = client.predict(endpoint=ENDPOINT, instances=[value(each) for each in instances], parameters=parameters)
    alone = beta.predict(endpoint=ENDPOINT, instances=[value(instances[2])])
    contents = [{"role": "user", "parts": [{"text": QUESTION}]}]
    asked = {
        "model": ENDPOINT,
        "contents": contents,
        "generation_config": {"temperature": 0, "max_output_tokens": 16},
        "safety_settings": [{"category": 1, "threshold": 2}],
    }
    schema = {"type_": 6, "properties": {"city": {"type_": 1, "max_length": 20}}, "required": ["city"]}
    typed = asked | {
        "generation_config": {
            "max_output_tokens": 48,
            "response_mime_type": "application/json",
            "response_schema": schema,
        }
    }
    counter = aiplatform_v1.LlmUtilityServiceClient(**OPTIONS)
    told = {
        "predictions": shown(predicted)["predictions"],
        "deployed_model": predicted.deployed_model_id,
        "usage": shown(predicted)["metadata"]["usage"],
        "alone": shown(alone)["predictions"],
        "generated": shown(client.generate_content(request=asked)),
        "beta": shown(beta.generate_content(request=asked)),
        "streamed": [shown(response) for response in client.stream_generate_content(request=asked)],
        "typed": json.loads(client.generate_content(request=typed).candidates[0].content.parts[0].text),
        "counted": counter.count_tokens(request={"endpoint": ENDPOINT, "contents": contents}).total_tokens,
        "instance": refused(lambda: client.predict(endpoint=ENDPOINT, instances=[value({})])),
        "explain": refused(lambda: client.explain(endpoint=ENDPOINT, instances=[value({"a": 1})])),
        "parameter": refused(
            lambda: client.generate_content(request=asked | {"generation_config": {"temperature": 9}})
        ),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
