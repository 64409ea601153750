"""Text generation with OpenVINO GenAI: the fast engine for CPUs. It serves what `headrace_engines.convert` made."""
