"""``:generateContent`` and its like, as chats in OpenAI's wire and back: what Gemini's clients send and read.

The wire is https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference. Nothing is filtered here:
``safetySettings`` are taken, and change nothing.
"""

from headrace.contracts.vertex.generate.answers import AnswerStream, whole_answer
from headrace.contracts.vertex.generate.requests import chat_of, prompts_of

__all__ = ["AnswerStream", "chat_of", "prompts_of", "whole_answer"]
