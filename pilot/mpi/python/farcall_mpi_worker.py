"""The ranks of a pool: run MPI functions on sub-communicators, and wait outside MPI for the next one.

Started by mpirun as one job. Rank 0 only passes messages on: from the pilot, whose socket it opens, to
the other ranks, which open one to it, and back. A rank without a task sleeps in read(), so that it
takes no time from anybody; the ranks of a task make a communicator of their own (no other rank takes
part), call the function with it and free it.

Messages, framed as farcall_channel.py says:

    from the pilot  {"op": "function", "id", "kind", "name", "meta"} + body
                    {"op": "run", "key", "task", "attempt", "function", "ranks", "cores", "gpus", "env", "cwd", "blobs", "only_here", "result", "tag"}
                    + arguments; cores and gpus have an entry for each of the ranks; only_here: hashes of
                    blobs that only the node of the first rank sees; result: "root", "all" or "array"
    to the pilot    {"op": "hello", "pool", "token"}
                    {"op": "done", "key", "state", "class", "started_ms", "ended_ms"} + data of the task
                    {"op": "freed", "key"} when every rank of it is free, after a failure
                    {"op": "gone", "rank"}
"""

import fcntl
import os
import secrets
import selectors
import socket
import struct
import sys
import time
import traceback

import mpi4py

mpi4py.rc.threads = False
import farcall_mpi_arrays  # noqa: E402
from farcall_channel import Channel, pack  # noqa: E402
from farcall_functions import Functions, load_arguments  # noqa: E402
from farcall_mpi_native import NativeFunction  # noqa: E402
from farcall_payloads import (  # noqa: E402
    EnvironmentFailure,
    dump_result,
    failure,
    keep_large_results_in,
    keep_or_send,
    results_are_kept,
    task_directory,
    with_outputs,
)
from farcall_worker import Environment  # noqa: E402
from mpi4py import MPI  # noqa: E402

_CONNECT_SECONDS_MAX = 10
_SIOCGIFADDR = 0x8915
_TAGS = 32767  # as many as MPI promises
_PIECE_BYTES = 16 * 1024 * 1024  # of a blob, at a time
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


def own_addresses():
    """IPv4 addresses of this host's interfaces, those that others can reach first."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _index, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found.append(socket.inet_ntoa(answer[20:24]))
    return sorted(found, key=lambda address: address.startswith("127."))


class FirstRankFailed(Exception):
    """Which says why."""


class NearBlobs:
    """Where this rank finds the blobs of a task: {hash: path} as `files`. Those that only the first rank
    sees, it sends to the others, which keep them in memory until close(). Collective."""

    def __init__(self, comm, blobs, only_here):
        self.files = dict(blobs)
        self._fds = []
        for name in only_here:
            self._share(comm, name)

    def _share(self, comm, name):
        first = comm.Get_rank() == 0
        source, problem = None, None
        if first:
            try:
                source = open(self.files[name], "rb", buffering=0)
            except OSError as error:
                problem = EnvironmentFailure("blob %s cannot be read on this node: %s" % (name, error))
        size = comm.bcast(os.fstat(source.fileno()).st_size if source else -1, root=0)
        if size < 0:
            raise problem if first else FirstRankFailed
        keep = not first and not os.path.exists(self.files[name])
        target = os.memfd_create(name[:32]) if keep else -1
        for at in range(0, size, _PIECE_BYTES):
            piece = bytearray(min(_PIECE_BYTES, size - at))
            if first:
                source.readinto(piece)
            comm.Bcast(piece, root=0)
            if keep:
                os.pwrite(target, piece, at)
        if source:
            source.close()
        if keep:
            self._fds.append(target)
            self.files[name] = "/proc/self/fd/%d" % target

    def close(self):
        for fd in self._fds:
            os.close(fd)


class Dispatcher:
    """Rank 0."""

    def __init__(self, world):
        self._count = world.Get_size() - 1
        listener = socket.create_server(("", 0), backlog=max(128, self._count))
        token = secrets.token_hex(32)
        world.bcast((socket.gethostname(), own_addresses(), listener.getsockname()[1], token), root=0)
        self._selector = selectors.DefaultSelector()
        self._workers = {}
        while len(self._workers) < self._count:
            sock, _address = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = Channel(sock)
            rank = self._greet(channel, token)
            if rank is None:
                sock.close()
                continue
            self._workers[rank] = channel
            self._selector.register(sock, selectors.EVENT_READ, rank)
        listener.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(os.environ["FARCALL_POOL_SOCKET"])
        self._pilot = Channel(sock)
        self._pilot.send({"op": "hello", "pool": int(os.environ["FARCALL_POOL"]), "token": os.environ["FARCALL_POOL_TOKEN"]})
        self._selector.register(sock, selectors.EVENT_READ, 0)
        self._running = {}  # key: how many ranks have not answered
        self._values = {}  # key: the answer of its first rank
        self._failed = set()

    @staticmethod
    def _greet(channel, token):
        """The rank at the other end; None when it is none of ours."""
        channel.socket.settimeout(_CONNECT_SECONDS_MAX)
        try:
            while True:
                message = channel.buffered()
                if message is not None:
                    said = message[0]
                    channel.socket.settimeout(None)
                    return said["rank"] if secrets.compare_digest(str(said.get("token")), token) else None
                if not channel.read():
                    return None
        except (OSError, ValueError, KeyError):
            return None

    def run(self):
        """Until the pilot closes its end; then the ranks' sockets are closed, and they end too."""
        while True:
            for ready, _events in self._selector.select():
                channel = self._workers[ready.data] if ready.data else self._pilot
                if not channel.read():
                    if ready.data == 0:
                        return
                    self._selector.unregister(channel.socket)
                    self._pilot.send({"op": "gone", "rank": ready.data})
                    continue
                message = channel.buffered()
                while message is not None:
                    self._from_worker(ready.data, *message) if ready.data else self._from_pilot(*message)
                    message = channel.buffered()

    def _from_pilot(self, header, body):
        if header["op"] == "run":
            self._running[header["key"]] = len(header["ranks"])
        data = pack(header, body)
        for rank in header["ranks"] if header["op"] == "run" else self._workers:
            try:
                self._workers[rank].socket.sendall(data)
            except OSError:
                pass  # its end is seen when it is read

    def _from_worker(self, _rank, header, body):
        key = header["key"]
        self._running[key] -= 1
        last = self._running[key] == 0
        if header["class"] != "none" and key not in self._failed:
            self._failed.add(key)
            self._pilot.send(header, body)
        elif header.get("value"):
            self._values[key] = (header, body)
        if not last:
            return
        del self._running[key]
        value = self._values.pop(key, None)
        if key in self._failed:
            self._failed.discard(key)
            self._pilot.send({"op": "freed", "key": key})
        elif value is not None:
            self._pilot.send(*value)


class Rank:
    """Every other one."""

    def __init__(self, world):
        self._world = world
        self._rank = world.Get_rank()
        self._group = world.Get_group()
        self._home = os.getcwd()
        self._functions = Functions()
        self._natives = {}
        self._cores = os.sched_getaffinity(0)
        host, addresses, port, token = world.bcast(None, root=0)
        self._channel = Channel(self._connect(host, addresses, port))
        self._channel.send({"rank": self._rank, "token": token})

    @staticmethod
    def _connect(host, addresses, port):
        problems = []
        for address in ["127.0.0.1"] if host == socket.gethostname() else addresses:
            try:
                sock = socket.create_connection((address, port), _CONNECT_SECONDS_MAX)
            except OSError as error:
                problems.append("%s: %s" % (address, error))
                continue
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sys.exit("farcall: rank on %s cannot reach rank 0 of its pool on %s: %s" % (socket.gethostname(), host, "; ".join(problems)))

    def run(self):
        while True:
            message = self._channel.buffered()
            if message is None:
                if not self._channel.read():
                    return
                continue
            header, body = message
            if header["op"] == "function":
                kind = header["meta"].get("code", "python")
                if kind == "native":
                    self._natives[header["id"]] = NativeFunction(header, body)
                else:
                    self._functions.add({**header, "kind": kind, "number": header["id"]}, body)
            else:
                self._serve(header, body)

    def _serve(self, header, arguments):
        started = time.time()
        mine = header["ranks"].index(self._rank)
        saved = self._enter(header, mine)
        try:
            data, failure_class = self._execute(header, arguments)
        finally:
            self._leave(saved)
        answer = {
            "op": "done",
            "key": header["key"],
            "state": "succeeded" if failure_class == "none" else "failed",
            "class": failure_class,
            "started_ms": int(started * 1000),
            "ended_ms": int(time.time() * 1000),
        }
        if mine == 0:
            answer["value"] = True
        self._channel.send(answer, *data)

    def _execute(self, header, arguments):
        environment = Environment(header.get("env") or {})
        keep_large_results_in(header.get("results") or None, header.get("results_gzip", 0))
        try:
            group = self._group.Incl(header["ranks"])
            comm = self._world.Create_group(group, header["tag"] % _TAGS)
            call, dump = self._prepare(header, arguments, environment, comm)
            if header.get("cwd"):
                os.chdir(header["cwd"])
            value = call(comm)
            blobs, places = (), ()
            if header["result"] == "array":
                value, (blobs, places) = self._put_together(comm, value, header)
            elif header["result"] == "all":
                value = comm.gather(value, root=0)
            if environment.outputs:
                comm.Barrier()  # all of them have written what they leave
            first = comm.Get_rank() == 0
            comm.Free()
            group.Free()
            if not first:
                return [], "none"
            return (with_outputs([], environment.outputs, blobs, places) if blobs else dump(value)), "none"
        except FirstRankFailed:
            return [], "none"
        except EnvironmentFailure as error:
            return [failure(error, "environment", header["attempt"])], "environment"
        except BaseException as error:  # pylint: disable=broad-except
            return [failure(error, "user_error", header["attempt"], environment.foreign)], "user_error"
        finally:
            os.chdir(self._home)

    def _put_together(self, comm, part, header):
        """The array that the parts of all ranks make; in a file of the endpoint if it keeps results.
        Collective; what it gives is the first rank's."""
        name = self._functions.get(header["function"]).name
        if results_are_kept():
            return None, farcall_mpi_arrays.store(comm, part, name) or ((), ())
        farcall_mpi_arrays.whole_of(comm, part, name)
        parts = comm.gather(part, root=0)
        return (sys.modules["numpy"].concatenate(parts) if parts else None), ((), ())

    def _prepare(self, header, arguments, environment, comm):
        """What is to be called with the communicator, and what makes data of a value that it returned."""
        if "FARCALL_SANDBOX" in environment.variables and not os.path.isdir(task_directory()):
            raise EnvironmentFailure(
                "%s sees no directory %s, which the first node of the task has made; set working_dir of the endpoint to a directory that all its nodes see"
                % (socket.gethostname(), task_directory())
            )
        near = NearBlobs(comm, header.get("blobs") or {}, header.get("only_here") or [])
        native = self._natives.get(header["function"])
        if native is not None:

            def call(comm):
                try:
                    return native.call(comm, arguments, near.files)
                finally:
                    near.close()

            return call, (lambda data: keep_or_send([data], native, environment.outputs))
        try:
            function = self._functions.get(header["function"], near.files)
            positional, named, kind = self._load(comm, arguments, function, environment, near.files)
        finally:
            near.close()
        function.enter()
        return (
            lambda comm: function.entry(comm, *positional, **named),
            lambda value: dump_result(value, kind, function, environment.wanted, environment.foreign, environment.outputs),
        )

    @staticmethod
    def _load(comm, arguments, function, environment, files):
        """As load_arguments(). The first rank puts the files of the task into its directory, where the
        others find them."""
        first = comm.Get_rank() == 0
        in_turn = bytes(arguments[:1]) == b"B" and "FARCALL_SANDBOX" in environment.variables
        loaded, problem = None, None
        if first or not in_turn:
            try:
                loaded = load_arguments(arguments, function, environment.client_version, files)
            except BaseException as error:  # pylint: disable=broad-except
                problem = error
        if in_turn and comm.bcast(problem is not None, root=0) and not first:
            raise FirstRankFailed
        if problem is not None:
            raise problem
        return loaded or load_arguments(arguments, function, environment.client_version, files, placed=True)

    def _enter(self, header, mine):
        wanted = {str(name): str(value) for name, value in (header.get("env") or {}).items()}
        cores = header["cores"][mine]
        if cores:
            try:
                os.sched_setaffinity(0, cores)
            except OSError as error:
                print("farcall: rank %d is not bound to %s: %s" % (mine, cores, error), file=sys.stderr)
            wanted["FARCALL_CORES"] = ",".join(map(str, cores))
        if header["gpus"][mine]:
            wanted.update({name: ",".join(header["gpus"][mine]) for name in _GPU_VARIABLES})
        saved = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        return saved

    def _leave(self, saved):
        os.sched_setaffinity(0, self._cores)
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def main():
    world = MPI.COMM_WORLD
    try:
        (Rank(world) if world.Get_rank() else Dispatcher(world)).run()
    except BaseException:  # pylint: disable=broad-except
        # Whoever leaves alone would wait for the others in MPI_Finalize, and they for it.
        traceback.print_exc()
        sys.stderr.flush()
        world.Abort(1)


if __name__ == "__main__":
    main()
