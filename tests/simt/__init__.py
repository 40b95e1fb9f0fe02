"""The kernels' __global__ source on emulated GPU threads: see simt.h; harness.py compiles and runs it."""
