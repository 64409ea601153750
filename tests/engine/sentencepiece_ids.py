"""Run by the engine's Python: the ids that transformers gives texts by the tokenizers of folders.

Usage: ``sentencepiece_ids.py FOLDER...``, with a JSON list of texts on standard input; prints a list of lists of ids.
"""

import json
import sys

import transformers

texts = json.load(sys.stdin)
transformers.logging.set_verbosity_error()
found = []
for folder in sys.argv[1:]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found.append([tokenizer(text, add_special_tokens=False).input_ids for text in texts])
print(json.dumps(found))
