# SPDX-License-Identifier: MIT
"""How arrays on devices come and go, what is refused, and rooms for graphs."""

import re
import sys

import numpy as np
import pytest

import crfseg
from crfseg import Bilateral, Features, Gaussian, _device_arrays
from emulated import MODULE, emulated, needs_emulation
from on_device import Cupy, Exchanged, OnDevice, values_of
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
        for compute in (
            lambda: shadow + 1,
            shadow.max,
            lambda: shadow == 0,
            shadow.argmax,
            shadow.tolist,
            lambda: shadow.astype(int),
            lambda: np.count_nonzero(shadow),
            lambda: np.where(shadow, 1, 0),
        ):
            with pytest.raises(TypeError, match="on a device"):
                compute()


class TestStreams:
    pytestmark = with_emulation

    @pytest.fixture
    def cupy(self, monkeypatch):
        stands_for = Cupy()
        monkeypatch.setitem(sys.modules, "cupy", stands_for)
        return stands_for

    @pytest.fixture
    def calls(self, monkeypatch):
        """What is put on which stream, and what waits for what."""
        made = []

        def recorded(name, function, get):
            def call(*args):
                made.append((name, *get(args)))
                return function(*args)

            monkeypatch.setattr(MODULE, name, call)

        recorded("convert", MODULE.convert, lambda args: args[-2:])
        recorded("order_after", MODULE.order_after, lambda args: args)
        recorded("synchronize", MODULE.synchronize, lambda args: args)
        return made

    def test_cupys_arrays_come_back_as_such(self, cupy, calls):
        probs, image = scene()
        refined = crfseg.refine(cupy.ndarray(probs), cupy.ndarray(image))
        assert type(refined) is cupy.ndarray
        np.testing.assert_array_equal(
            refined.values, values_of(crfseg.refine(OnDevice(probs), OnDevice(image)))
        )
        assert cupy.alive  # from its pool
        assert ("order_after", 77, 77, 0) not in calls

    def test_all_of_a_call_is_put_on_the_stream_of_x(self, cupy, calls):
        probs, image = scene()
        picture = Exchanged(np.moveaxis(image, -1, 0).copy())
        term = Bilateral(OnDevice(np.flip(image[..., 0])), 10, 9, 3)
        terms = [Bilateral(None, 20, 12, 4), term]
        x = cupy.ndarray(probs)
        crfseg.refine(x, picture, image_layout="KHW", pairwise=terms)
        assert [stream for stream, _ in picture.asked] == [77, 77]
        assert ("order_after", 77, 0, 0) in calls  # OnDevice says that it is made on stream 1
        assert {call[1:] for call in calls if call[0] == "convert"} == {(0, 77)}
        assert calls[-1] == ("synchronize", 0)  # other libraries may use their memory again

    def test_nothing_waits_for_one_library_alone(self, cupy, calls):
        probs, image = scene()
        crfseg.refine(cupy.ndarray(probs), cupy.ndarray(image))
        crfseg.refine(cupy.ndarray(probs), image)
        assert not [call for call in calls if call[0] == "synchronize"]


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

    def test_masked_misaligned_and_foreign_numbers(self):
        probs, image = scene()

        class Masked(OnDevice):
            @property
            def __cuda_array_interface__(self):
                return {**super().__cuda_array_interface__, "mask": self}

        with pytest.raises(TypeError, match="masked"):
            crfseg.refine(Masked(probs), image)
        odd = np.frombuffer(b"." + probs.tobytes(), np.uint8)[1:].view(np.float32)
        if odd.ctypes.data % 4 == 0:  # wherever bytes come to lie
            odd = np.frombuffer(b".." + probs.tobytes(), np.uint8)[2:].view(np.float32)
        with pytest.raises(ValueError, match="x lies between the addresses"):
            crfseg.refine(OnDevice(odd.reshape(probs.shape)), image)
        with pytest.raises(TypeError, match="native byte order"):
            crfseg.refine(OnDevice(probs.astype(probs.dtype.newbyteorder())), image)

    def test_what_cannot_be_told_apart_is_parted(self):
        probs, _ = scene()
        image = np.random.default_rng(2).random((*probs.shape[1:], 10)).astype(np.float32)
        batch = np.stack([probs] * 4)
        options = {"bilateral": (10, 0.379, 3), "spatial": None}
        found = values_of(crfseg.refine(OnDevice(batch), image, **options))
        alone = values_of(crfseg.refine(OnDevice(probs), image, **options))
        np.testing.assert_array_equal(found, np.stack([alone] * 4))
        with pytest.raises(ValueError, match=r"sigma_rgb = 0\.01 is too small"):
            crfseg.refine(OnDevice(probs), image, bilateral=(10, 0.01, 3))

    def test_what_devices_have_not(self):
        probs, image = scene()
        with pytest.raises(ValueError, match=r"solver.*CPU memory alone"):
            crfseg.refine(OnDevice(probs), image, solver="frank-wolfe")
        terms = [Gaussian(2 + i, 1) for i in range(9)]
        many = np.full((1100, 4, 4), 1 / 1100, np.float32)
        with pytest.raises(ValueError, match=r"1100 labels.*at most 1024"):
            crfseg.refine(OnDevice(many), image[:4, :4])
        with pytest.raises(ValueError, match=r"9 pairwise terms.*at most 8"):
            crfseg.refine(OnDevice(probs), image, pairwise=terms)

    def test_an_image_on_a_device_beside_scores_that_are_not(self):
        probs, image = scene()
        with pytest.raises(ValueError, match="image is on device"):
            crfseg.refine(probs, Exchanged(image))
        with pytest.raises(ValueError, match="features is on device"):
            Features(Exchanged(probs.reshape(4, -1).T), 1.0)


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
