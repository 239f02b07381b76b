"""The native inference engine: loading, scheduling, decoding and its HTTP server."""

import os

# The kernels have threads of their own; numpy's BLAS would start one per core and never use it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
