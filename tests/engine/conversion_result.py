"""Run by the OpenVINO engine's Python: the same as `conversion_reference` says, of a converted folder, in float32.

Usage: ``python conversion_result.py FOLDER < given.json``. Likelihoods come out of the stateful model, in pieces;
greedy tokens out of OpenVINO GenAI's continuous batching, which makes paged attention of it.
"""

import json
import sys

import numpy as np
import openvino as ov
import openvino_genai as genai

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": 2}


def logits(folder, rows, pieces):
    """Of all positions, with the model's states between the pieces."""
    request = ov.Core().compile_model(f"{folder}/openvino_model.xml", "CPU", FLOAT32).create_infer_request()
    known = {name for each in request.get_compiled_model().inputs for name in each.names}
    done, said = 0, []
    for piece in pieces:
        upto = done + piece
        inputs = {
            "input_ids": rows[:, done:upto],
            "attention_mask": np.ones((len(rows), upto), np.int64),
            "position_ids": np.arange(done, upto, dtype=np.int64)[None].repeat(len(rows), 0),
            "beam_idx": np.arange(len(rows), dtype=np.int32),
        }
        request.infer({name: value for name, value in inputs.items() if name in known})
        said.append(request.get_tensor("logits").data.astype(np.float64))
        done = upto
    return np.concatenate(said, axis=1)


def likelihoods(folder, rows):
    """The log-probability of each token after a row's first."""
    length = rows.shape[1]
    scores = logits(folder, rows, [length // 2, 1, length - length // 2 - 1])[:, :-1]
    highest = scores.max(axis=-1, keepdims=True)
    likely = scores - highest - np.log(np.exp(scores - highest).sum(axis=-1, keepdims=True))
    return np.take_along_axis(likely, rows[:, 1:, None], axis=2)[..., 0]


def greedy(folder, rows, new):
    """The next tokens after the first row."""
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 64
    config = genai.GenerationConfig()
    config.max_new_tokens = new
    config.ignore_eos = True
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", FLOAT32)
    handle = pipeline.add_request(0, ov.Tensor(rows[:1]), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return handle.read_all()[0].generated_ids


if __name__ == "__main__":
    where = sys.argv[1]
    given = json.load(sys.stdin)
    ids = np.array(given["rows"], dtype=np.int64)
    print(json.dumps({"likelihoods": likelihoods(where, ids).tolist(), "greedy": greedy(where, ids, given["new"])}))
