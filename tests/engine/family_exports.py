"""Run by the converter's Python: the general way, of many folders in one process; what takes its time is the import.

Usage: ``python family_exports.py < given.json``, with ``[[source, target], ...]``; prints why each was not converted,
empty where it was.
"""

import json
import sys
import traceback
from pathlib import Path

from headrace_engines.convert.general import convert
from headrace_engines.convert.program import copy_small_files

told = []
for source, target in json.load(sys.stdin):
    Path(target).mkdir()
    try:
        convert(Path(source), Path(target), "f16", lambda sentence: None)
        copy_small_files(Path(source), Path(target))
        told.append("")
    except Exception:
        told.append(traceback.format_exc()[-2000:])
print(json.dumps(told))
