"""vLLM's worker for a CPU, given to it as ``--worker-cls``: it holds what it needs, and no more.

vLLM 0.32.0 packs each matrix for oneDNN and frees the original. The C library keeps what was freed, as most matrices of
a small model are under its limit of 32 MiB. And the table of embeddings is packed too, for a product that nobody asks
of it where the model has an output head beside it (``UnquantizedEmbeddingMethod.process_weights_after_loading``).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.vocab_parallel_embedding import (  # type: ignore[import-not-found]  # engine's only
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.v1.worker.cpu_worker import CPUWorker  # type: ignore[import-not-found]  # in the engine's environment only

from headrace_engines.serving.heap import give_back


class FrugalWorker(CPUWorker):  # type: ignore[misc]  # as above
    """A worker that gives back what it does not use once it is loaded, and again once it is warm."""

    def load_model(self, **wishes: Any) -> None:
        """Load the weights."""
        super().load_model(**wishes)
        unpack_embeddings(self.model_runner.get_model())
        give_back()

    def compile_or_warm_up_model(self) -> Any:
        """Compute something for the first time; how long it took."""
        times = super().compile_or_warm_up_model()
        give_back()
        return times


def unpack_embeddings(model: Any) -> None:
    """Let go of the packed copies of tables that only look up rows.

    Asked for a product all the same, a table computes it from its rows.
    """
    modules = list(model.modules())
    if not any(isinstance(module, ParallelLMHead) for module in modules):
        return  # the table is the head
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, ParallelLMHead) or name.rpartition(".")[2] == "lm_head":
            modules = [other for other in modules if other is not module]
    for module in modules:
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            module.cpu_linear = torch.nn.functional.linear
