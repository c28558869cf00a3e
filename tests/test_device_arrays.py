# SPDX-License-Identifier: MIT
"""How arrays on devices come and go, what is refused, and rooms for graphs."""

import re

import numpy as np
import pytest

import crfseg
from crfseg import Features, Gaussian, _device_arrays
from crfseg._device import Place
from emulated import MODULE, emulated, needs_emulation
from on_device import Exchanged, OnDevice, values_of
from test_device import scene

__all__ = ["emulated"]
with_emulation = [needs_emulation, pytest.mark.usefixtures("emulated")]


class Versioned(Exchanged):
    """A library that knows DLPack 1."""

    knows_versions = True

    def __dlpack__(self, *, stream, max_version=None):
        self.asked.append((stream, max_version))
        return self.values.__dlpack__(max_version=(1, 0))


def message(call):
    with pytest.raises((RuntimeError, TypeError, ValueError, MemoryError)) as caught:
        call()
    return f"{caught.type.__name__}: {caught.value}"


class TestExchange:
    pytestmark = with_emulation

    def test_dlpack_in_and_out(self):
        probs, image = scene()
        x = Exchanged(probs)
        refined = crfseg.refine(x, Exchanged(image))
        assert isinstance(refined, Exchanged)
        np.testing.assert_array_equal(
            refined.values, values_of(crfseg.refine(OnDevice(probs), OnDevice(image)))
        )
        assert x.asked == [(1, (1, 0)), (1, None)]  # the legacy stream, never 0

    @pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="numpy knows none")
    def test_versioned_dlpack(self):
        probs, image = scene()
        x = Versioned(probs)
        refined = crfseg.refine(x, image)
        assert x.asked == [(1, (1, 0))]
        np.testing.assert_array_equal(
            refined.values, values_of(crfseg.refine(OnDevice(probs), image))
        )

    def test_a_capsule_is_taken_once(self):
        capsule = np.zeros(3, np.float32).__dlpack__()
        MODULE.Borrowed(capsule)
        with pytest.raises(ValueError, match="nobody took"):
            MODULE.Borrowed(capsule)

    def test_results_say_what_they_are(self):
        result = crfseg.refine(OnDevice(scene()[0]), scene()[1], returns="labels")
        assert result.__dlpack_device__() == (2, 0)
        taken = MODULE.Borrowed(result.__dlpack__(stream=-1))
        assert (taken.shape, taken.type) == ([19, 23], (1, 8, 1))
        assert taken.address == result.__cuda_array_interface__["data"][0]
        result.__dlpack__(stream=2)  # nobody takes it

    def test_views_tell_where_they_are(self):
        values = np.arange(2 * 3 * 4 * 5, dtype=np.int32).reshape(2, 3, 4, 5)
        shadow = _device_arrays.open_on_device("f", "x", OnDevice(values))
        for view in (
            lambda a: a[1],
            lambda a: np.moveaxis(a, 1, -1)[:, ::2],
            lambda a: a[..., ::-1],
            lambda a: a[1:, 2, None, 1::2],
        ):
            np.testing.assert_array_equal(_device_arrays.to_host(view(shadow)), view(values))
        backwards = _device_arrays.open_on_device("f", "x", OnDevice(values[::-1, :, ::-2]))
        np.testing.assert_array_equal(_device_arrays.to_host(backwards), values[::-1, :, ::-2])

    def test_nothing_is_computed_with_what_is_not_here(self):
        shadow = _device_arrays.open_on_device("f", "x", OnDevice(np.ones((2, 3))))
        for compute in (lambda: shadow + 1, shadow.max, lambda: shadow == 0):
            with pytest.raises(TypeError, match="on a device"):
                compute()


class TestRefused:
    pytestmark = with_emulation

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda p: p[1].__setitem__((3, 4), np.nan),
            lambda p: p[1].__setitem__((3, 4), -0.5),
            lambda p: p.__imul__(1.1),
            lambda p: np.log(p, out=p),
        ],
        ids=["nan", "negative", "sums", "log-probabilities"],
    )
    @pytest.mark.parametrize("is_batch", [False, True])
    def test_scores_as_on_the_cpu(self, spoil, is_batch):
        probs, image = scene()
        spoil(probs)
        if is_batch:
            probs = np.stack([scene()[0], probs])
        expected = message(lambda: crfseg.refine(probs, image))
        assert message(lambda: crfseg.refine(OnDevice(probs), OnDevice(image))) == expected

    @pytest.mark.parametrize(
        ("kind", "change"),
        [("logits", lambda p: p), ("logits", lambda p: p * np.inf), ("scores", np.negative)],
    )
    def test_other_kinds_as_on_the_cpu(self, kind, change):
        probs, image = scene()
        x = change(probs)
        expected = message(lambda: crfseg.refine(x, image, kind=kind))
        assert message(lambda: crfseg.refine(OnDevice(x), image, kind=kind)) == expected

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, 200.0])
    def test_images_as_on_the_cpu(self, value):
        probs, image = scene()
        levels = image / np.float32(255)
        levels[5, 6, 1] = value
        images = [image / np.float32(255), levels]
        both = np.stack([probs, probs])
        expected = message(lambda: crfseg.refine(both, images))
        on_device = [OnDevice(one) for one in images]
        assert message(lambda: crfseg.refine(OnDevice(both), on_device)) == expected
        assert message(lambda: crfseg.refine(OnDevice(both), np.stack(images))) == expected

    def test_shapes_and_types_as_on_the_cpu(self):
        probs, image = scene()
        for x, one in (
            (probs[:, 1:], image),
            (probs, image.astype(np.int32)),
            (probs, image.astype(np.complex64)),
            (probs.argmax(0).astype(np.uint8) * 70, image),
            (probs, np.zeros((19, 23, 15), np.uint8)),
        ):
            expected = message(lambda x=x, one=one: crfseg.refine(x, one, bilateral=(1e-9, 3, 1)))
            found = message(
                lambda x=x, one=one: crfseg.refine(
                    OnDevice(x), OnDevice(one), bilateral=(1e-9, 3, 1)
                )
            )
            assert found == expected

    def test_features_that_are_not_finite(self):
        x = scene()[0].reshape(4, -1).T.copy()
        features = np.ones((len(x), 2))
        features[7, 1] = np.nan
        expected = message(lambda: crfseg.refine_points(x, features, sigmas=1.0))
        on_device = OnDevice(x)
        assert message(lambda: crfseg.refine_points(on_device, features, sigmas=1.0)) == expected

    def test_what_devices_have_not(self):
        probs, image = scene()
        with pytest.raises(ValueError, match=r"solver.*CPU memory alone"):
            crfseg.refine(OnDevice(probs), image, solver="frank-wolfe")
        terms = [Gaussian(2 + i, 1) for i in range(9)]
        with pytest.raises(ValueError, match=r"9 pairwise terms.*at most 8"):
            crfseg.refine(OnDevice(probs), image, pairwise=terms)

    def test_an_image_on_a_device_beside_scores_that_are_not(self):
        probs, image = scene()
        with pytest.raises(ValueError, match="image is on device"):
            crfseg.refine(probs, Exchanged(image))
        with pytest.raises(ValueError, match="features is on device"):
            Features(Exchanged(probs.reshape(4, -1).T), 1.0)


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
        def with_it(*args):
            *first, place, owner = args
            return shadow(*first, Place(place.device, place.stream, allocate), owner)

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
        with pytest.raises(crfseg.CudaError, match=r"no room for .* expected a larger"):
            room.check()

    def test_values_are_judged_later(self):
        probs, image = scene()
        room = crfseg.graphs.Room(5000)
        with room.held():
            crfseg.refine(OnDevice(probs * 2), image)
        with pytest.raises(crfseg.CudaError, match="replayed with"):
            room.check()
        levels = image / np.float32(100)
        room = crfseg.graphs.Room(5000)
        with room.held():
            crfseg.refine(OnDevice(probs), OnDevice(levels))
        with pytest.raises(crfseg.CudaError, match="replayed with"):
            room.check()

    def test_a_capture_without_room(self, monkeypatch):
        monkeypatch.setattr(MODULE, "is_capturing", lambda stream: True)
        with pytest.raises(crfseg.CudaError, match=r"being captured.*Room"):
            crfseg.refine(OnDevice(scene()[0]), scene()[1])

    def test_what_is_in_the_hosts_memory(self, monkeypatch):
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

    def test_what_needs_counting(self):
        with crfseg.graphs.Room(500).held(), pytest.raises(ValueError, match="accuracy='fine'"):
            crfseg.refine(OnDevice(scene()[0]), scene()[1], accuracy="fine")
        with pytest.raises(ValueError, match="max_vertices is 0"):
            crfseg.graphs.Room(0)


class TestAvailability:
    def test_without_the_module(self, monkeypatch):
        monkeypatch.setattr("crfseg._native.cuda", None)
        monkeypatch.setattr("crfseg._native._why_no_module", "crfseg was built without it")
        told = crfseg.info()
        assert told["cuda"] is False
        assert told["why_no_cuda"] == "crfseg was built without it"
        with pytest.raises(crfseg.CudaError, match="CUDA cannot be used: crfseg was built without"):
            crfseg.refine(OnDevice(scene()[0]), scene()[1])

    @needs_emulation
    def test_without_a_device(self, emulated, monkeypatch):
        assert crfseg.info()["cuda"] is True
        assert crfseg.info()["why_no_cuda"] is None
        monkeypatch.setattr(emulated, "availability", lambda: (0, "no driver"))
        assert crfseg.info()["why_no_cuda"] == "no driver"
        with pytest.raises(crfseg.CudaError, match=re.escape("cannot be used: no driver")):
            crfseg.refine(OnDevice(scene()[0]), scene()[1])
