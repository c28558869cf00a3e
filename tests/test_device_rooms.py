# SPDX-License-Identifier: MIT
"""Memory of devices that runs out, and rooms for graphs, which nothing can be asked in."""

import numpy as np
import pytest

import crfseg
from crfseg import Features, _device_arrays
from emulated import MODULE, emulated, needs_emulation
from on_device import OnDevice, values_of
from test_device import scene

__all__ = ["emulated"]
with_emulation = [needs_emulation, pytest.mark.usefixtures("emulated")]


class Limited:
    """Device memory of which there is little."""

    def __init__(self, most):
        self.most, self.asked = most, []

    def __call__(self, n_bytes):
        self.asked.append(n_bytes)
        if n_bytes > self.most:
            raise MODULE.OutOfDeviceMemory(n_bytes)
        owned = MODULE.Owned(n_bytes, 0, 0)
        return owned.address, owned


@pytest.fixture
def place_with(monkeypatch):
    """Arrays on a device get their memory from this."""
    shadow = _device_arrays._shadow

    def use(allocate):
        def with_it(*args, **kwargs):
            *first, place, owner = args
            return shadow(*first, place._replace(allocate=allocate), owner, **kwargs)

        monkeypatch.setattr(_device_arrays, "_shadow", with_it)

    return use


class TestMemory:
    pytestmark = with_emulation

    def test_a_batch_is_parted_where_it_does_not_fit(self, place_with):
        probs, image = scene()
        batch, images = np.stack([probs] * 5), np.stack([image] * 5)
        whole = values_of(crfseg.refine(OnDevice(batch), OnDevice(images)))
        plenty = Limited(2**40)
        place_with(plenty)
        np.testing.assert_array_equal(values_of(crfseg.refine(OnDevice(batch), images)), whole)
        little = Limited(max(plenty.asked) // 2)
        place_with(little)
        np.testing.assert_array_equal(values_of(crfseg.refine(OnDevice(batch), images)), whole)
        assert max(little.asked) > little.most

    def test_too_little_for_one(self, place_with):
        probs, image = scene()
        place_with(Limited(1000))
        with pytest.raises(MemoryError, match=r"ran out of device memory: \d+ bytes"):
            crfseg.refine(OnDevice(probs), image)

    def test_a_call_that_fails(self, place_with):
        def fail(_):
            raise MODULE.DeviceError("cudaMallocAsync: an illegal memory access was encountered")

        probs, image = scene()
        place_with(fail)
        with pytest.raises(crfseg.CudaError, match="cudaMallocAsync: an illegal"):
            crfseg.refine(OnDevice(probs), image)


class TestRooms:
    pytestmark = with_emulation

    def test_the_same_in_a_room(self):
        probs, image = scene()
        expected = values_of(crfseg.refine(OnDevice(probs), OnDevice(image)))
        for room in (crfseg.graphs.Room(5000), crfseg.graphs.Room(2000, max_rows=2600)):
            with room.held():
                refined = crfseg.refine(OnDevice(probs), OnDevice(image))
            room.check()
            np.testing.assert_allclose(values_of(refined), expected, atol=1e-6)

    @pytest.mark.parametrize("room", [(20, None), (5000, 50)])
    def test_too_small_a_room(self, room):
        probs, image = scene()
        room = crfseg.graphs.Room(*room)
        with room.held():
            crfseg.refine(OnDevice(probs), image)
        with pytest.raises(crfseg.CudaError, match=r"(vertices|rows) more than there is room for"):
            room.check()

    def test_values_are_judged_later(self):
        probs, image = scene()
        room = crfseg.graphs.Room(5000)
        with room.held():
            crfseg.refine(OnDevice(probs * 2), image)
        with pytest.raises(crfseg.CudaError, match="a replay of it"):
            room.check()
        levels = image / np.float32(100)
        room = crfseg.graphs.Room(5000)
        with room.held():
            crfseg.refine(OnDevice(probs), OnDevice(levels))
        with pytest.raises(crfseg.CudaError, match="a replay of it"):
            room.check()

    def test_a_capture_without_room_or_pool(self, monkeypatch, place_with):
        monkeypatch.setattr(MODULE, "is_capturing", lambda stream: True)
        with pytest.raises(crfseg.CudaError, match="the pool of PyTorch or CuPy"):
            crfseg.refine(OnDevice(scene()[0]), scene()[1])
        place_with(Limited(2**40))
        with pytest.raises(crfseg.CudaError, match=r"being captured.*Room"):
            crfseg.refine(OnDevice(scene()[0]), OnDevice(scene()[1]))

    def test_what_is_in_the_hosts_memory(self, monkeypatch, place_with):
        place_with(Limited(2**40))
        probs, image = scene()
        features = np.ones((probs[0].size, 2), np.float32)
        on_device = OnDevice(image)
        monkeypatch.setattr(MODULE, "is_capturing", lambda stream: True)
        with crfseg.graphs.Room(500).held():
            crfseg.refine(OnDevice(probs), on_device)
            for call in (
                lambda: crfseg.refine(OnDevice(probs), image),
                lambda: crfseg.refine(OnDevice(probs.argmax(0)), on_device),
                lambda: crfseg.refine(OnDevice(probs[0]), on_device, kind="mask"),
                lambda: crfseg.refine(
                    OnDevice(probs), on_device, pairwise=[Features(features, 1.0)]
                ),
            ):
                with pytest.raises(crfseg.CudaError, match="a graph cannot hold"):
                    call()

    def test_a_room_is_for_its_last_graph(self):
        probs, image = scene()
        room = crfseg.graphs.Room(5000)
        with room.held():
            crfseg.refine(OnDevice(probs * 2), image)
        with room.held():
            crfseg.refine(OnDevice(probs), image)
            crfseg.refine(OnDevice(probs), image)
        room.check()

    def test_as_many_vertices_as_there_are(self):
        features = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
        n_vertices = crfseg.Lattice(features).n_vertices
        x = np.full((40, 2), 0.5, np.float32)
        for most, is_enough in ((n_vertices, True), (n_vertices - 2, False)):
            room = crfseg.graphs.Room(most)
            with room.held():
                crfseg.refine_points(OnDevice(x), features, sigmas=1.0)
            if is_enough:
                room.check()
                continue
            with pytest.raises(crfseg.CudaError, match="vertices more than"):
                room.check()

    def test_what_needs_counting(self):
        with crfseg.graphs.Room(500).held(), pytest.raises(ValueError, match="accuracy='fine'"):
            crfseg.refine(OnDevice(scene()[0]), scene()[1], accuracy="fine")
        with pytest.raises(ValueError, match="max_vertices is 0"):
            crfseg.graphs.Room(0)
