"""Interprets the kernels: the variable must be set before Triton is first imported, so it is set here, on collection.

Triton's own library functions (tl.sum ...) are bound to one mode when they are imported; both modes cannot live in one
process. The compile tests therefore run in a child process without the variable.
"""

import importlib.util
import os
import sys

import pytest

from tests.needed import give_up

HAS_TRITON = importlib.util.find_spec("triton") is not None
if HAS_TRITON and os.environ.get("TRITON_INTERPRET") != "1":
    if "triton.language" in sys.modules:
        raise RuntimeError(
            "triton was imported before TRITON_INTERPRET=1 was set: run pytest with it in the environment"
        )
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _prepares_a_launch_once():
    """Lets Triton replace its language's functions by interpreted ones once in a launch.

    It does so anew for each call of a function in a kernel, hundreds in a launch, where all are replaced already: a
    fifth of the time of these tests went into looking for what is left to replace.
    """
    if not HAS_TRITON:
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    replace = interpreter._patch_lang

    def replace_once(function):
        seen = [value for value in function.__globals__.values() if value is tl or value is tl.core]
        if seen and not any(tl.core.is_builtin(language.load) for language in seen):
            return interpreter._LangPatchScope()
        return replace(function)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", replace_once)
        yield


class _Untested(pytest.File):
    """In the place of a file of tests that could not even be imported."""

    def collect(self):
        give_up("triton is not installed (Linux x86_64 only): no Triton kernel is run, none compiled")


def pytest_pycollect_makemodule(module_path, parent):
    return None if HAS_TRITON else _Untested.from_parent(parent, path=module_path)
