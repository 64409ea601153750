"""What an engine is asked: the client's request in the engine's own words."""

from __future__ import annotations

from headrace.contracts.openai.requests import OpenAIBody, for_engine, require_no_stream, wants_stream
from headrace.contracts.openai.stream_usage import ask_for_usage
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH
from headrace.gateway.call import Call


def body_for_engine(call: Call, path: str, body: OpenAIBody) -> bytes:
    """The body under the engine's own name of the model. A stream is to tell its usage, which is metered.

    A client that did not ask for the usage does not see it (`Call.hides_usage`). Servers that are not ours are not
    asked: some refuse fields that they do not know.

    Raises:
        BadField: Whether it is a stream, or is to tell its usage, is said by something else than true and false.
    """
    if path in (CHAT_PATH, COMPLETIONS_PATH) and not call.deployed.external_host:
        if wants_stream(body):
            call.hides_usage = ask_for_usage(body)
        else:
            require_no_stream(body)
    return for_engine(body, call.deployed.served_name)
