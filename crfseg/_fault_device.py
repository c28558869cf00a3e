# SPDX-License-Identifier: MIT
"""What goes wrong on CUDA devices, in words. Each function makes an exception for the caller."""

from ._check import invalid


class CudaError(RuntimeError):
    """CUDA cannot be used, or a call of its runtime failed; the sentence names the call."""

    __module__ = "crfseg"


def cannot_use(where: str, name: str, why: str) -> CudaError:
    """An array lies on a device, and nothing here can work with it."""
    return CudaError(
        f"[{where}] {name} is on a CUDA device, but CUDA cannot be used: {why}; "
        f"expected {name} in CPU memory ({name}.cpu() copies a tensor)"
    )


def failed(where: str, error: Exception) -> CudaError:
    """A call of the CUDA runtime that failed."""
    return CudaError(f"[{where}] {error}")


def out_of_memory(where: str, what: str, asked: int) -> MemoryError:
    """The device gave less than was asked of it."""
    return MemoryError(
        f"[{where}] {what} ran out of device memory: {asked} bytes "
        f"({asked / 2**30:.2f} GiB) were asked for; expected fewer points, labels or images at once"
    )


def other_device(where: str, name: str, found: int, expected: int) -> ValueError:
    """Two arrays of a call on two devices."""
    return invalid(
        where, f"{name} is on device cuda:{found}; expected it on cuda:{expected}, where x is"
    )


def odd_strides(where: str, name: str) -> ValueError:
    """An address or steps between elements that are no multiple of their size."""
    return invalid(
        where, f"{name} lies between the addresses of its type; expected whole elements, aligned"
    )


def not_there(where: str, found: str, expected: str) -> ValueError:
    """An option that the CPU has and devices have not."""
    return invalid(
        where, f"{found} is for arrays in CPU memory alone; expected {expected}, or x.cpu()"
    )


def only_on_devices(where: str, found: str) -> ValueError:
    """An option that devices have and the CPU has not."""
    return invalid(
        where, f"{found} is for arrays on CUDA devices; expected x on one, or no such word"
    )


def bare_capture(where: str) -> CudaError:
    """The capture of a graph, in which nothing can be waited for."""
    return CudaError(
        f"[{where}] the stream is being captured into a CUDA graph, in which nothing can be "
        "counted; expected the call inside `with crfseg.graphs.Room(max_vertices=...).held():`"
    )


def host_in_graph(where: str) -> CudaError:
    """Something in the host's memory, or that is looked at there, during a capture."""
    return CudaError(
        f"[{where}] a graph cannot hold what is in CPU memory or is looked at there (labels, "
        "masks, features); expected scores for every label and images that are on the device"
    )


def graph_without_pool(where: str) -> CudaError:
    """A capture in which memory would come from no library's pool."""
    return CudaError(
        f"[{where}] a graph keeps its memory in the pool of PyTorch or CuPy; "
        "expected x as an array of one of them"
    )


class NoRoomError(CudaError):
    """A lattice that outgrew its room."""

    def __init__(self, where: str, what: str, lacking: int) -> None:
        super().__init__(
            f"[{where}] a lattice had {lacking} {what} more than there is room for; "
            f"expected max_{what} to be as much larger"
        )
        self.lacking = lacking


def bad_in_graph(where: str) -> CudaError:
    """Values in a replayed graph that a call would have refused."""
    return CudaError(
        f"[{where}] a call in the room, or a replay of it, had an image or scores whose values are "
        "out of range or not finite; expected values that refine takes"
    )
