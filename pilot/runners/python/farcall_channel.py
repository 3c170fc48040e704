"""Messages over a stream socket: how the pilot talks to the template process and to its workers.

One message is two little-endian 32-bit lengths, then as many bytes of header, then as many bytes of
binary data (the body, often empty). A header is a JSON object, or packed for what is said for every
task (RUN and DONE), which then does not begin with a brace.
"""

import array
import json
import os
import socket
import struct
from collections import deque

_LENGTHS = struct.Struct("<II")
RUN = struct.Struct("<cQIIH36s")  # b"R", sequence, numbers of function and environment, attempt, task
DONE = struct.Struct("<cBQqq")  # b"D", number of the failure class, sequence, begin and end in ms
_BRACE = ord("{")
_READ_BYTES = 64 * 1024
_FDS_MAX = 64  # in one recvmsg; the pilot sends one per message

_loads = json.loads


def pack(header, body=b""):
    """The bytes of one message."""
    head = json.dumps(header, separators=(",", ":")).encode("utf-8")
    return b"".join((_LENGTHS.pack(len(head), len(body)), head, body))


class Channel:
    """Blocking reader and writer of messages. Not for several threads."""

    def __init__(self, sock):
        self.socket = sock
        self.fds = deque()  # received beside messages, in order; the taker closes them
        self._buffer = bytearray()
        self._position = 0  # of the first byte that is not parsed yet

    def send(self, header, body=b""):
        """Writes one message. Raises OSError when the other side is gone."""
        self.socket.sendall(pack(header, body))

    def send_done(self, failure_class, sequence, started_ms, ended_ms, data):
        """Writes a DONE message. Raises OSError when the other side is gone."""
        head = DONE.pack(b"D", failure_class, sequence, started_ms, ended_ms)
        self.socket.sendall(b"".join((_LENGTHS.pack(DONE.size, len(data)), head, data)))

    def buffered(self):
        """The next complete message that was read already, as (header, body), or None. A packed
        header is given as bytes."""
        buffer, start = self._buffer, self._position
        have = len(buffer) - start
        if have < _LENGTHS.size:
            return None
        head_size, body_size = _LENGTHS.unpack_from(buffer, start)
        if have < _LENGTHS.size + head_size + body_size:
            return None
        head_start = start + _LENGTHS.size
        body_start = head_start + head_size
        end = body_start + body_size
        if head_size and buffer[head_start] != _BRACE:
            header = bytes(buffer[head_start:body_start])
        else:
            header = _loads(buffer[head_start:body_start])
        body = bytes(memoryview(buffer)[body_start:end]) if body_size else b""
        if end == len(buffer):
            self._buffer, self._position = bytearray(), 0
        else:
            self._position = end
        return header, body

    def read(self):
        """Waits for bytes and takes them in. False when the other side has closed."""
        self._compact()
        missing = self._missing()
        if missing > _READ_BYTES:
            return self._read_exactly(missing)
        data = self.socket.recv(_READ_BYTES)
        self._buffer += data
        return bool(data)

    def read_with_fds(self):
        """Like read(), and puts file descriptors that came along into `fds`."""
        self._compact()
        item = array.array("i")
        space = socket.CMSG_SPACE(_FDS_MAX * item.itemsize)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        data, ancillary, _flags, _address = self.socket.recvmsg(_READ_BYTES, space, flags)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                for fd in fds:
                    os.set_inheritable(fd, False)
                    self.fds.append(fd)
        self._buffer += data
        return bool(data)

    def _missing(self):
        """Bytes that the message which begins in the buffer still lacks; 0 when not known."""
        if len(self._buffer) < _LENGTHS.size:
            return 0
        head_size, body_size = _LENGTHS.unpack_from(self._buffer, 0)
        return _LENGTHS.size + head_size + body_size - len(self._buffer)

    def _read_exactly(self, count):
        start = len(self._buffer)
        self._buffer += bytes(count)
        with memoryview(self._buffer) as view:
            while count:
                got = self.socket.recv_into(view[start : start + count])
                if not got:
                    return False
                start += got
                count -= got
        return True

    def _compact(self):
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
