import collections
import datetime
import json
import math
import pickle
import random
import struct
import sys
from pathlib import Path

import pytest

numpy = pytest.importorskip("numpy")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from farcall_values import dump_value, load_value  # noqa: E402


def payload(value):
    return bytearray(b"".join(dump_value(value)))


def back(value):
    data = payload(value)
    assert data[:1] == b"N"
    return load_value(data)


def same(left, right):
    assert type(left) is type(right)
    if isinstance(left, numpy.ndarray):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert left.tolist() == right.tolist() if left.dtype.hasobject else left.tobytes() == right.tobytes()
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for one, other in zip(left.values(), right.values()):
            same(one, other)
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right):
            same(one, other)
    elif isinstance(left, float) and math.isnan(left):
        assert math.isnan(right)
    else:
        assert left == right


def test_what_holds_no_numpy_stays_a_pickle():
    for value in (1, 2.5, "numpyish", [1, {"a": (2, b"x")}], None, datetime.date(2020, 1, 1)):
        data = payload(value)
        if data[:1] == b"P":
            assert pickle.loads(data[1:]) == value
        else:
            same(load_value(data), value)  # a text that says numpy


@pytest.mark.parametrize("dtype", "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16 S3 U4 M8[ns] m8[s] >i4 >f8".split())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (2, 0)])
def test_arrays_of_every_kind_come_back_the_same_and_can_be_changed(dtype, shape):
    array = numpy.frombuffer(random.Random(1).randbytes(8192), "u1")[: int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize]
    array = (array % 2 if dtype in ("b1", "S3", "U4") else array).copy()
    if dtype in ("S3", "U4"):
        array = numpy.full(shape, "ab", dtype)
    else:
        array = array.view(dtype).reshape(shape)
    got = back(array)
    same(got, array)
    assert got.flags.writeable and got.flags.aligned
    same(back({"x": [array, 1]}), {"x": [array, 1]})


def test_nested_values_with_everything_in_them():
    array = numpy.arange(12.0).reshape(3, 4)
    Point = collections.namedtuple("Point", "x y")
    globals()["Point"], Point.__module__, Point.__qualname__ = Point, __name__, "Point"
    value = {
        "u": array, "t": (1, 2.5, "ü", None, True), "nan": math.nan, "inf": [-math.inf, math.inf],
        "big": 2**80, "bytes": b"\x00\xff", "keys": {1: array[:, 1], "$a": 3, (2, 3): 4}, "$d": 5,
        "when": datetime.datetime(2020, 2, 3), "point": Point(1, 2), "f4": numpy.float32(0.1), "i": numpy.int16(-3),
        "flag": numpy.bool_(True), "nanf": numpy.float64("nan"), "c": 3j, "set": {1, 2}, "deep": [[[{"a": array.T}]]],
    }  # fmt: skip
    got = back(value)
    same({k: v for k, v in got.items() if k not in ("nanf", "deep")}, {k: v for k, v in value.items() if k not in ("nanf", "deep")})
    assert type(got["nanf"]) is numpy.float64 and numpy.isnan(got["nanf"])
    assert (got["deep"][0][0][0]["a"] == array.T).all()
    same(back({"$a": array}), {"$a": array})


def test_what_is_met_twice_is_one_thing_again():
    array, row = numpy.arange(3), [1, 2]
    got = back([array, array])
    assert got[0] is got[1]
    got = back({"a": row, "b": row, "u": array})
    assert got["a"] is got["b"]
    ring = [array]
    ring.append(ring)
    got = back(ring)
    assert got[1] is got and (got[0] == array).all()


def test_many_bytes_are_not_mistaken_for_each_other():
    value = [numpy.arange(2)] + [bytes([n]) * n for n in range(200)]
    same(back(value), value)


def test_fallbacks_keep_the_value():
    deep = numpy.arange(2)
    for _ in range(200):
        deep = [deep]
    got = back(deep)
    for _ in range(200):
        got = got[0]
    assert (got == [0, 1]).all()
    same(back({"\ud800": numpy.arange(2)}), {"\ud800": numpy.arange(2)})
    many = back([numpy.arange(2)] + list(range(200000)))
    assert many[-1] == 199999
    masked = back(numpy.ma.masked_array([1, 2], [True, False]))
    assert type(masked) is numpy.ma.MaskedArray and list(masked.mask) == [True, False]
    records = numpy.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])
    same(back([records]), [records])
    same(back(numpy.array([1, None, "x"], dtype=object)), numpy.array([1, None, "x"], dtype=object))


def test_no_copy_on_either_side():
    array = numpy.zeros(1 << 16)
    parts = dump_value({"u": array})
    assert any(len(part) == array.nbytes and numpy.shares_memory(numpy.frombuffer(part, "u1"), array) for part in parts)
    data = bytearray(b"".join(parts))
    assert numpy.shares_memory(load_value(data)["u"], numpy.frombuffer(data, "u1"))
    read_only = load_value(bytes(data))["u"]
    read_only[0] = 1  # copied, so that it can be changed
    head = json.loads(data[8 : 8 + struct.unpack_from("<I", data, 4)[0]])
    assert head == {"value": {"u": {"$a": 0}}, "arrays": [["<f8", [65536]]], "sizes": [array.nbytes]}


def test_damaged_payloads_are_errors():
    data = bytes(payload({"u": numpy.arange(4)}))
    for size in range(1, len(data)):
        with pytest.raises((ValueError, struct.error)):
            load_value(data[:size])


def test_a_pandas_frame_goes_by_its_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"t": numpy.arange(4.0), "n": numpy.arange(4, dtype="i4"), "ok": [True, False, True, True], "name": ["a", "ü", "", "d"]}
    )
    frame["when"] = pandas.to_datetime(["2020-01-01", "2021-02-03", None, "2022-01-01"])
    for index in (None, [3, 1, 2, 9], [0.5, 1.5, 2.5, 3.5], ["w", "x", "y", "z"]):
        one = frame if index is None else frame.set_axis(index)
        data = payload({"frame": one, "n": 1})
        assert b'"$frame"' in data and b"pandas" not in data
        found = load_value(data)["frame"]
        pandas.testing.assert_frame_equal(found, one)
        found.loc[found.index[0], "t"] = 7.0  # it can be changed


def test_other_pandas_frames_come_back_by_pickle():
    pandas = pytest.importorskip("pandas")
    plain = pandas.DataFrame({"a": [1.0, 2.0]})
    mixed = pandas.DataFrame({"a": ["x", None]})
    for frame in (
        plain.rename_axis("rows"),
        plain.rename(columns={"a": 1}),
        mixed,
        plain.set_axis(pandas.MultiIndex.from_tuples([(1, 2), (1, 3)])),
        plain.astype("category"),
        pandas.DataFrame({"t": pandas.date_range("2020", periods=2, tz="UTC")}),
        pandas.DataFrame(),
    ):
        pandas.testing.assert_frame_equal(back([frame, numpy.zeros(1)])[0], frame)
