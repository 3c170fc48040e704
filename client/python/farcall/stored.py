"""Large arguments: brought to the relay once, and named by their hash in the argument sets."""

import json
import struct
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .errors import SerializationError
from .serialization import serialize_arguments, value_parts

#: What is larger goes as a blob of its own.
INLINE_BYTES_MAX = 64 * 1024
_DEPTH_MAX = 4
_ITEMS_MAX = 1000  # of a container that are looked at
_HEAD = struct.Struct("<c3xI")
_ENTRY = struct.Struct("<64sQ")
_LENGTH = struct.Struct("<I")

Store = Callable[[Sequence[Any]], "StoredValue"]


class StoredValue:
    """A value that the relay keeps, from ``Client.put()``: give it as an argument of any number of
    tasks, and it travels to their endpoint once. ``hash``: of its bytes; ``nbytes``: how many. The
    relay keeps it for an hour after the last task that needs it."""

    __slots__ = ("hash", "nbytes")

    def __init__(self, hash: str, nbytes: int):
        self.hash = hash
        self.nbytes = nbytes

    def __repr__(self) -> str:
        return "<StoredValue %s… of %d bytes>" % (self.hash[:12], self.nbytes)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, StoredValue) and (self.hash, self.nbytes) == (other.hash, other.nbytes)

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> Any:
        raise SerializationError("%r has to be an argument of its own, not a part of another one" % (self,))


def arguments_with_blobs(
    args: Tuple,
    kwargs: Dict[str, Any],
    strategy: Optional[str],
    store: Store,
    limit: int = INLINE_BYTES_MAX,
    store_file: Optional[Callable[[Any], StoredValue]] = None,
) -> bytes:
    """The bytes of an argument set; what is larger than ``limit``, and files, have been stored and
    are named by it. Raises SerializationError, and what ``store`` and ``store_file`` raise."""
    blobs: List[StoredValue] = []
    places: List[List[Any]] = []
    names: Dict[str, Any] = {}

    def one(place: Any, value: Any) -> Any:
        if store_file is not None and place_file(place, value, blobs, places, names, store_file):
            return None
        at_endpoint = getattr(value, "_farcall_result", None)  # of a RemoteResult
        if at_endpoint is not None:
            name = at_endpoint()
            if name is None:
                return one(place, value.fetch())
            places.append([name, place])
            return None
        if not isinstance(value, StoredValue):
            if size_of(value) <= limit:
                return value
            value = store(value_parts(value, strategy))
        if value not in blobs:
            blobs.append(value)
        places.append([blobs.index(value), place])
        return None

    rest_args = tuple(one(place, value) for place, value in enumerate(args))
    rest_kwargs = {place: one(place, value) for place, value in kwargs.items()}
    rest = serialize_arguments(rest_args, rest_kwargs, strategy)
    if len(rest) > limit:
        places.append([len(blobs), None])
        blobs.append(store([rest]))
        rest = b""
    return pack(blobs, places, rest) if places else rest


def place_file(
    place: Any, value: Any, blobs: List[StoredValue], places: List[List[Any]], names: Dict[str, Any], store_file: Callable[[Any], StoredValue]
) -> Optional[str]:
    """Notes a File or RemoteFile in an argument set and returns its name there; None: it is none.
    Raises SerializationError."""
    what = getattr(value, "_farcall_what", None)
    at_endpoint = getattr(value, "_farcall_file", None)
    if what is None and at_endpoint is None:
        return None
    number: Any
    if what is not None:
        stored, said = store_file(value), what()
        if stored not in blobs:
            blobs.append(stored)
        number = blobs.index(stored)
    else:
        number, said = at_endpoint()
    if names.setdefault(said["file"], number) != number:
        raise SerializationError("two files of a task are called %s: give one of them another name, File(path, name=…)" % said["file"])
    places.append([number, place, said])
    return said["file"]


def pack(blobs: Sequence[StoredValue], places: Sequence[Sequence[Any]], rest: bytes) -> bytes:
    """Form B of docs/payloads.md."""
    text = json.dumps(places, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    entries = [_ENTRY.pack(blob.hash.encode("ascii"), blob.nbytes) for blob in blobs]
    return b"".join([_HEAD.pack(b"B", len(blobs)), *entries, _LENGTH.pack(len(text)), text, rest])


def unpack(data: bytes) -> Tuple[List[Tuple[str, int]], List[List[Any]], memoryview]:
    """(blobs as (hash, size), places, the rest) of form B. Raises ValueError."""
    try:
        view = memoryview(data)
        _mark, count = _HEAD.unpack_from(view)
        at = _HEAD.size
        blobs = [_ENTRY.unpack_from(view, at + i * _ENTRY.size) for i in range(count)]
        at += count * _ENTRY.size
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        places = json.loads(bytes(view[at : at + length]).decode("utf-8"))
        return [(name.decode("ascii"), size) for name, size in blobs], places, view[at + length :]
    except struct.error as error:
        raise ValueError("no whole list of blobs: %s" % error) from None


def size_of(value: Any, depth: int = 0) -> int:
    """Bytes that the large things in a value have, roughly and at once."""
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    if isinstance(value, memoryview):
        return value.nbytes
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, getattr(numpy, "ndarray", ())):
        return value.nbytes
    if depth >= _DEPTH_MAX:
        return 0
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple, set, frozenset)):
        return 0
    total = 0
    for count, item in enumerate(value):
        if count == _ITEMS_MAX:
            break
        total += size_of(item, depth + 1)
    return total
