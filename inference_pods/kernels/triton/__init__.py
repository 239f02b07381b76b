"""GPU kernels in Triton: quantised matmuls, paged attention, norm and rotation.

One operation per file: the Triton kernel, a reference in plain torch, a wrapper that checks shapes and types, and for
matmuls the `pack_*` function that makes its buffers from fp32 weights. `linear.py` is what a model calls.
Layouts, limits and compile figures: docs/kernels-gpu.md.
"""
