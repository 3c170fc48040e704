"""Argument sets and function bodies that refer to blobs: form B of docs/payloads.md."""

import json
import mmap
import os
import struct

from farcall_payloads import EnvironmentFailure, LoadFailure

_HEAD = struct.Struct("<c3xI")
_ENTRY = struct.Struct("<64sQ")
_LENGTH = struct.Struct("<I")


def split(data):
    """(blobs as (hash, size), places, the rest). Raises LoadFailure."""
    try:
        view = memoryview(data)
        _mark, count = _HEAD.unpack_from(view)
        at = _HEAD.size
        blobs = []
        for _ in range(count):
            name, size = _ENTRY.unpack_from(view, at)
            blobs.append((name.decode("ascii"), size))
            at += _ENTRY.size
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        places = json.loads(bytes(view[at : at + length]).decode("utf-8"))
        return blobs, places, view[at + length :]
    except (struct.error, ValueError) as error:
        raise LoadFailure("a list of blobs is not what docs/payloads.md says: %s" % error) from None


def open_blob(blob, files):
    """The bytes of a blob, as a view of its file: pages are read when they are touched, once for all
    workers of a node, and a change stays with the worker that makes it. Raises EnvironmentFailure."""
    name, size = blob
    path = files.get(name)
    try:
        if path is None:
            raise OSError("the pilot named no file")
        if size == 0:
            return memoryview(b"")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(fd).st_size
            if found != size:
                raise OSError("the file has %d bytes, expected %d" % (found, size))
            return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_COPY))
        finally:
            os.close(fd)
    except OSError as error:
        raise EnvironmentFailure("blob %s cannot be read on this node: %s (%s)" % (name, error, path)) from None


def body_of(data, files):
    """The bytes of a function's body."""
    if bytes(data[:1]) != b"B":
        return data
    blobs, _places, _rest = split(data)
    return open_blob(blobs[0], files)
