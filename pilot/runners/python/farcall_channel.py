"""Messages over a stream socket: how the pilot talks to the template process and to its workers.

One message is two little-endian 32-bit lengths, then as many bytes of header, then as many bytes of
binary data (the body, often empty). A header is a JSON object, or packed for what is said for every
task (RUN and DONE), which then does not begin with a brace.
"""

import _thread
import array
import json
import os
import select
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


def pack(header, *body):
    """The bytes of one message; its body in any number of pieces."""
    head = json.dumps(header, separators=(",", ":")).encode("utf-8")
    return b"".join((_LENGTHS.pack(len(head), sum(map(len, body))), head, *body))


class Channel:
    """Blocking reader and writer of messages. One thread may read, any may send."""

    def __init__(self, sock):
        self.socket = sock
        self.fds = deque()  # received beside messages, in order; the taker closes them
        self._sending = _thread.allocate_lock()
        self._buffer = bytearray()
        self._position = 0  # of the first byte that is not parsed yet
        self._large = None  # the body of the message whose head is all that the buffer holds

    def send(self, header, *body):
        """Writes one message. Raises OSError when the other side is gone."""
        self._send(json.dumps(header, separators=(",", ":")).encode("utf-8"), body)

    def send_done(self, failure_class, sequence, started_ms, ended_ms, *data):
        """Writes a DONE message. Raises OSError when the other side is gone."""
        self._send(DONE.pack(b"D", failure_class, sequence, started_ms, ended_ms), data)

    def _send(self, head, body):
        """Large pieces of a body go out from where they lie."""
        lengths = _LENGTHS.pack(len(head), sum(map(len, body)))
        with self._sending:
            if all(len(piece) <= _READ_BYTES for piece in body):
                self.socket.sendall(b"".join((lengths, head, *body)))
                return
            self.socket.sendall(lengths + head)
            for piece in body:
                self.socket.sendall(piece)

    def buffered(self):
        """The next complete message that was read already, as (header, body), or None. A packed
        header is given as bytes; a large body is a bytearray of its own, which the taker may change."""
        buffer, start = self._buffer, self._position
        have = len(buffer) - start
        if have < _LENGTHS.size:
            return None
        head_size, body_size = _LENGTHS.unpack_from(buffer, start)
        large, self._large = self._large, None
        if large is None and have < _LENGTHS.size + head_size + body_size:
            return None
        head_start = start + _LENGTHS.size
        body_start = head_start + head_size
        end = body_start + (body_size if large is None else 0)
        if head_size and buffer[head_start] != _BRACE:
            header = bytes(buffer[head_start:body_start])
        else:
            header = _loads(buffer[head_start:body_start])
        body = large if large is not None else bytes(memoryview(buffer)[body_start:end]) if body_size else b""
        if end == len(buffer):
            self._buffer, self._position = bytearray(), 0
        else:
            self._position = end
        return header, body

    def read(self):
        """Waits for bytes and takes them in. False when the other side has closed."""
        self._compact()
        body_start, body_size = self._expected()
        if body_size > _READ_BYTES and len(self._buffer) >= body_start:
            return self._read_large(body_start, body_size)
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

    def readable(self):
        """More can be read without waiting."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def _expected(self):
        """Where the body of the message at the start of the buffer begins, and its size."""
        if len(self._buffer) < _LENGTHS.size:
            return 0, 0
        head_size, body_size = _LENGTHS.unpack_from(self._buffer, 0)
        return _LENGTHS.size + head_size, body_size

    def _read_large(self, body_start, body_size):
        """The rest of a message straight to where its body will stay."""
        body = bytearray(body_size)
        have = len(self._buffer) - body_start
        body[:have] = memoryview(self._buffer)[body_start:]
        del self._buffer[body_start:]
        with memoryview(body) as view:
            while have < body_size:
                got = self.socket.recv_into(view[have:])
                if not got:
                    return False
                have += got
        self._large = body
        return True

    def _compact(self):
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
