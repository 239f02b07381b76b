"""The native inference engine: loading, scheduling, decoding and its HTTP server."""

import os

# Libraries read these once, when they are loaded, so they are set before anything else of the engine or of a rank is.
# The kernels have threads of their own; numpy's BLAS would start one per core and never use it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# torch's threads wait asleep: where a core is shared, one that spins takes it from the thread that it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
