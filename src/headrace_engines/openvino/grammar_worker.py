"""Compiles grammars in a process of its own, which `openvino.grammar_process` starts and may lose.

OpenVINO GenAI compiles a grammar inside a step and offers no other way to it. So this runs a step of a pipeline with
the real tokenizer, and with a model that costs nothing: one layer of one head, and the same score for every token.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import openvino_genai as genai  # type: ignore[import-not-found]  # in the engine's environment only
from openvino import op
from openvino import opset15 as ops
from openvino.op.util import Variable, VariableInfo

from headrace_engines.openvino.sampling import structured_output_config
from headrace_engines.serving.compilers import told_by_xgrammar
from headrace_engines.serving.generator import Grammar

_HEAD_DIM = 16


def indifferent_model(vocab_size: int) -> ov.Model:
    """The smallest model that GenAI takes: it has keys and values, and likes every token equally."""
    parameters = {
        "input_ids": op.Parameter(ov.Type.i64, ov.PartialShape([-1, -1])),
        "attention_mask": op.Parameter(ov.Type.i64, ov.PartialShape([-1, -1])),
        "position_ids": op.Parameter(ov.Type.i64, ov.PartialShape([-1, -1])),
        "beam_idx": op.Parameter(ov.Type.i32, ov.PartialShape([-1])),
    }
    for name, parameter in parameters.items():
        parameter.set_friendly_name(name)
        parameter.output(0).set_names({name})
    table = ops.constant(np.zeros((vocab_size, _HEAD_DIM), np.float32))
    place = ops.convert(ops.unsqueeze(parameters["position_ids"], _ints(2)), "f32")
    hidden = ops.add(ops.gather(table, parameters["input_ids"], _ints(0)), place)
    new = ops.transpose(ops.reshape(hidden, _ints([0, 0, 1, _HEAD_DIM]), True), _ints([0, 2, 1, 3]))
    batch = ops.gather(ops.shape_of(parameters["input_ids"]), _ints([0]), _ints(0))
    shape = ops.concat([batch, _ints([1, 0, _HEAD_DIM])], 0)
    states, remembered = [], []
    for what in ("key", "value"):
        info = VariableInfo()
        info.data_shape, info.data_type = ov.PartialShape([-1, 1, -1, _HEAD_DIM]), ov.Type.f32
        info.variable_id = f"past_key_values.0.{what}present.0.{what}"
        state = Variable(info)
        past = ops.read_value(ops.broadcast(ops.constant(np.float32(0)), shape), state)
        every = ops.concat([ops.gather(past, parameters["beam_idx"], _ints(0)), new], -2)
        states.append(ops.assign(every, state))
        remembered.append(every)
    mask = ops.convert(ops.unsqueeze(parameters["attention_mask"], _ints([1, 2])), "boolean")
    attended = ops.transpose(ops.scaled_dot_product_attention(new, *remembered, mask), _ints([0, 2, 1, 3]))
    logits = ops.matmul(ops.reshape(attended, _ints([0, 0, _HEAD_DIM]), True), table, False, True)
    logits.output(0).set_names({"logits"})
    return ov.Model([op.Result(logits.output(0))], states, list(parameters.values()))


def _ints(value: int | list[int]) -> ov.Node:
    return ops.constant(np.array(value, dtype=np.int64))


class Compiler:
    """Tries grammars out.

    Args:
        folder: The model's folder, for its tokenizer.
        vocab_size: Scores that the model gives each time.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._properties = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        self._tokenizer = genai.Tokenizer(folder, **self._properties)
        self._vocab_size = vocab_size
        self._pipeline = self._new_pipeline()

    def why_not(self, grammar: Grammar) -> str:
        """Why a grammar cannot be followed; empty when it can."""
        config = genai.GenerationConfig(max_new_tokens=1, structured_output_config=structured_output_config(grammar))
        prompt = ov.Tensor(np.zeros((1, 1), dtype=np.int64))
        try:
            handle = self._pipeline.add_request(0, prompt, config)
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            handle.read()
        except RuntimeError as error:
            self._pipeline = self._new_pipeline()  # no step of the old one would succeed any more
            return told_by_xgrammar(str(error))
        return ""

    def _new_pipeline(self) -> Any:
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = 4
        with tempfile.TemporaryDirectory(prefix="headrace-grammar-") as place:  # GenAI reads models from files only
            ov.save_model(indifferent_model(self._vocab_size), Path(place) / "openvino_model.xml")
            return genai.ContinuousBatchingPipeline(place, self._tokenizer, scheduler, "CPU", **self._properties)


def _limit_memory(more_bytes: int) -> None:
    """No more address space than this beyond what is taken now: OpenVINO's allocator reserves gigabytes of it."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Answer requests until standard input ends. The alarm has no handler: it ends the process wherever it is."""
    folder, vocab_size, timeout_s, memory_bytes = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the engine still drains; this ends with it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    compiler = Compiler(Path(folder), int(vocab_size))
    why = compiler.why_not(Grammar(kind="regex", text="a"))  # the first compilation lays the vocabulary out
    _limit_memory(int(memory_bytes))
    # A pipeline that is given up complains of its blocks, and xgrammar of every grammar.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    while True:
        answer = why.encode(errors="replace")
        answers.write(struct.pack(">I", len(answer)) + answer)
        answers.flush()
        header = requests.read(4)
        if not header:
            break
        (length,) = struct.unpack(">I", header)
        grammar = msgspec.json.decode(requests.read(length), type=Grammar)
        signal.setitimer(signal.ITIMER_PROF, float(timeout_s))
        why = compiler.why_not(grammar)
        signal.setitimer(signal.ITIMER_PROF, 0)
    os._exit(0)  # not through the interpreter's end: native threads still run


if __name__ == "__main__":
    main()
