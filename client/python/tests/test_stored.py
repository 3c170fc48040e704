"""What becomes a blob, and what stands in its place."""

import hashlib

import pytest

import farcall
from farcall import stored
from farcall.serialization import serialize_arguments


class Shelf:
    def __init__(self):
        self.kept = {}

    def __call__(self, parts):
        content = b"".join(bytes(part) for part in parts)
        name = hashlib.blake2b(content, digest_size=32).hexdigest()
        self.kept[name] = content
        return farcall.StoredValue(name, len(content))


def arguments(*args, **kwargs):
    shelf = Shelf()
    return stored.arguments_with_blobs(args, kwargs, None, shelf, 1000), shelf


def test_small_arguments_are_as_they_were():
    data, shelf = arguments(1, "two", k=[3])
    assert data == serialize_arguments((1, "two"), {"k": [3]}, None) and not shelf.kept


def test_each_large_argument_is_a_blob_and_the_same_one_is_named_once():
    one, two = b"x" * 2000, "y" * 3000
    data, shelf = arguments(one, 5, two, again=one)
    blobs, places, rest = stored.unpack(data)
    assert len(blobs) == 2 and places == [[0, 0], [1, 2], [0, "again"]]
    assert bytes(rest) == serialize_arguments((None, 5, None), {"again": None}, None)
    assert sorted(shelf.kept) == sorted(name for name, _size in blobs)


def test_many_small_ones_that_are_large_together_are_one_blob():
    data, shelf = arguments(*range(2000))
    ((name, size),), places, rest = stored.unpack(data)
    assert places == [[0, None]] and not rest
    assert shelf.kept[name] == serialize_arguments(tuple(range(2000)), {}, None) and size == len(shelf.kept[name])


def test_containers_are_looked_into():
    data, shelf = arguments({"a": [b"x" * 900, b"y" * 900]})
    assert stored.unpack(data)[1] == [[0, 0]]
    assert stored.size_of([[[[[b"x" * 5000]]]]]) == 0  # too deep: the rest as a whole is a blob then
    data, shelf = arguments([[[[[b"x" * 5000]]]]])
    assert stored.unpack(data)[1] == [[0, None]]


def test_every_cut_of_the_list_is_found():
    data, _shelf = arguments(b"x" * 2000)
    for size in range(8, 8 + 72 + 4):
        with pytest.raises(ValueError):
            stored.unpack(data[:size])


def test_a_stored_value_is_an_argument_of_its_own():
    value = farcall.StoredValue("a" * 64, 10)
    assert stored.unpack(arguments(value, 1)[0])[0] == [("a" * 64, 10)]
    with pytest.raises(farcall.SerializationError, match="has to be an argument of its own, not a part of another one"):
        arguments([value])
