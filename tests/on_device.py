# SPDX-License-Identifier: MIT
"""Arrays that say they are on a device, whose memory is the host's: for the emulated module."""

import ctypes

import numpy as np


class OnDevice:
    """An array that is known by ``__cuda_array_interface__`` alone."""

    def __init__(self, values):
        self.values = values

    @property
    def shape(self):
        return self.values.shape

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.values.shape,
            "typestr": self.values.dtype.str,
            "data": (self.values.ctypes.data, False),
            "strides": self.values.strides,
            "stream": 1,
            "version": 3,
        }


class Exchanged:
    """One that is known by DLPack alone, of a library with a namespace of the array standard."""

    streams = ()

    def __init__(self, values):
        self.values = values
        self.asked = []

    @property
    def shape(self):
        return self.values.shape

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream, max_version=None):
        self.asked.append((stream, max_version))
        if max_version is not None and not self.knows_versions:
            raise TypeError("unexpected max_version")
        return self.values.__dlpack__()

    knows_versions = False

    def __array_namespace__(self):
        return Namespace


class Namespace:
    """What results are handed over by."""

    @staticmethod
    def from_dlpack(result):
        assert result.__dlpack_device__() == (2, 0)
        return Exchanged(values_of(result))


def values_of(result):
    """A copy of what lies behind an array's interface."""
    said = result.__cuda_array_interface__
    assert said["version"] == 3
    assert said["strides"] is None
    dtype = np.dtype(said["typestr"])
    n_bytes = int(np.prod(said["shape"])) * dtype.itemsize
    memory = (ctypes.c_char * n_bytes).from_address(said["data"][0])
    return np.frombuffer(memory, dtype).reshape(said["shape"]).copy()
