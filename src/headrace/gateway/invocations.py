"""``/serving-endpoints/{name}/invocations``: which of the other ways of asking a request is.

It becomes that before anything else is done with it, as `headrace.gateway.generation.as_chat` does it of chats, so that
limits of keys, priorities and all the rest see what they know.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.contracts.databricks.invocations import Asked, read_invocation
from headrace.contracts.openai.requests import OpenAIBody
from headrace.gateway.routes import Action, Match

_ACTIONS: Mapping[Asked, Action] = {
    Asked.CHAT: Action.CHAT,
    Asked.COMPLETIONS: Action.COMPLETIONS,
    Asked.EMBEDDINGS: Action.EMBEDDINGS,
    Asked.PREDICTIONS: Action.RAW_PREDICT,
}


def as_asked(match: Match, body: OpenAIBody) -> tuple[Match, OpenAIBody]:
    """The request as the one that it comes to.

    Raises:
        BadField: It asks for nothing, or for two things, or its table is none.
        BadJson: A part of it cannot be read.
    """
    asked, body = read_invocation(body)
    return msgspec.structs.replace(match, action=_ACTIONS[asked]), body
