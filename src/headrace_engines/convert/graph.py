"""A decoder as an OpenVINO model: the graph written out, its weights mapped from the checkpoint.

    input_ids, position_ids ──▶ embedding ──▶ layers ──▶ norm ──▶ head ──▶ logits
                                               │  ▲
             attention_mask, beam_idx ────────▶ KV states

Inputs, outputs and states have the names and shapes of optimum-intel's stateful export, because OpenVINO GenAI and the
CPU plugin look for those: states become paged attention, and norms, rotations and projections one kernel each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import Node, op
from openvino import opset15 as ops
from openvino.op.util import Variable, VariableInfo

from headrace_engines.convert.decoder import Decoder
from headrace_engines.convert.weights import Weights

_F32, _I64 = ov.Type.f32, ov.Type.i64
_MASKED = float(np.finfo(np.float16).min)
"""What masked scores are raised by: as good as minus infinity, and a number in every precision."""


def build_model(decoder: Decoder, weights: Weights) -> ov.Model:
    """The model, whose constants are the weights' own memory: `weights` has to outlive it.

    Raises:
        FatalError: A tensor is missing, has another shape than the configuration says, or is left over.
    """
    model = _Graph(decoder, weights).model()
    weights.require_all_used()
    return model


class _Graph:
    def __init__(self, decoder: Decoder, weights: Weights) -> None:
        self._decoder = decoder
        self._weights = weights
        self._states: list[Node] = []
        self._inputs = {
            "input_ids": op.Parameter(_I64, ov.PartialShape([-1, -1])),
            "attention_mask": op.Parameter(_I64, ov.PartialShape([-1, -1])),
            "position_ids": op.Parameter(_I64, ov.PartialShape([-1, -1])),
            "beam_idx": op.Parameter(ov.Type.i32, ov.PartialShape([-1])),
        }
        for name, parameter in self._inputs.items():
            parameter.set_friendly_name(name)
            parameter.output(0).set_names({name})
        self._batch = ops.gather(ops.shape_of(self._inputs["input_ids"]), _ints([0]), _ints(0))
        self._mask = self._causal_mask()
        self._cos, self._sin = self._rotations()

    def model(self) -> ov.Model:
        """The whole graph."""
        decoder, weights = self._decoder, self._weights
        hidden = ops.gather(weights.embedding(), self._inputs["input_ids"], _ints(0))
        hidden = _scaled(hidden, decoder.embedding_scale)
        for layer in range(decoder.layers):
            hidden = self._block(f"model.layers.{layer}", layer, hidden)
        logits = ops.matmul(self._norm("model.norm", hidden), weights.head(), False, True)
        logits = _scaled(logits, 1.0 / decoder.logits_divisor)
        result = op.Result(logits.output(0))
        result.set_friendly_name("logits")
        logits.output(0).set_names({"logits"})
        model = ov.Model([result], self._states, list(self._inputs.values()), decoder.model_type)
        # The CPU plugin's own choice is eight bits. Nothing is quantised unasked, so it is told; so does optimum-intel.
        model.set_rt_info("f16", ["runtime_options", "KV_CACHE_PRECISION"])
        return model

    def _block(self, name: str, layer: int, hidden: Node) -> Node:
        scale = self._decoder.residual_scale
        attended = self._attention(f"{name}.self_attn", layer, self._norm(f"{name}.input_layernorm", hidden))
        hidden = ops.add(hidden, _scaled(attended, scale))
        forwarded = self._feed_forward(f"{name}.mlp", self._norm(f"{name}.post_attention_layernorm", hidden))
        return ops.add(hidden, _scaled(forwarded, scale))

    def _attention(self, name: str, layer: int, hidden: Node) -> Node:
        decoder = self._decoder
        queries = self._heads(f"{name}.q_proj", hidden, decoder.heads)
        keys = self._heads(f"{name}.k_proj", hidden, decoder.kv_heads)
        values = self._heads(f"{name}.v_proj", hidden, decoder.kv_heads)
        if decoder.head_norm:
            queries, keys = self._norm(f"{name}.q_norm", queries), self._norm(f"{name}.k_norm", keys)
        queries, keys, values = (ops.transpose(each, _ints([0, 2, 1, 3])) for each in (queries, keys, values))
        if decoder.rotary_layers[layer]:
            queries, keys = self._rotated(queries), self._rotated(keys)
        keys, values = self._remembered(layer, "key", keys), self._remembered(layer, "value", values)
        attended = ops.scaled_dot_product_attention(
            queries, self._repeated(keys), self._repeated(values), self._mask, _floats(decoder.attention_scale)
        )
        flat = ops.reshape(
            ops.transpose(attended, _ints([0, 2, 1, 3])), _ints([0, 0, decoder.heads * decoder.head_dim]), True
        )
        return self._linear(f"{name}.o_proj", flat, bias=decoder.output_bias)

    def _feed_forward(self, name: str, hidden: Node) -> Node:
        bias = self._decoder.mlp_bias
        gate = ops.swish(self._linear(f"{name}.gate_proj", hidden, bias=bias))
        return self._linear(
            f"{name}.down_proj", ops.multiply(gate, self._linear(f"{name}.up_proj", hidden, bias=bias)), bias=bias
        )

    def _heads(self, name: str, hidden: Node, heads: int) -> Node:
        projected = self._linear(name, hidden, bias=self._decoder.qkv_bias)
        return ops.reshape(projected, _ints([0, 0, heads, self._decoder.head_dim]), True)

    def _linear(self, name: str, hidden: Node, *, bias: bool) -> Node:
        product = ops.matmul(hidden, self._weights.matrix(name), False, True)
        product.set_friendly_name(name)
        return ops.add(product, self._weights.vector(f"{name}.bias", (1, 1, -1))) if bias else product

    def _norm(self, name: str, hidden: Node) -> Node:
        """Root-mean-square norm, as transformers writes it: the order that the plugin knows as one operation."""
        squares = ops.reduce_mean(ops.power(hidden, _floats(2.0)), _ints([-1]), True)
        root = ops.sqrt(ops.add(squares, _floats(self._decoder.norm_eps)))
        normed = ops.multiply(hidden, ops.divide(_floats(1.0), root))
        return ops.multiply(
            self._weights.vector(f"{name}.weight", (1,) * (len(hidden.get_output_partial_shape(0)) - 1) + (-1,)), normed
        )

    def _rotations(self) -> tuple[Node, Node]:
        """Cosine and sine for each position, ``[batch, 1, tokens, head_dim]``."""
        frequencies = _floats(self._decoder.inverse_frequencies.reshape(1, -1, 1))
        positions = ops.convert(ops.unsqueeze(self._inputs["position_ids"], _ints(1)), "f32")
        angles = ops.transpose(ops.matmul(frequencies, positions, False, False), _ints([0, 2, 1]))
        both = ops.concat([angles, angles], -1)
        return ops.unsqueeze(ops.cos(both), _ints(1)), ops.unsqueeze(ops.sin(both), _ints(1))

    def _rotated(self, heads: Node) -> Node:
        half = self._decoder.head_dim // 2
        first = ops.slice(heads, _ints([0]), _ints([half]), _ints([1]), _ints([3]))
        second = ops.slice(heads, _ints([half]), _ints([2**63 - 1]), _ints([1]), _ints([3]))
        turned = ops.concat([ops.multiply(second, _floats(-1.0)), first], -1)
        return ops.add(ops.multiply(heads, self._cos), ops.multiply(turned, self._sin))

    def _remembered(self, layer: int, what: str, new: Node) -> Node:
        """All keys or values so far, the new ones last; a state of the model, reordered by ``beam_idx``."""
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, self._decoder.kv_heads, -1, self._decoder.head_dim])
        info.data_type = _F32
        info.variable_id = f"past_key_values.{layer}.{what}present.{layer}.{what}"
        state = Variable(info)
        shape = ops.concat(
            [self._batch, _ints([self._decoder.kv_heads]), _ints([0]), _ints([self._decoder.head_dim])], 0
        )
        past = ops.read_value(ops.broadcast(_floats(0.0), shape), state)
        chosen = ops.gather(past, self._inputs["beam_idx"], _ints(0))
        every = ops.concat([chosen, new], -2)
        self._states.append(ops.assign(every, state))
        return every

    def _repeated(self, cached: Node) -> Node:
        """Each key or value head once for every query head that shares it."""
        decoder = self._decoder
        times = decoder.heads // decoder.kv_heads
        if times == 1:
            return cached
        lengths = ops.gather(ops.shape_of(cached), _ints([0, 1]), _ints(0))
        rest = ops.gather(ops.shape_of(cached), _ints([2, 3]), _ints(0))
        wide = ops.broadcast(
            ops.unsqueeze(cached, _ints(2)),
            ops.concat([lengths, _ints([times]), rest], 0),
            broadcast_spec="BIDIRECTIONAL",
        )
        return ops.reshape(wide, _ints([0, decoder.heads, -1, decoder.head_dim]), True)

    def _causal_mask(self) -> Node:
        """Zero where a token may look, `_MASKED` where not: later positions and padding."""
        total = ops.gather(ops.shape_of(self._inputs["attention_mask"]), _ints(1), _ints(0))
        new = ops.gather(ops.shape_of(self._inputs["input_ids"]), _ints(1), _ints(0))
        columns = ops.range(_ints(0), total, _ints(1), "i64")
        rows = ops.unsqueeze(ops.range(ops.subtract(total, new), total, _ints(1), "i64"), _ints(1))
        earlier = ops.less_equal(ops.unsqueeze(columns, _ints(0)), rows)
        present = ops.convert(ops.unsqueeze(self._inputs["attention_mask"], _ints([1, 2])), "boolean")
        return ops.select(ops.logical_and(earlier, present), _floats(0.0), _floats(_MASKED))


def _scaled(value: Node, factor: float) -> Node:
    return value if factor == 1.0 else ops.multiply(value, _floats(factor))


def _ints(value: Any) -> Node:
    return ops.constant(np.array(value, dtype=np.int64))


def _floats(value: Any) -> Node:
    return ops.constant(np.array(value, dtype=np.float32))
