"""Arrays on disk: the same bytes on every machine, and never more unpacked than was announced."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
from LesionRetrievalLib.library.arrays import PackedArrayError, array_bytes, array_from_bytes, packed, unpacked


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_an_array_comes_back_as_it_was_from_whatever_byte_order(dtype):
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5)).astype(dtype)
    for given in (array, array.astype(array.dtype.newbyteorder(">")), np.asfortranarray(array)):
        again = unpacked(packed(given), dtype=dtype, shape=array.shape, most=60)
        np.testing.assert_array_equal(again, array)
        assert again.dtype == np.dtype(dtype)
        assert again.flags.writeable


def test_bytes_are_little_endian_in_rows():
    assert array_bytes(np.array([[1, 2], [3, 256]], ">i2").T) == bytes([1, 0, 3, 0, 2, 0, 0, 1])


def test_a_bomb_is_not_unpacked_beyond_what_was_announced():
    bomb = zlib.compress(bytes(64 << 20), 9)
    sizes = []
    real = zlib.decompressobj

    class Watching:
        def __init__(self):
            self._inner = real()

        def decompress(self, content, most):
            values = self._inner.decompress(content, most)
            sizes.append(len(values))
            return values

        def __getattr__(self, name):
            return getattr(self._inner, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules["LesionRetrievalLib.library.arrays"].zlib, "decompressobj", Watching)
        with pytest.raises(PackedArrayError, match="of another size than announced"):
            unpacked(bomb, dtype="int16", shape=(2, 3), most=100)
    assert sizes == [13]


@pytest.mark.parametrize("shape", [(101,), (0, 5), (-1, 5), (10, 11)])
def test_more_values_than_allowed_or_none_are_refused_unread(shape):
    with pytest.raises(PackedArrayError, match="larger than the 100 values that are allowed"):
        unpacked(b"not even zlib", dtype="uint8", shape=shape, most=100)


@pytest.mark.parametrize("spoil", [lambda b: b[:-3], lambda b: b + b"more", lambda b: b"y" + b[1:], lambda _: b""])
def test_spoiled_bytes_are_refused(spoil):
    content = packed(np.arange(6, dtype=np.int16))
    with pytest.raises(PackedArrayError, match="damaged"):
        unpacked(spoil(content), dtype="int16", shape=(6,), most=6)


@pytest.mark.parametrize("shape", [(-2, -3), (-1, 6, -1), ("2", 3), (2.0, 3), (None, 6), (1,) * 40 + (6,)])
def test_a_shape_that_no_array_has_is_refused_before_numpy_sees_it(shape):
    with pytest.raises(PackedArrayError, match="are no uint8 array of"):
        array_from_bytes(bytes(6), dtype="uint8", shape=shape)
    with pytest.raises(PackedArrayError, match="values that are allowed"):
        unpacked(packed(np.zeros(6, np.uint8)), dtype="uint8", shape=shape, most=100)


def test_raw_bytes_of_another_length_are_refused():
    with pytest.raises(PackedArrayError, match="5 bytes are no int16 array of 2 x 3"):
        array_from_bytes(bytes(5), dtype="int16", shape=(2, 3))
