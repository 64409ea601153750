"""What both the engine and the reference program are asked."""

PROMPTS = [
    "What is the capital of Japan?",
    "Write one sentence about the sea.",
    "Count from one to ten.",
    "Répondez en français : quelle est la couleur du ciel ?",
    "What is 2 + 2?",
    "Tell me a joke about a turbine. 😀",
    "List three fruits.",
    "日本の首都はどこですか？",
]
GREEDY_TOKENS = 24

SAMPLED_PROMPT = "The weather today is"
SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02}
