"""How fast a model would be: the time to move its bytes or to do its arithmetic, whichever is longer.

The roofline (Williams, Waterman, Patterson, 2009, doi:10.1145/1498765.1498785), once for a step that reads prompts and
once for a step that writes one token of each sequence.
"""

from __future__ import annotations

import msgspec

from headrace.capacity.parameters import Parameters
from headrace.resources.profiles import Cost

BANDWIDTH_SHARE = 0.7
"""Of a datasheet's memory bandwidth, what an engine's decoding reaches. An assumption: no GPU was measured yet."""

COMPUTE_SHARE = 0.5
"""Of a datasheet's dense rate, what an engine's prefill reaches. An assumption, as above."""

LOAD_BYTES_PER_S = 1e9
"""How fast weights come from a local disk into their place. An assumption: a slow NVMe disk; of what lies in the page
cache it is several times as fast."""

START_S = {"openvino": 6.0, "transformers": 6.0, "vllm": 55.0}
"""What a runtime takes to be ready beside the weights' way, by its name: SmolLM2-135M on two cores, 2026-11-21
(`headrace.runtimes.choice`); of vLLM's 28 to 82 s the middle."""

_OTHER_START_S = 10.0

LAYER_S = {"transformers": 0.3e-3}
"""What a runtime takes for each layer of a pass beside bytes and arithmetic, by its name: transformers' Python between
kernels. Measured on 2026-11-26 with transformers 5.23.0 and torch 2.13.0 on a core of a Xeon with AMX: llamas of 64
numbers' width take 0.69 ms a token with 1 layer and 10.1 ms with 31. Of the other runtimes it was not measured."""


class Place(msgspec.Struct, frozen=True):
    """Where a model could lie, as far as memory and speed go.

    Attributes:
        name: For a person.
        devices: How many alike there are.
        device_bytes: Memory of each.
        usable_share: What of it a runtime may take.
        bandwidth_bytes_per_s: How fast each reads its memory; 0 where it is not known.
        flops_per_s: How fast each computes in the model's number format; 0 where it is not known, or it cannot.
        measured: The rates are rates reached, so that nothing is taken off.
    """

    name: str
    devices: int
    device_bytes: int
    usable_share: float = 1.0
    bandwidth_bytes_per_s: float = 0.0
    flops_per_s: float = 0.0
    measured: bool = False

    def usable_bytes(self, devices: int) -> int:
        """What so many of the devices have for a model together."""
        return int(self.device_bytes * self.usable_share) * devices


class Work(msgspec.Struct, frozen=True):
    """What there is to do.

    Attributes:
        parameters: The model's.
        weights_bytes: What they take.
        attention_width: Attention heads × their width × layers with attention.
        cache_bytes: What one sequence of mean length keeps, which each of its tokens reads.
        prompt_tokens: The prompt's length.
        concurrency: Sequences at once.
        layers: That a pass goes through.
    """

    parameters: Parameters
    weights_bytes: int
    attention_width: int
    cache_bytes: int
    prompt_tokens: int
    concurrency: int
    layers: int = 0


class Prediction(msgspec.Struct, frozen=True):
    """What a roofline predicts; a measurement is to stand beside it.

    Attributes:
        load_s: From the engine's start until it is ready.
        prefill_tokens_per_s: Tokens of prompts read.
        time_to_first_token_s: Of one prompt on an idle engine.
        decode_tokens_per_s: Tokens written for one sequence alone.
        decode_tokens_per_s_at_once: Tokens written for all sequences together.
        bound_by: What limits the latter.
    """

    load_s: float
    prefill_tokens_per_s: float
    time_to_first_token_s: float
    decode_tokens_per_s: float
    decode_tokens_per_s_at_once: float
    bound_by: str


def predict(work: Work, place: Place, devices: int = 1, runtime: str = "") -> Prediction | None:
    """Predict the speeds of a model on so many devices of a place; None where its rates are not known.

    Devices that share a model are taken to share its bytes and arithmetic evenly; what they tell each other is not
    counted, so that it is an upper bound for many.

    Args:
        work: The model and its load.
        place: Where it lies.
        devices: How many of the place's devices share it.
        runtime: Its name, for the time that it takes to start, and for each layer.
    """
    rates = _rates(place, devices)
    if rates is None:
        return None
    bandwidth, flops = rates
    pass_s = LAYER_S.get(runtime, 0.0) * work.layers
    prompt_s = pass_s + max(_weights_read(work, work.prompt_tokens) / bandwidth, _prompt_flops(work) / flops)
    alone_s = pass_s + _step_s(work, 1, bandwidth, flops)[0]
    step_s, bound_by = _step_s(work, work.concurrency, bandwidth, flops)
    return Prediction(
        load_s=work.weights_bytes / LOAD_BYTES_PER_S + START_S.get(runtime, _OTHER_START_S),
        prefill_tokens_per_s=work.prompt_tokens / prompt_s,
        time_to_first_token_s=prompt_s,
        decode_tokens_per_s=1 / alone_s,
        decode_tokens_per_s_at_once=work.concurrency / (pass_s + step_s),
        bound_by=bound_by,
    )


def cost(
    work: Work, place: Place, devices: int = 1, runtime: str = "", *, token_bytes: float, sequence_bytes: float = 0.0
) -> Cost | None:
    """What requests cost a replica by the same roofline; None where the place's rates are not known.

    The way of bytes and arithmetic are added here, of which `predict` takes the longer one: engines overlap them in
    part, and a throughput is better predicted too low than sold too high.

    Args:
        work: The model, with as many sequences at once as share a step.
        place: Where it lies.
        devices: How many of the place's devices share it.
        runtime: Its name, for the time that it takes for each layer.
        token_bytes: Keys and values of a token, which each later step reads.
        sequence_bytes: What a sequence keeps whatever its length, likewise.
    """
    rates = _rates(place, devices)
    if rates is None:
        return None
    bandwidth, flops = rates
    token_s = 2 * work.parameters.active / flops
    return Cost(
        prompt=token_s,
        prompt_squared=2 * work.attention_width / flops,
        step=LAYER_S.get(runtime, 0.0) * work.layers + _weights_read(work, work.concurrency) / bandwidth,
        sequence=token_s + sequence_bytes / bandwidth,
        context=token_bytes / bandwidth,
    )


def _rates(place: Place, devices: int) -> tuple[float, float] | None:
    """Bytes and operations a second of so many devices, as they are reached; None where they are not known."""
    if not place.bandwidth_bytes_per_s or not place.flops_per_s:
        return None
    bandwidth = place.bandwidth_bytes_per_s * devices * (1 if place.measured else BANDWIDTH_SHARE)
    return bandwidth, place.flops_per_s * devices * (1 if place.measured else COMPUTE_SHARE)


def _step_s(work: Work, sequences: int, bandwidth: float, flops: float) -> tuple[float, str]:
    """A step that writes one token of each sequence: its seconds, and what they go by."""
    moving_s = (_weights_read(work, sequences) + sequences * work.cache_bytes) / bandwidth
    computing_s = sequences * 2 * work.parameters.active / flops
    return max((moving_s, "memory bandwidth"), (computing_s, "arithmetic"))


def _weights_read(work: Work, tokens: int) -> float:
    return work.weights_bytes * work.parameters.read_by(tokens) / work.parameters.total


def _prompt_flops(work: Work) -> float:
    """Two for each parameter and token, and four for each number of the heads and pair of tokens (arXiv:2001.08361).

    Causal attention has half of the pairs.
    """
    tokens = work.prompt_tokens
    return 2 * work.parameters.active * tokens + 4 * work.attention_width * tokens * tokens / 2
