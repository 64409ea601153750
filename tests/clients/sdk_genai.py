"""Run by the environment of the vendor's SDK, never by ours: Gemini's client before an endpoint, as its users have it.

Its arguments are the server's address, a key, and the endpoint's full name; its last line is JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials
from pydantic import BaseModel, Field

URL, KEY, ENDPOINT = sys.argv[1:]
_, PROJECT, _, LOCATION, _, _ = ENDPOINT.split("/")
QUESTION = "What is the capital of Japan?"
GREEDY = types.GenerateContentConfig(temperature=0, max_output_tokens=16)


class City(BaseModel):
    """What an answer is to look like."""

    name: str = Field(max_length=20)
    large: bool


WEATHER = types.FunctionDeclaration(
    name="weather",
    description="The weather of a city.",
    parameters=types.Schema(
        type=types.Type.OBJECT,
        properties={"city": types.Schema(type=types.Type.STRING, max_length=20)},
        required=["city"],
    ),
)
CALLING = types.GenerateContentConfig(
    temperature=0,
    max_output_tokens=48,
    tools=[types.Tool(function_declarations=[WEATHER])],
    tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
)


def client(key: str = KEY, **options: Any) -> genai.Client:
    """One that asks our server."""
    return genai.Client(
        vertexai=True,
        project=PROJECT,
        location=LOCATION,
        credentials=Credentials(token=key),
        http_options=types.HttpOptions(base_url=URL, **options),
    )


def shown(answer: types.GenerateContentResponse) -> dict[str, Any]:
    """What a test looks at."""
    (candidate, *_) = answer.candidates
    usage = answer.usage_metadata
    return {
        "text": answer.text,
        "reason": candidate.finish_reason and candidate.finish_reason.name,
        "candidates": len(answer.candidates),
        "usage": usage and [usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count],
        "version": answer.model_version,
        "id": answer.response_id,
    }


def configured(made: genai.Client, question: str = QUESTION, **config: Any) -> types.GenerateContentResponse:
    """An answer by this config."""
    given = types.GenerateContentConfig(**({"temperature": 0, "max_output_tokens": 16} | config))
    return made.models.generate_content(model=ENDPOINT, contents=question, config=given)


def refused(work: Callable[[], Any]) -> dict[str, Any]:
    """What an error of the SDK says of itself."""
    try:
        work()
    except errors.APIError as error:
        return {"type": type(error).__name__, "code": error.code, "status": error.status, "message": error.message}
    return {"type": "nothing"}


def generated(made: genai.Client) -> dict[str, Any]:
    """Answers whole and streamed, and what was counted."""
    streamed = list(made.models.generate_content_stream(model=ENDPOINT, contents=QUESTION, config=GREEDY))
    of_v1 = client(api_version="v1")  # closed once nobody holds it
    return {
        "whole": shown(configured(made)),
        "v1": shown(of_v1.models.generate_content(model=ENDPOINT, contents=QUESTION, config=GREEDY)),
        "stream": [shown(chunk) for chunk in streamed],
        "counted": made.models.count_tokens(model=ENDPOINT, contents=QUESTION).total_tokens,
        "short": [
            shown(made.models.generate_content(model=name, contents=QUESTION, config=GREEDY))
            for name in (ENDPOINT.rpartition("/")[2], "/".join(ENDPOINT.split("/")[-2:]))
        ],
        "instructed": shown(configured(made, system_instruction="Answer in one word.")),
    }


def by_config(made: genai.Client) -> dict[str, Any]:
    """What the parameters do."""
    likely = configured(made, max_output_tokens=2, response_logprobs=True)
    chosen = configured(
        made,
        "Is Tokyo in Japan?",
        response_mime_type="text/x.enum",
        response_schema={"type": "STRING", "enum": ["certainly", "never"]},
    )
    typed = configured(
        made, "Name a city.", max_output_tokens=64, response_mime_type="application/json", response_schema=City
    )
    own = {
        "type": "object",
        "properties": {"so": {"type": "boolean"}},
        "required": ["so"],
        "additionalProperties": False,
    }
    json_own = configured(made, max_output_tokens=48, response_mime_type="application/json", response_json_schema=own)
    return {
        "cut": shown(configured(made, max_output_tokens=3)),
        "stopped": shown(configured(made, stop_sequences=["Tokyo"])),
        "several": shown(configured(made, candidate_count=2, temperature=0.9, seed=7)),
        "safe": shown(
            configured(
                made,
                safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_ONLY_HIGH")],
            )
        ),
        "logprobs": [token.token for token in likely.candidates[0].logprobs_result.chosen_candidates],
        "average": likely.candidates[0].avg_logprobs,
        "enum": chosen.text,
        "parsed": typed.parsed.model_dump(),
        "json": json.loads(json_own.text),
    }


def talked(made: genai.Client) -> dict[str, Any]:
    """A chat whose second answer is streamed and whose third one needs all that was said."""
    chat = made.chats.create(model=ENDPOINT, config=GREEDY)
    first = chat.send_message(QUESTION)
    streamed = list(chat.send_message_stream("Say that again."))
    third = chat.send_message("Thank you.")
    history = chat.get_history(curated=True)
    return {
        "answers": [first.text, "".join(chunk.text or "" for chunk in streamed), third.text],
        "turns": [content.role for content in history],
        "prompts": [answer.usage_metadata.prompt_token_count for answer in (first, streamed[-1], third)],
        "counted": made.models.count_tokens(model=ENDPOINT, contents=history[:-1]).total_tokens,
    }


def called(made: genai.Client) -> dict[str, Any]:
    """A call that had to be made, and an answer from what it came to."""
    asked = types.Content(role="user", parts=[types.Part.from_text(text="What is the weather in Oslo?")])
    answer = made.models.generate_content(model=ENDPOINT, contents=[asked], config=CALLING)
    (call,) = answer.function_calls
    response = types.Part.from_function_response(name=call.name, response={"output": "It rains."})
    told = types.Content(role="user", parts=[response])
    free = CALLING.model_copy(update={"tool_config": None})
    contents = [asked, answer.candidates[0].content, told]
    after = made.models.generate_content(model=ENDPOINT, contents=contents, config=free)
    streamed = list(made.models.generate_content_stream(model=ENDPOINT, contents=[asked], config=CALLING))
    return {
        "name": call.name,
        "args": call.args,
        "after": shown(after)["usage"],
        "before": shown(answer)["usage"],
        "streamed": [[each.name, each.args] for chunk in streamed for each in chunk.function_calls or ()],
    }


async def in_async(made: genai.Client) -> dict[str, Any]:
    """The same by the asynchronous client, several at once."""
    answers = await asyncio.gather(
        *(made.aio.models.generate_content(model=ENDPOINT, contents=QUESTION, config=GREEDY) for _ in range(3))
    )
    stream = await made.aio.models.generate_content_stream(model=ENDPOINT, contents=QUESTION, config=GREEDY)
    pieces = [chunk.text or "" async for chunk in stream]
    return {"whole": [answer.text for answer in answers], "streamed": "".join(pieces), "chunks": len(pieces)}


def refusals(made: genai.Client) -> dict[str, Any]:
    """Mistakes, and how they are told."""
    picture = types.Part.from_bytes(data=bytes(16), mime_type="image/png")
    file = types.Part.from_uri(file_uri="gs://bkt/a.png", mime_type="image/png")
    search = [types.Tool(google_search=types.GoogleSearch())]
    other = ENDPOINT.rpartition("/")[0] + "/12345"
    stranger = client("hr-unknown")
    return {
        "parameter": refused(lambda: configured(made, temperature=9)),
        "engine": refused(lambda: configured(made, response_logprobs=True, logprobs=2)),
        "picture": refused(lambda: made.models.generate_content(model=ENDPOINT, contents=[picture, "What?"])),
        "file": refused(lambda: made.models.generate_content(model=ENDPOINT, contents=[file, "What?"])),
        "search": refused(lambda: configured(made, tools=search)),
        "endpoint": refused(lambda: made.models.generate_content(model=other, contents=QUESTION)),
        "key": refused(lambda: stranger.models.generate_content(model=ENDPOINT, contents=QUESTION)),
        "stream": refused(lambda: list(made.models.generate_content_stream(model=other, contents=QUESTION))),
        "name": refused(lambda: made.models.generate_content(model="gemini-2.5-pro", contents=QUESTION)),
    }


def main() -> None:
    """Do it all."""
    made = client()
    told = {
        "generated": generated(made),
        "config": by_config(made),
        "chat": talked(made),
        "calls": called(made),
        "async": asyncio.run(in_async(made)),
        "refused": refusals(made),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
