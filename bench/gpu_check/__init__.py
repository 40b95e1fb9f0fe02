"""Builds, checks and measures the package on a machine with a CUDA GPU; `python -m bench.gpu_check --help` says how."""
