"""A TCP connection that a test can cut: counts what goes through, and closes it on demand."""

import socket
import threading


class Proxy:
    """Listens on a free port and passes everything on to `target` (tcp://host:port)."""

    def __init__(self, target):
        host, port = target.removeprefix("tcp://").rsplit(":", 1)
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._open = []
        self.up = self.down = 0  # bytes to the target, and from it
        self._cut_at = None
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "tcp://127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_every(self, total):
        """Cuts whenever so many more bytes have gone through, in both directions together."""
        self._every = total
        self._cut_at = self.up + self.down + total

    def cut(self):
        with self._lock:
            open_now, self._open = self._open, []
            self.cuts += 1
        for one in open_now:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, "up"), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, "down"), daemon=True).start()

    def _pass(self, source, sink, direction):
        try:
            while data := source.recv(256 * 1024):
                sink.sendall(data)
                with self._lock:
                    setattr(self, direction, getattr(self, direction) + len(data))
                    due = self._cut_at is not None and self.up + self.down >= self._cut_at
                    if due:
                        self._cut_at = self.up + self.down + self._every
                if due:
                    self.cut()
        except OSError:
            pass
        finally:
            for one in (source, sink):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
