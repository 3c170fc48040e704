"""Parts of arrays that stay at their endpoint equal numpy's, whatever the part."""

import itertools
import json
import random

import pytest

numpy = pytest.importorskip("numpy")
import farcall  # noqa: E402
from farcall import remote  # noqa: E402
from farcall.stored import StoredValue, pack  # noqa: E402

TASK = "0190b0a0-0000-7000-8000-000000000001"


class Endpoint:
    """Answers task.read as the interchange does, from a payload in memory."""

    def __init__(self, array, limit=8 << 20):
        self.head = b"N" + bytes(127)
        self.payload = self.head + array.tobytes()
        self.limit, self.moved, self.calls = limit, 0, 0
        places = [[0, None, {"dtype": array.dtype.str, "shape": list(array.shape), "offset": len(self.head)}]]
        self.data = pack([StoredValue("a" * 64, len(self.payload))], places, b"")

    def call(self, method, parameters):
        assert method == "task.read"
        wanted = json.loads(parameters)
        out = bytearray()
        for counters in itertools.product(*map(range, wanted["counts"])):
            at = wanted["offset"] + sum(c * s for c, s in zip(counters, wanted["strides"]))
            assert len(self.head) <= at and at + wanted["run"] <= len(self.payload)
            out += self.payload[at : at + wanted["run"]]
        assert len(out) <= self.limit
        self.moved += len(out)
        self.calls += 1
        return "{}", [bytes(out)]


def reference(array, limit=8 << 20):
    endpoint = Endpoint(array, limit)
    return farcall.RemoteResult(endpoint, TASK, endpoint.data), endpoint


def some_key(chance, shape):
    key = []
    for size in shape[: chance.randint(0, len(shape))]:
        if size and chance.random() < 0.25:
            key.append(chance.randrange(-size, size))
        else:
            ends = [chance.choice([None, chance.randint(-size - 2, size + 2)]) for _ in range(2)]
            key.append(slice(*ends, chance.choice([None, 1, 2, 3, 7, -1, -2])))
    if chance.random() < 0.3:
        key.insert(chance.randint(0, len(key)), Ellipsis)
    return tuple(key) if len(key) != 1 or chance.random() < 0.5 else key[0]


@pytest.mark.parametrize("seed", range(4))
def test_random_parts_equal_numpys_and_move_their_bytes_alone(seed, monkeypatch):
    chance = random.Random(seed)
    for _ in range(300):
        monkeypatch.setattr(remote, "_PIECES_MAX", chance.choice([16, 64, 1000, 8 << 20]))
        shape = tuple(chance.randint(0, 9) for _ in range(chance.randint(1, 4)))
        kind = chance.choice(["<f8", ">i4", "|i1", "<c16", "|S5", "<u2"])
        content = chance.randbytes(int(numpy.prod(shape)) * numpy.dtype(kind).itemsize)
        array = (numpy.frombuffer(content, kind) if content else numpy.empty(0, kind)).reshape(shape)
        ref, endpoint = reference(array)
        key = some_key(chance, shape)
        try:
            expected = array[key]
        except IndexError:  # the ellipsis has moved a number to a shorter dimension
            with pytest.raises(IndexError):
                ref[key]
            continue
        found = ref[key]
        assert found.shape == expected.shape, key
        assert found.dtype == expected.dtype or not expected.shape, key  # numpy's numbers are native
        assert numpy.asarray(found, expected.dtype).tobytes() == expected.tobytes(), (shape, key)
        assert endpoint.moved == expected.nbytes, (shape, key)


def test_what_it_says_of_itself():
    ref, endpoint = reference(numpy.zeros((4, 5), "<f4"))
    assert (ref.shape, ref.dtype, ref.nbytes, len(ref)) == ((4, 5), numpy.dtype("f4"), 80, 4)
    assert "float32 array of shape (4, 5)" in repr(ref)
    assert endpoint.calls == 0


def test_a_large_part_comes_in_several_answers():
    array = numpy.arange(5_000_000, dtype="<f8").reshape(1000, 5000)
    ref, endpoint = reference(array)
    assert (ref[100:900] == array[100:900]).all()
    assert endpoint.calls == 4 and endpoint.moved == 800 * 5000 * 8


def test_other_indices_are_refused_as_numpy_refuses_them():
    ref, _endpoint = reference(numpy.zeros((4, 5)))
    with pytest.raises(IndexError, match="index 4 is out of bounds for axis 0 with size 4"):
        ref[4]
    with pytest.raises(IndexError, match="too many indices: the array has 2 dimensions, 3 were indexed"):
        ref[0, 0, 0]
    with pytest.raises(TypeError, match="indexed with numbers and slices, got \\[1, 2\\]: fetch"):
        ref[[1, 2]]


def test_a_small_result_is_here():
    ref = farcall.RemoteResult(None, TASK, b'J{"a": 1}')
    assert ref.fetch() == {"a": 1} and ref.shape is None
    ref.delete()
    with pytest.raises(TypeError, match="is no array that can be read in parts: fetch"):
        ref[0]
