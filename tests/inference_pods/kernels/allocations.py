"""Counts the bytes of all tensors that are alive at once on the CPU, as a torch decoder makes and drops them."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """`peak`: the most bytes alive at once, of tensors made inside; what an operation takes and frees isn't seen.

    Tensors on another device ("meta", which stands for a GPU here) are not this process's memory.
    """

    def __init__(self):
        super().__init__()
        self.peak = self._now = 0
        self._alive = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage):
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key).atexit = False

    def _drop(self, key):
        self._now -= self._alive.pop(key)
