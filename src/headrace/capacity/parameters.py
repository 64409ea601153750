"""How many parameters a model has, in all and at work on one token, told from its configuration alone."""

from __future__ import annotations

import msgspec

from headrace.capacity.attention import attention_parameters, linear_parameters
from headrace.capacity.families import FAMILIES, Family
from headrace.capacity.fields import Fields
from headrace.capacity.layers import layer_kinds
from headrace.weights.config import ModelConfig

_SEQ2SEQ = frozenset({"mt5", "t5", "umt5"})


class Parameters(msgspec.Struct, frozen=True):
    """A model's parameters; those of a tied head count once, as they are stored.

    Attributes:
        total: All of them, the part that reads images included. Layers that only predict ahead (DeepSeek's MTP) do not
            count: no runtime of ours loads them.
        active: Those that one token meets, the output head included; the embedding's rows, of which it takes one, count
            only where the head is tied to them. It is how gpt-oss's model card counts (arXiv:2508.10925, table 1).
        routed: Those of `total` in experts that a router chooses among.
        experts: Experts to choose among in a layer; 0 in a dense model.
        experts_per_token: How many of them a token takes.
    """

    total: int
    active: int
    routed: int = 0
    experts: int = 0
    experts_per_token: int = 0

    def read_by(self, tokens: int) -> int:
        """Parameters that a step over so many tokens reads: of the experts those that some token is expected to take.

        Each token takes its experts independently of the others, and all equally often: 1 - (1 - k/E)^tokens of them.
        """
        always = self.active - self._taken
        if not self.experts:
            return always
        return always + round(self.routed * (1 - (1 - self.experts_per_token / self.experts) ** tokens))

    @property
    def _taken(self) -> int:
        return self.routed * self.experts_per_token // self.experts if self.experts else 0


class _Layer(msgspec.Struct, frozen=True):
    always: int
    routed: int = 0


def count_parameters(config: ModelConfig) -> Parameters | None:
    """Count; None for a family that `FAMILIES` does not know, or without the sizes that it takes.

    Raises:
        ConfigInvalid: A size is not a whole number above zero.
    """
    family, sizes = FAMILIES.get(config.model_type), (config.layers, config.heads, config.hidden, config.vocab)
    if family is None or not all(sizes) or not config.head_dim or not config.kv_heads:
        return None
    fields = Fields(config.text)
    if config.model_type in _SEQ2SEQ:
        return _encoder_decoder(config, fields)
    dense = frozenset(fields.numbers("mlp_only_layers"))  # read once: the list may be as long as the file
    layers = [
        _layer(config, fields, family, kind, experts=number not in dense and _has_experts(fields, number))
        for number, kind in enumerate(layer_kinds(config))
    ]
    hidden, vocab = config.hidden or 0, config.vocab or 0
    embedding, norm = vocab * hidden, family.norm_vectors * hidden
    outside = norm * (2 if family.embedding_norm else 1)
    outside += (config.max_positions or 0) * hidden if family.positions else 0
    head = vocab if family.head_bias else 0
    if not config.tied_embeddings:
        head += embedding
    experts, chosen = fields.experts, fields.experts_per_token
    routed, always = sum(layer.routed for layer in layers), sum(layer.always for layer in layers)
    return Parameters(
        total=embedding + head + outside + always + routed + _vision(config),
        active=(embedding if config.tied_embeddings else 0)
        + head
        + outside
        + always
        + (routed * chosen // experts if experts else 0),
        routed=routed,
        experts=experts if routed else 0,
        experts_per_token=chosen if routed else 0,
    )


def _layer(config: ModelConfig, fields: Fields, family: Family, kind: str, *, experts: bool) -> _Layer:
    hidden = config.hidden or 0
    norms = 2 if fields.flag("new_decoder_architecture") else family.norms
    always = norms * family.norm_vectors * hidden
    always += linear_parameters(fields, hidden) if kind == "linear" else attention_parameters(config, fields, family)
    if not experts:
        width = fields.number("intermediate_size_mlp") or _width(config, fields)
        return _Layer(always + _mlp(hidden, round(width * family.mlp_share), family))
    expert = fields.number("moe_intermediate_size") or _width(config, fields)
    router = hidden * fields.experts + (fields.experts if fields.router_bias or family.mlp_bias else 0)
    return _Layer(
        always + router + _shared(config, fields, family, expert), fields.experts * _mlp(hidden, expert, family)
    )


def _has_experts(fields: Fields, number: int) -> bool:
    """Whether a layer has experts, by the several ways in which configurations say which do."""
    if not fields.experts or number < fields.number("first_k_dense_replace"):
        return False
    step = fields.number("interleave_moe_layer_step") or fields.number("decoder_sparse_step") or 1
    return (number + 1) % step == 0


def _shared(config: ModelConfig, fields: Fields, family: Family, expert: int) -> int:
    """What is in every token's way beside the experts."""
    hidden = config.hidden or 0
    if width := fields.number("shared_expert_intermediate_size"):
        return _mlp(hidden, width, family) + hidden  # its gate
    if count := fields.number("n_shared_experts"):
        return _mlp(hidden, count * expert, family)
    return _mlp(hidden, expert, family) if config.model_type.startswith("llama4") else 0


def _mlp(hidden: int, width: int, family: Family) -> int:
    matrices = 3 if family.gated else 2
    return matrices * hidden * width + (((matrices - 1) * width + hidden) if family.mlp_bias else 0)


def _width(config: ModelConfig, fields: Fields) -> int:
    named = fields.number("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff")
    return named or (fields.number("expansion_ratio") or 4) * (config.hidden or 0)


def _encoder_decoder(config: ModelConfig, fields: Fields) -> Parameters:
    """T5 and its kin: an encoder, and a decoder that also looks at it."""
    hidden, inner = config.hidden or 0, (config.heads or 0) * (config.head_dim or 0)
    attention, gated = 4 * hidden * inner, str(fields.value("feed_forward_proj")).startswith("gated")
    mlp = (3 if gated or config.model_type in {"mt5", "umt5"} else 2) * hidden * fields.number("d_ff")
    encoders, decoders = fields.number("num_layers") or config.layers or 0, config.layers or 0
    buckets = (fields.number("relative_attention_num_buckets") or 32) * (config.heads or 0)
    tables = (encoders + decoders) if config.model_type == "umt5" else 2
    body = encoders * (attention + mlp + 2 * hidden) + decoders * (2 * attention + mlp + 3 * hidden)
    body += buckets * tables + 2 * hidden
    embedding = (config.vocab or 0) * hidden
    if config.tied_embeddings:
        return Parameters(total=body + embedding, active=body + embedding)
    return Parameters(total=body + 2 * embedding, active=body + embedding)


def _vision(config: ModelConfig) -> int:
    """The part that reads images: Gemma 3's (SigLIP) and Llama 4's."""
    vision = Fields(config.vision)
    hidden, width = vision.number("hidden_size"), vision.number("intermediate_size")
    layers, patch, image = (vision.number(name) for name in ("num_hidden_layers", "patch_size", "image_size"))
    if not (hidden and width and layers and patch and image):
        return 0
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * width + width + hidden + 4 * hidden
    body = layers * layer + 3 * patch * patch * hidden + 2 * hidden + (image // patch) ** 2 * hidden
    text_hidden = config.hidden or 0
    if config.model_type != "llama4":  # patches have a bias; a norm and a projection follow
        return body + hidden + hidden + hidden * text_hidden
    ins, outs = vision.number("projector_input_dim"), vision.number("projector_output_dim")
    around = 2 * hidden + 2 * hidden  # class and its position; a norm before the layers
    return body + around + width * ins + ins * outs + outs * text_hidden
