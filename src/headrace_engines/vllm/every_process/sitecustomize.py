"""Read by Python itself at the start of every process of vLLM's on a CPU: makes PyPI's torchvision importable there.

vLLM's code for most models that see imports torchvision, for its resizing and cropping, which is plain PyTorch. PyPI's
build is CUDA's: its compiled operators do not load beside PyTorch for CPUs, and then the import ends in "operator
torchvision::nms does not exist", where two of its modules describe those operators to compilers and to autograd. So
these two count as imported already. The operators (nms, roi_align ...) are for detecting objects; no model here does.

A hook and not code of the launcher's, because vLLM looks at a model's class in a process of its own
(vllm/model_executor/models/registry.py:1550), and computes in others.
"""

import sys
from types import ModuleType

for name in ("torchvision._meta_registrations", "torchvision._autograd_registrations"):
    sys.modules[name] = ModuleType(name)
