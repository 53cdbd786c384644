"""CuPy's arrays and functions without a GPU: NumPy's, done late and in the order of streams.

What real CuPy refuses is refused: NumPy arrays among CuPy's, arrays of another GPU, functions beyond those that were
looked up in CuPy 14. Memory that nobody holds any more goes back to the stream it was taken on, as in CuPy's pool, and
is overwritten there; pinned memory is overwritten at once.
"""

import operator
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from standin_streams import Device, Stream, get_current_stream

Host = np.ndarray[Any, Any]

_FUNCTIONS = """
abs add arange bincount clip concatenate cos empty_like floor full hypot interp isfinite isnan max maximum min minimum
ones pad percentile rint roll rot90 sin sqrt tan where zeros zeros_like
"""
_METHODS = "any conj max mean min ravel reshape std sum"
_OPERATORS = "abs add and eq floordiv ge gt invert le lt mul ne neg or pow radd rmul rsub rtruediv sub truediv"
_IN_PLACE = {"iadd": np.add, "iand": np.bitwise_and, "imul": np.multiply, "isub": np.subtract, "itruediv": np.divide}

taken = {"bytes": 0, "most": 0}
"""Memory of the GPU that is held, and the most that was."""

_pinned: "weakref.WeakSet[_PinnedMemory]" = weakref.WeakSet()


class ndarray:  # noqa: N801, as CuPy calls it
    """An array on the stand-in's GPU."""

    __module__ = "cupy"
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, memory: Host, block: "_Block") -> None:
        self.memory, self.block, self.device = memory, block, Device()

    shape = property(lambda self: self.memory.shape)
    dtype = property(lambda self: self.memory.dtype)
    size = property(lambda self: self.memory.size)
    ndim = property(lambda self: self.memory.ndim)
    nbytes = property(lambda self: self.memory.nbytes)
    flags = property(lambda self: self.memory.flags)
    data = property(lambda self: SimpleNamespace(ptr=self.memory.ctypes.data))
    T = property(lambda self: apply(np.transpose, self))
    real = property(lambda self: apply(np.real, self))
    imag = property(lambda self: apply(np.imag, self))

    def get(self, stream: Stream | None = None, *, out: Host | None = None, blocking: bool = True) -> Host:
        """A copy on the host, late where it is in pinned memory and nobody asked to wait."""
        stream, result = stream or get_current_stream(), np.empty_like(self.memory) if out is None else out
        assert (result.shape, result.dtype, result.flags.c_contiguous) == (self.shape, self.dtype, True)
        target, source = in_pinned(result), self.memory
        stream.add(lambda: np.copyto(result if target is None else target, source))
        if blocking or target is None:
            stream.synchronize()
        return result

    def set(self, array: Host, stream: Stream | None = None) -> None:
        """Take the values of a host array: as they are now, or late where it is in pinned memory."""
        assert (array.shape, array.dtype, array.flags.c_contiguous) == (self.shape, self.dtype, True)
        target, pinned = self.memory, in_pinned(array)
        source = array.copy() if pinned is None else pinned
        (stream or get_current_stream()).add(lambda: np.copyto(target, source))

    def fill(self, value: float) -> None:
        """Set every value."""
        self[...] = value

    def astype(self, dtype: Any, copy: bool = True) -> "ndarray":
        """A copy in another type; itself where it has that and no copy is asked for."""
        return self if not copy and self.dtype == dtype else apply(lambda array: array.astype(dtype), self)

    def copy(self) -> "ndarray":
        """A copy."""
        return apply(np.copy, self)

    def __getitem__(self, key: Any) -> "ndarray":
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
            return asarray(self.get()[tuple(asnumpy(part) for part in parts)])  # how many, the values say
        if any(isinstance(part, ndarray) for part in parts):
            return apply(lambda array, *indices: array[indices], self, *parts)
        return ndarray(self.memory[parts if Ellipsis in parts else (*parts, ...)], self.block)

    def __setitem__(self, key: Any, value: Any) -> None:
        target, parts, value = self.memory, _host(key), _host(value)
        get_current_stream().add(lambda: _quietly(operator.setitem, target, parts, value))

    def __array_function__(self, function: Any, _: Any, arguments: Any, options: Any) -> Any:
        return function_of(function.__name__)(*arguments, **options)

    def __array__(self, *_: Any, **__: Any) -> Host:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __len__(self) -> int:
        return len(self.memory)

    def __iter__(self) -> Iterator["ndarray"]:
        return (self[index] for index in range(len(self)))

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())


class _Block:
    """Memory as the pool gives it: full of what was there before, and given back to the stream that asked for it."""

    def __init__(self, shape: Any, dtype: Any) -> None:
        self.memory = np.empty(shape, dtype)
        self.raw = self.memory.reshape(-1).view(np.uint8)
        self.raw.fill(0xFF)
        taken["bytes"] += self.raw.size
        taken["most"] = max(taken.values())
        weakref.finalize(self, _give_back, self.raw, get_current_stream())


def _give_back(raw: Host, stream: Stream) -> None:
    taken["bytes"] -= raw.size
    stream.add(lambda: raw.fill(0xFF))


class _PinnedMemory:
    """Host memory that the GPU may read and write late, without holding it."""

    def __init__(self, size: int) -> None:
        self.raw = np.full(size, 0xFF, np.uint8)
        self.__array_interface__ = self.raw.__array_interface__
        _pinned.add(self)
        weakref.finalize(self, self.raw.fill, 0xFF)


def empty_pinned(shape: Any, dtype: Any = float) -> Host:
    """A NumPy array in pinned memory."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.asarray(_PinnedMemory(size)).view(dtype).reshape(shape)  # type: ignore[call-overload, no-any-return]


def is_pinned(address: int) -> bool:
    """Whether an address is in pinned memory."""
    return any(0 <= address - owner.raw.ctypes.data < owner.raw.size for owner in list(_pinned))


def in_pinned(array: Host) -> Host | None:
    """The same pinned memory as the GPU knows it, by its address; None where an array is in other memory."""
    for owner in list(_pinned):
        start = array.ctypes.data - owner.raw.ctypes.data
        if 0 <= start < owner.raw.size:
            return owner.raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    return None


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """An array of what was in memory before."""
    block = _Block(shape, dtype)
    return ndarray(block.memory, block)


def asarray(array: Any, dtype: Any = None) -> ndarray:
    """The array on the GPU."""
    if isinstance(array, ndarray):
        return array.astype(array.dtype if dtype is None else dtype, copy=False)
    host = np.array(array, dtype, order="C")
    there = empty(host.shape, host.dtype)
    there.set(host)
    return there


def ascontiguousarray(array: Any, dtype: Any = None) -> ndarray:
    """The array, in C order."""
    array = asarray(array, dtype)
    return array if array.flags.c_contiguous else apply(np.ascontiguousarray, array)


def asnumpy(array: Any) -> Any:
    """The array on the host."""
    return array.get() if isinstance(array, ndarray) else array


def nonzero(array: ndarray) -> tuple[ndarray, ...]:
    """Indices; how many there are depends on the values, so that the GPU is waited for."""
    return tuple(asarray(indices) for indices in array.get().nonzero())


def function_of(name: str) -> Callable[..., Any]:
    """A function as CuPy has it."""
    if name not in _FUNCTIONS.split():
        raise AttributeError(f"the stand-in does not know cupy.{name}; look it up in CuPy's reference and add it")
    function = getattr(np, name)
    return lambda *arguments, **options: apply(function, *arguments, **options)


def apply(function: Callable[..., Any], *arguments: Any, out: ndarray | None = None, **options: Any) -> ndarray:
    """Queue a function of NumPy on the current stream; what is a view in NumPy is one here, at once."""
    for array in _arrays((*arguments, *options.values())):
        assert array.device.id == Device().id, "an array of another GPU than the current one"
    given, named = _host(arguments), {name: _host(value) for name, value in options.items()}

    def compute() -> Any:
        return _quietly(function, *given, **named)

    # What memory holds now may be anything; shape and type are right. A few functions refuse values, though.
    try:
        likeness = compute()
    except (ValueError, IndexError):
        get_current_stream().synchronize()
        likeness = compute()
    for array in _arrays(arguments):
        if isinstance(likeness, np.ndarray) and np.may_share_memory(likeness, array.memory):
            return ndarray(likeness, array.block)
    result = empty(likeness.shape, likeness.dtype) if out is None else out
    assert np.can_cast(likeness.dtype, result.dtype, "same_kind")
    target = result.memory
    get_current_stream().add(lambda: np.copyto(target, compute(), casting="same_kind"))
    return result


def _in_place(function: Any) -> Callable[[ndarray, Any], ndarray]:
    def operate(self: ndarray, other: Any) -> ndarray:
        target, value = self.memory, _host(other)
        assert np.can_cast(np.result_type(target, value), target.dtype, "same_kind")
        get_current_stream().add(lambda: _quietly(function, target, value, out=target, casting="same_kind"))
        return self

    return operate


def _arrays(value: Any) -> Iterator[ndarray]:
    if isinstance(value, ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _arrays(each)


def _host(value: Any) -> Any:
    """The memory behind CuPy's arrays, in whatever they are; NumPy's arrays are refused."""
    if isinstance(value, ndarray):
        return value.memory
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"Unsupported type {type(value)}")
    return type(value)(map(_host, value)) if type(value) in (tuple, list) else value


def _quietly(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A GPU does not warn of NaN."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def _method(name: str) -> Callable[..., ndarray]:
    def call(self: ndarray, *arguments: Any, **options: Any) -> ndarray:
        return apply(lambda array, *rest: getattr(array, name)(*rest, **options), self, *arguments)

    return call


for _name in (*_METHODS.split(), *(f"__{name}__" for name in _OPERATORS.split())):
    setattr(ndarray, _name, _method(_name))
for _name, _function in _IN_PLACE.items():
    setattr(ndarray, f"__{_name}__", _in_place(_function))
