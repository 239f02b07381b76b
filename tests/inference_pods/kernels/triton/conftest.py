"""Interprets the kernels: the variable must be set before Triton is first imported, so it is set here, on collection.

Triton's own library functions (tl.sum ...) are bound to one mode when they are imported; both modes cannot live in one
process. The compile tests therefore run in a child process without the variable.
"""

import importlib.util
import os
import sys

HAS_TRITON = importlib.util.find_spec("triton") is not None
if HAS_TRITON and os.environ.get("TRITON_INTERPRET") != "1":
    if "triton.language" in sys.modules:
        raise RuntimeError(
            "triton was imported before TRITON_INTERPRET=1 was set: run pytest with it in the environment"
        )
    os.environ["TRITON_INTERPRET"] = "1"

collect_ignore_glob = (
    [] if HAS_TRITON else ["test_matmul.py", "test_paged_attention.py", "test_norm_rope.py", "test_variants.py"]
)
