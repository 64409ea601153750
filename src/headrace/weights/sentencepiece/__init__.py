"""SentencePiece's models (``tokenizer.model``, ``spiece.model``): counted, and written as ``tokenizer.json``."""

from headrace.weights.sentencepiece.pieces import count_pieces, is_tiktoken
from headrace.weights.sentencepiece.tokenizer_json import convertible_model, tokenizer_json

__all__ = ["convertible_model", "count_pieces", "is_tiktoken", "tokenizer_json"]
