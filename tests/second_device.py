"""A device that is not there: tensors on the processor that behave as if they were on a GPU.

Inside `SecondDevice`, whatever is made on ``"cuda"`` is tagged. Operations that mix tagged with other tensors
are refused as a GPU refuses them, numpy cannot read tagged tensors, and every read of a value that would make
the processor wait for a GPU is counted by the line that asks for it.

    with SecondDevice() as device:
        scores = lsi.score(X, y, device="cuda")
    assert device.waits == …

`tests/test_second_device.py` holds the library to it.
"""

import contextlib
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

import lsi

FAR = torch.device("cuda", 0)
SOURCE = str(Path(lsi.__file__).parent)
READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "argwhere", "unique"}
READS |= {
    "unique_consecutive",
    "masked_select",
    "equal",
    "allclose",
    "bincount",
    "is_nonzero",
    "__contains__",
}
NEVER = {"numpy", "__array__", "data_ptr"}
MOVES = {"copy_"}  # between devices


def is_far(value):
    """Return whether a tensor is on the device."""
    return isinstance(value, Tensor) and getattr(value, "_far", False)


class SecondDevice(TorchFunctionMode):
    """See above.

    Attributes:
        waits: How often each line of the library read a value from the device, by `file:line`.
    """

    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call `func` as a device would."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        far = any(is_far(value) for value in given)
        if name == "__get__":
            return self._attribute(func, args, far)
        if name in NEVER and far:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if name in READS and far:
            self._wait()
        if name in ("to", "cpu", "cuda"):
            return self._moved(func, name, args, kwargs)
        if name in ("__getitem__", "__setitem__"):
            self._check_index(name, args)
        elif name not in MOVES:
            self._check_mix(name, given)
        if far and kwargs.get("out") is not None:
            self._check_aliases(args, kwargs["out"])
        if "device" in kwargs and kwargs["device"] is not None:
            far = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = "cpu"
        elif name in ("from_numpy", "tensor", "as_tensor"):
            far = False
        if name == "copy_":
            far = is_far(args[0])
            if is_far(args[1]) and not far:
                self._wait()
        return self._tagged(func(*args, **kwargs), far)

    def _attribute(self, func, args, far):
        found = func(*args)
        if isinstance(found, torch.device):
            return FAR if far else found
        if getattr(func, "__self__", None) is Tensor.is_cuda:
            return far
        return self._tagged(found, far)

    def _moved(self, func, name, args, kwargs):
        tensor, rest = args[0], list(args[1:])
        far = {"cpu": False, "cuda": True}.get(name, is_far(tensor))
        for place, value in enumerate(rest):
            if isinstance(value, Tensor):
                far, rest[place] = is_far(value), value
            elif isinstance(value, (str, torch.device)):
                far, rest[place] = torch.device(value).type == "cuda", "cpu"
        if kwargs.get("device") is not None:
            far, kwargs["device"] = torch.device(kwargs["device"]).type == "cuda", "cpu"
        if is_far(tensor) and not far:
            self._wait()
        found = Tensor.to(tensor, *rest, **kwargs) if name == "to" else tensor
        if found is tensor and far != is_far(tensor):
            found = tensor.clone()
        return self._tagged(found, far) if found is not tensor else found

    def _check_index(self, name, args):
        owner, key = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
        keys = [value for value in key if isinstance(value, Tensor)]
        if not is_far(owner) and any(is_far(value) and value.dim() for value in keys):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor")
        if is_far(owner) and any(value.dtype == torch.bool for value in keys):
            # A mask has to be counted before anything can be taken by it; filling by one has not.
            if name == "__getitem__" or (isinstance(args[2], Tensor) and args[2].dim()):
                self._wait()
        if any(is_far(value) and not value.dim() for value in keys):
            self._wait()
        if name == "__setitem__" and keys and isinstance(args[2], Tensor):
            self._check_mix(name, [owner, args[2]])

    def _check_mix(self, name, given):
        if any(is_far(value) for value in given):
            near = [value for value in given if not is_far(value) and value.dim() > 0]
            if near:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {name}"
                )

    def _check_aliases(self, args, out):
        """Refuse what writes where it reads: GPU libraries promise nothing then."""
        written, read = (
            {
                value.untyped_storage().data_ptr()
                for value in tree_flatten(part)[0]
                if isinstance(value, Tensor)
            }
            for part in (out, args)
        )
        if written & read:
            raise RuntimeError("some elements of the input tensor and of out= are in the same place")

    def _wait(self):
        frame = sys._getframe()
        while frame is not None and not frame.f_code.co_filename.startswith(SOURCE):
            frame = frame.f_back
        if frame is not None:
            place = Path(frame.f_code.co_filename).relative_to(SOURCE)
            self.waits[f"{place}:{frame.f_lineno}"] += 1

    def _tagged(self, found, far):
        for value in tree_flatten(found)[0]:
            if isinstance(value, Tensor) and far != is_far(value):
                value._far = far
        return found


@contextlib.contextmanager
def second_device(monkeypatch, capability=(9, 0), free=1 << 34):
    """Enter `SecondDevice`, with answers to what the library asks about a GPU."""
    with monkeypatch.context() as patch, SecondDevice() as device:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(Tensor, "pin_memory", Tensor.clone)
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, free))
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        yield device
