"""Drives the real runner over a socket pair, the way farcall-pilot does."""

import array
import hashlib
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(DIRECTORY))
import farcall_blobs  # noqa: E402
import farcall_functions  # noqa: E402
import farcall_payloads  # noqa: E402
from farcall_channel import DONE, RUN, Channel, pack  # noqa: E402

DEADLINE_S = 30
TASK = "0197a0b0-0000-7000-8000-000000000001"
CLASSES = {0: "none", 1: "user_error", 7: "environment"}


class Runner:
    def __init__(self, *options):
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE_S)
        theirs.set_inheritable(True)
        self.process = subprocess.Popen(
            [sys.executable, str(DIRECTORY / "python_runner.py"), "--socket-fd", str(theirs.fileno()), *options],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.channel = Channel(ours)
        self.hello = self.next()

    def next(self):
        return receive(self.channel)[0]

    def fork(self, number=1):
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE_S)
        fds = array.array("i", [theirs.fileno()])
        self.channel.socket.sendmsg([pack({"op": "fork", "worker": number})], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        theirs.close()
        answer = self.next()
        assert answer["op"] == "forked" and answer["worker"] == number
        return Worker(Channel(ours), answer["pid"])

    def close(self):
        self.channel.socket.close()
        assert self.process.wait(DEADLINE_S) == 0


class Worker:
    def __init__(self, channel, pid):
        self.channel, self.pid = channel, pid
        self.numbers = {}
        self.sequence = 0

    def function(self, body, kind="python", name="f", meta=None, identity="f1"):
        if kind == "python":
            body = json.dumps({"entry": name, "source": textwrap.dedent(body)}).encode()
        meta = json.dumps(meta or {})
        number = self.numbers.setdefault(identity, len(self.numbers) + 1)
        self.channel.send({"op": "function", "number": number, "id": identity, "kind": kind, "name": name, "meta": meta}, body)

    def start(self, arguments, task=TASK, function="f1", **more):
        """Packed when nothing is in the way of that, as the pilot does it."""
        self.sequence += 1
        number = self.numbers.get(function, 99)
        if more:
            header = {"op": "run", "sequence": self.sequence, "task": task, "attempt": 1, "function": number, **more}
            self.channel.send(header, arguments)
        else:
            self.channel.socket.sendall(pack_run(self.sequence, number, task, arguments))

    def run(self, *args, **more):
        self.start(b"J" + json.dumps({"args": args}).encode(), **more)
        return receive(self.channel)


def pack_run(sequence, number, task, arguments, environment=0):
    head = RUN.pack(b"R", sequence, number, environment, 1, task.encode())
    return struct.pack("<II", len(head), len(arguments)) + head + arguments


def receive(channel):
    while True:
        message = channel.buffered()
        if message is not None:
            header, data = message
            if isinstance(header, bytes):
                _mark, failure, sequence, started_ms, ended_ms = DONE.unpack(header)
                header = {"sequence": sequence, "class": CLASSES[failure], "started_ms": started_ms, "ended_ms": ended_ms}
            return header, data
        if not channel.read():
            raise EOFError


def failed(answer):
    header, data = answer
    assert header["class"] != "none", data
    assert data[:1] == b"E"
    (size,) = struct.unpack_from("<I", data, 1)
    found = json.loads(data[5 : 5 + size])
    assert found["class"] == header["class"]
    return found, data[5 + size :]


@pytest.fixture(name="runner")
def _runner():
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(name="worker")
def _worker(runner):
    worker = runner.fork()
    yield worker
    worker.channel.socket.close()


def test_hello_names_the_interpreter(runner):
    assert runner.hello["op"] == "hello"
    assert runner.hello["python_version"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert runner.hello["pid"] == runner.process.pid


def test_json_arguments_give_a_json_result(worker):
    worker.function("def f(a, b=2):\n    return {'sum': a + b}\n")
    header, data = worker.run(40)
    assert header["sequence"] == 1 and header["class"] == "none"
    assert 0 < header["started_ms"] <= header["ended_ms"]
    assert data == b'J{"sum":42}'


@pytest.mark.parametrize("text", ["(1, 2)", "{1: 2}", "float('inf')", "b'x'", "{1, 2}"])
def test_what_json_would_change_comes_pickled(worker, text):
    worker.function("def f():\n    return %s\n" % text)
    _header, data = worker.run()
    assert data[:1] == b"P" and pickle.loads(data[1:]) == eval(text)


def test_pickled_arguments_give_a_pickled_result(worker):
    worker.function("def f(*args, **kwargs):\n    return args, kwargs\n")
    worker.start(b"P" + pickle.dumps(((1, {2}), {"x": b"y"}), 5))
    assert pickle.loads(receive(worker.channel)[1][1:]) == ((1, {2}), {"x": b"y"})


def test_a_source_runs_once_per_worker_and_sees_its_own_module(worker):
    worker.function("import math\ncount = 0\ndef helper():\n    global count\n    count += 1\n    return count\ndef f():\n    return [helper(), math.pi, __name__ != '__main__']\n")
    assert json.loads(worker.run()[1][1:])[0] == 1
    assert json.loads(worker.run()[1][1:])[0] == 2
    assert json.loads(worker.run()[1][1:])[2] is True


def test_a_class_of_the_module_pickles_under_the_client_s_name(worker):
    worker.function("class Point:\n    pass\ndef f():\n    return Point()\n", meta={"module": "my_shapes"})
    data = worker.run()[1]
    assert data[:1] == b"P" and b"my_shapes" in data


def test_thousand_queued_runs_come_back_in_order(worker):
    worker.function("def f(i):\n    return i * i\n")
    batch = b"".join(pack_run(i, 1, TASK, b'J{"args":[%d]}' % i) for i in range(1000))
    worker.channel.socket.sendall(batch)
    for i in range(1000):
        header, data = receive(worker.channel)
        assert header["sequence"] == i and data == b"J%d" % (i * i)


def test_large_arguments_and_results(worker):
    worker.function("def f(data):\n    return data[::-1]\n")
    value = os.urandom(1 << 20) * 8
    worker.start(b"P" + pickle.dumps(((value,), {}), 5))
    assert pickle.loads(receive(worker.channel)[1][1:]) == value[::-1]


def test_exception_has_the_user_s_source_lines_and_its_own_type(worker):
    worker.function("def g(x):\n    return 1 / x\n\ndef f(x):\n    return g(x)\n")
    found, pickled = failed(worker.run(0))
    assert (found["type"], found["module"], found["message"]) == ("ZeroDivisionError", "builtins", "division by zero")
    assert found["class"] == "user_error"
    assert "return 1 / x" in found["traceback"]
    assert "farcall_worker" not in found["traceback"]
    assert isinstance(pickle.loads(pickled), ZeroDivisionError)
    assert worker.run(1)[0]["class"] == "none"


@pytest.mark.parametrize("name", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_exceptions_that_would_end_a_process_do_not(worker, name):
    worker.function("def f():\n    raise %s\n" % name)
    assert failed(worker.run())[0]["type"] == name.split("(")[0]
    assert failed(worker.run())[0]["class"] == "user_error"


def test_recursion(worker):
    worker.function("def f():\n    return f()\n")
    found, pickled = failed(worker.run())
    assert found["type"] == "RecursionError" and isinstance(pickle.loads(pickled), RecursionError)


def test_exception_that_cannot_be_pickled_comes_as_text(worker):
    worker.function(
        "class Odd(Exception):\n    def __reduce__(self):\n        raise RuntimeError('no')\n    def __str__(self):\n        raise ValueError\n"
        "def f():\n    raise Odd()\n"
    )
    found, pickled = failed(worker.run())
    assert found["type"] == "Odd" and pickled == b"" and "__str__" in found["message"]


def test_result_that_cannot_be_pickled_says_which(worker):
    worker.function("def f():\n    return (i for i in range(3))\n")
    found, _pickled = failed(worker.run())
    assert found["message"].startswith("the result of f is a generator, which cannot be pickled: ")


def test_reduce_that_raises(worker):
    worker.function("class Bad:\n    def __reduce__(self):\n        raise SystemExit('never')\ndef f():\n    return Bad()\n")
    found, _pickled = failed(worker.run())
    assert "the result of f is a Bad, which cannot be pickled: SystemExit: never" in found["message"]


def test_syntax_error_and_missing_entry(worker):
    worker.function("def f(:\n")
    assert failed(worker.run())[0]["type"] == "SyntaxError"
    worker.function("def g():\n    pass\n", identity="f2")
    assert "defines no callable 'f'; it defines: g" in failed(worker.run(function="f2"))[0]["message"]


def test_unknown_function(worker):
    assert "never sent" in failed(worker.run(function="nothing"))[0]["message"]


def test_cloudpickle_function(worker):
    cloudpickle = pytest.importorskip("cloudpickle")
    offset = 5
    version = ".".join(str(part) for part in sys.version_info[:3])
    worker.function(cloudpickle.dumps(lambda x: x + offset, 5), kind="python-pickle", meta={"serializer": "cloudpickle", "python_version": version})
    assert worker.run(1)[1] == b"J6"


def test_dill_function_and_values(worker):
    dill = pytest.importorskip("dill")
    worker.function(dill.dumps(lambda x: [x, 1j], recurse=True), kind="python-pickle", meta={"serializer": "dill"})
    worker.start(b"D" + dill.dumps(((2,), {})))
    data = receive(worker.channel)[1]
    assert data[:1] == b"D" and dill.loads(data[1:]) == [2, 1j]


def test_other_python_version_is_said_up_front(worker):
    worker.function(b"whatever", kind="python-pickle", meta={"serializer": "cloudpickle", "python_version": "2.7.18"})
    found, _pickled = failed(worker.run())
    here = "%d.%d" % sys.version_info[:2]
    assert "pickled by Python 2.7, the worker has %s: send it by source, or set `python:` of the endpoint" % here in found["message"]
    assert found["class"] == "environment"


def test_missing_serializer_is_an_environment_failure(worker):
    worker.function(b"x", kind="python-pickle", meta={"serializer": "no_such_pickle"})
    found, _pickled = failed(worker.run())
    assert found["class"] == "environment" and "has no module no_such_pickle" in found["message"]


def test_arguments_of_a_module_that_is_not_there(worker):
    worker.function("def f(x):\n    return x\n")
    worker.start(b"Pcno_such_module\nThing\n.")
    found, _pickled = failed(receive(worker.channel))
    assert "the arguments of f cannot be loaded" in found["message"] and "no_such_module" in found["message"]


def test_directory_and_environment_last_for_one_task(worker, tmp_path):
    worker.function("import os\ndef f():\n    return [os.getcwd(), os.environ.get('SHADE'), os.environ['FARCALL_TASK_ID']]\n")
    home = json.loads(worker.run()[1][1:])[0]
    assert json.loads(worker.run(cwd=str(tmp_path), env={"SHADE": "blue"}, task="t9")[1][1:]) == [str(tmp_path), "blue", "t9"]
    assert json.loads(worker.run()[1][1:]) == [home, None, TASK]


def test_missing_directory_is_a_failure(worker, tmp_path):
    worker.function("def f():\n    pass\n")
    assert failed(worker.run(cwd=str(tmp_path / "none")))[0]["type"] == "FileNotFoundError"


def test_printing_does_not_disturb(worker):
    worker.function("import sys\ndef f():\n    for _ in range(100):\n        print('x' * 10000, file=sys.stderr)\n    return 1\n")
    # To a file: a test log does not want it either.
    assert worker.run()[1] == b"J1"


def test_forked_child_that_comes_back_sends_nothing(worker):
    worker.function("import os\ndef f():\n    pid = os.fork()\n    if pid:\n        os.waitpid(pid, 0)\n    return pid != 0\n")
    assert worker.run()[1] == b"Jtrue"
    assert worker.run()[1] == b"Jtrue"


def test_results_before_a_crash_arrive_and_the_end_is_reported(runner, worker):
    worker.function("import os\ndef f(i):\n    if i == 3:\n        os._exit(7)\n    return i\n")
    for i in range(5):
        worker.start(b'J{"args":[%d]}' % i)
    assert runner.next() == {"op": "exited", "worker": 1, "pid": worker.pid, "status": 7 << 8}
    assert [receive(worker.channel)[0]["sequence"] for _ in range(3)] == [1, 2, 3]
    with pytest.raises((EOFError, ConnectionResetError)):
        receive(worker.channel)


def test_killed_worker_is_reported_with_its_signal_and_replaced(runner, worker):
    os.kill(worker.pid, signal.SIGKILL)
    assert runner.next() == {"op": "exited", "worker": 1, "pid": worker.pid, "status": signal.SIGKILL}
    second = runner.fork(2)
    second.function("def f():\n    return 'here'\n")
    assert second.run()[1] == b'J"here"'
    second.channel.socket.close()
    assert runner.next()["status"] == 0


def test_worker_ends_when_its_socket_closes(runner, worker):
    worker.channel.socket.close()
    assert runner.next() == {"op": "exited", "worker": 1, "pid": worker.pid, "status": 0}


def test_worker_has_its_own_session_and_no_foreign_descriptors(runner, worker):
    other = runner.fork(2)
    other.function("import os\ndef f():\n    return [os.getsid(0) == os.getpid(), len([fd for fd in os.listdir('/proc/self/fd')])]\n")
    # stdin, stdout, stderr and what they are restored from, the socket, the home directory, and the one that lists.
    assert other.run()[1] == b"J[true,9]"
    other.channel.socket.close()
    assert runner.next()["worker"] == 2


def test_workers_die_with_a_killed_template():
    runner = Runner()
    worker = runner.fork()
    worker.function("import time\ndef f():\n    time.sleep(3600)\n")
    worker.start(b"J{}")
    runner.process.kill()
    runner.process.wait(DEADLINE_S)
    with pytest.raises((EOFError, ConnectionResetError)):
        receive(worker.channel)  # waits for the death; a worker that lived on would time out
    runner.channel.socket.close()


def test_fork_without_a_socket_is_refused(runner):
    runner.channel.send({"op": "fork", "worker": 4})
    answer = runner.next()
    assert answer["op"] == "fork_failed" and answer["worker"] == 4


def test_preloaded_module_and_one_that_is_missing():
    runner = Runner("--preload", "fractions,no_such_module_at_all")
    worker = runner.fork()
    worker.function("import sys\ndef f():\n    return 'fractions' in sys.modules\n")
    assert worker.run()[1] == b"Jtrue"
    worker.channel.socket.close()
    runner.close()


def test_arguments_with_bytecode_of_another_python_are_refused_before_they_are_loaded(worker):
    cloudpickle = pytest.importorskip("cloudpickle")
    worker.function("def f(g):\n    return g()\n")
    env = {"FARCALL_CLIENT_PYTHON": "3.99.1"}
    worker.start(b"P" + cloudpickle.dumps(((lambda: 1,), {}), 5), env=env)
    found, _pickled = failed(receive(worker.channel))
    here = "%d.%d" % sys.version_info[:2]
    assert found["class"] == "environment"
    assert "the arguments of f carry functions or classes as bytecode of Python 3.99, the worker has %s" % here in found["message"]
    worker.start(b"P" + pickle.dumps(((int,), {}), 5), env=env)  # names travel well
    assert receive(worker.channel)[0]["class"] == "none"


def test_bytecode_is_not_sent_to_another_python(worker):
    pytest.importorskip("cloudpickle")
    worker.function(
        "import cloudpickle\ndef f(fails):\n    class Own(Exception):\n        def g(self):\n            pass\n"
        "    if fails:\n        raise Own('x')\n    return [lambda: 1]\n"
    )
    env = {"FARCALL_CLIENT_PYTHON": "3.99.1"}
    found, _pickled = failed(worker.run(False, env=env))
    assert "the result of f carries functions or classes as bytecode" in found["message"]
    assert worker.run(False)[0]["class"] == "none"
    assert failed(worker.run(True, env=env))[1] == b"" and failed(worker.run(True))[1] != b""


def test_a_result_travels_as_it_was_asked_to(worker):
    pytest.importorskip("dill")
    worker.function("def f(x):\n    return x\n")

    def kind(value, wanted):
        worker.start(b"P" + pickle.dumps(((value,), {}), 5), env={"FARCALL_RESULT_SERIALIZERS": wanted})
        return receive(worker.channel)

    assert kind((1, 2), "json")[1] == b"J[1,2]"
    assert kind({1}, "json,dill")[1][:1] == b"D"
    assert kind(1, "pickle")[1][:1] == b"P"
    found, _pickled = failed(kind({1}, "json"))
    assert "can be sent in none of the ways that were asked for: json: TypeError" in found["message"]


def test_arrays_travel_as_they_lie_in_memory(worker):
    numpy = pytest.importorskip("numpy")
    from farcall_values import dump_value, load_value

    worker.function(
        "import numpy\n"
        "def f(a, b):\n"
        "    assert a.flags.writeable and a.flags.aligned\n"
        "    assert a.size < 10 or isinstance(a.base.base.obj, bytearray), 'copied'\n"
        "    a += b\n    return {'sum': a, 'n': numpy.float32(0.5)}\n"
    )
    array = numpy.arange(100_000.0)  # larger than what is read at once
    worker.start(b"".join(dump_value(((array,), {"b": 1}))))
    header, data = receive(worker.channel)
    assert header["class"] == "none" and data[:1] == b"N"
    got = load_value(data)
    assert (got["sum"] == array + 1).all() and got["n"] == numpy.float32(0.5) and type(got["n"]) is numpy.float32
    worker.start(b"".join(dump_value(((numpy.arange(3),), {"b": 1}))))
    assert (load_value(receive(worker.channel)[1])["sum"] == [1, 2, 3]).all()


def test_json_arguments_get_arrays_back_natively(worker):
    pytest.importorskip("numpy")
    worker.function("import numpy\ndef f(n):\n    return numpy.arange(n)\n")
    worker.start(b'J{"args":[3]}')
    assert receive(worker.channel)[1][:1] == b"N"


def test_children_of_a_task_end_with_it(worker, tmp_path):
    worker.function(
        """
        import os, subprocess, time
        def f(path):
            subprocess.Popen(["env", "-i", "setsid", "/bin/sh", "-c", "(echo $$ > %s.tmp; mv %s.tmp %s; exec /bin/sleep 1000) &" % (path, path, path)])
            while not os.path.exists(path): time.sleep(0.01)
            return int(open(path).read())
        """
    )
    header, data = worker.run(str(tmp_path / "pid"))
    assert header["class"] == "none", data
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = (Path("/proc") / name / "cmdline").read_bytes().split(b"\0")
                parent = (Path("/proc") / name / "stat").read_text().rsplit(")", 1)[1].split()[1]
            except OSError:
                continue
            assert not (words[0] == b"/bin/sleep" and int(parent) == worker.pid), name
    assert worker.run(str(tmp_path / "other"))[0]["class"] == "none"


def receive_all(channel):
    """All notes of a task, with what was printed, and its end."""
    notes = []
    while True:
        header, data = receive(channel)
        if header.get("op") != "note":
            return notes, (header, data)
        notes.append((header, bytes(data)))


def test_progress_is_told_ten_times_a_second_at_most_and_its_last_word_always(worker):
    worker.function("import farcall\ndef f(n):\n    for i in range(n):\n        farcall.progress(i + 1, n, 'step %d' % (i + 1))\n    return n\n")
    worker.start(b'J{"args":[1000]}')
    notes, (header, data) = receive_all(worker.channel)
    assert header["class"] == "none" and data == b"J1000", data
    assert notes[0][0] == {"op": "note", "out": 0, "out_offset": 0, "err_offset": 0, "done": 1.0, "total": 1000.0, "text": "step 1"}
    assert notes[-1][0]["done"] == 1000 and len(notes) < 100


def test_progress_of_any_kind_does_not_hurt_the_worker(worker):
    worker.function(
        "import farcall\ndef f():\n    farcall.progress(float('nan'), float('inf'), '\\ud800' + 'x' * 5000)\n"
        "    try:\n        farcall.progress('two')\n    except ValueError as error:\n        return str(error)\n"
    )
    worker.start(b"J{}")
    notes, (_header, data) = receive_all(worker.channel)
    assert (notes[0][0]["done"], notes[0][0]["total"], notes[0][0]["text"][:2], len(notes[0][0]["text"])) == (0, 0, "?x", 1000)
    assert data == b"J\"could not convert string to float: 'two'\""


def test_what_is_held_back_is_told_while_the_function_runs_on(worker, tmp_path):
    gate = tmp_path / "gate"
    worker.function(
        "import os, time\nfrom farcall import progress\ndef f(gate):\n    progress(1)\n    progress(2, note='x')\n"
        "    while not os.path.exists(gate): time.sleep(0.01)\n"
    )
    worker.start(b"J" + json.dumps({"args": [str(gate)]}).encode())
    assert receive(worker.channel)[0]["done"] == 1
    assert receive(worker.channel)[0]["done"] == 2  # and it has not ended
    gate.touch()
    assert receive_all(worker.channel)[0] == []


def test_output_is_streamed_when_it_is_wanted(worker):
    worker.function("import sys\ndef f():\n    print('one')\n    sys.stderr.write('bad')\n    print('two')\n")
    worker.start(b"J{}", stream=True)
    notes, (header, _data) = receive_all(worker.channel)
    assert header["class"] == "none"
    assert b"".join(data[: note["out"]] for note, data in notes) == b"one\ntwo\n"
    assert b"".join(data[note["out"] :] for note, data in notes) == b"bad"
    assert [note["out_offset"] for note, _data in notes][0] == 0
    worker.start(b"J{}")
    assert receive_all(worker.channel)[0] == []


@pytest.fixture
def results(tmp_path, monkeypatch):
    program = Path(os.environ.get("FARCALL_TEST_RUNNERS", DIRECTORY)) / "farcall-result-file"
    assert program.exists(), "it is built with the pilot; FARCALL_TEST_RUNNERS says where"
    monkeypatch.setattr(farcall_payloads, "_RESULT_FILE", str(program))
    monkeypatch.setenv("FARCALL_TASK_ID", TASK)
    farcall_payloads.keep_large_results_in(str(tmp_path))
    yield tmp_path
    farcall_payloads.keep_large_results_in(None)


def large(parts):
    function = type("Function", (), {"name": "f", "meta": {}})
    return b"".join(farcall_payloads.dump_result(parts, b"P", function))


def test_a_large_result_is_put_into_a_file_that_task_and_hash_name(results):
    data = large(bytes(5 << 20))
    ((name, size),), places, rest = farcall_blobs.split(data)
    (file,) = results.iterdir()
    assert file.name == "%s.%s.h5" % (TASK, name) and places == [[0, None]] and bytes(rest) == b""
    content = farcall_payloads.open_result(name, size, TASK)
    assert hashlib.blake2b(content, digest_size=32).hexdigest() == name
    assert pickle.loads(content[1:]) == bytes(5 << 20)
    assert large(b"small")[:1] == b"P"
    with open(file, "r+b") as handle:
        handle.seek(3 << 20)
        handle.write(b"damaged")
    with pytest.raises(farcall_payloads.EnvironmentFailure, match="the result of task %s cannot be read on this node: .* is damaged" % TASK):
        farcall_payloads.open_result(name, size, TASK)
    file.unlink()
    with pytest.raises(farcall_payloads.EnvironmentFailure, match="is not at this endpoint"):
        farcall_payloads.open_result(name, size, TASK)


def test_a_result_that_cannot_be_written_is_a_failure_that_says_where(results):
    farcall_payloads.keep_large_results_in(str(results / "gone"))
    with pytest.raises(farcall_payloads.ResultNotStored) as caught:
        large(bytes(5 << 20))
    assert "the result of f, 52428" in str(caught.value)
    assert "cannot be kept in %s: %s: No such file or directory; make room there" % (results / "gone", results / "gone") in str(caught.value)


def blob(folder, content):
    name = hashlib.blake2b(content, digest_size=32).hexdigest()
    (folder / name).write_bytes(content)
    return (name, len(content)), {name: str(folder / name)}


def test_arguments_come_from_the_files_of_their_blobs(tmp_path):
    one, files = blob(tmp_path, b"P" + pickle.dumps("x" * 1000))
    two, more = blob(tmp_path, b'J{"a":1}')
    files.update(more)
    rest = b"P" + pickle.dumps(((None, 5), {"k": None}))
    function = type("Function", (), {"name": "f", "other_python": False})
    data = farcall_payloads.pack_blobs([one, two], [[0, 0], [1, "k"]], rest)
    assert farcall_functions.load_arguments(data, function, "", files) == (["x" * 1000, 5], {"k": {"a": 1}}, b"P")
    whole, files = blob(tmp_path, b'J{"args":[1,2]}')
    data = farcall_payloads.pack_blobs([whole], [[0, None]])
    assert farcall_functions.load_arguments(data, function, "", files) == ([1, 2], {}, b"J")
    (tmp_path / whole[0]).write_bytes(b"J")
    with pytest.raises(farcall_payloads.EnvironmentFailure, match="blob %s cannot be read on this node: the file has 1 bytes, expected 15" % whole[0]):
        farcall_functions.load_arguments(data, function, "", files)
    with pytest.raises(farcall_payloads.LoadFailure, match="a list of blobs is not what docs/payloads.md says"):
        farcall_functions.load_arguments(data[:50], function, "", files)


def test_arrays_of_a_blob_lie_in_its_file_and_changes_stay_here(tmp_path):
    numpy = pytest.importorskip("numpy")
    from farcall_values import dump_value

    array = numpy.arange(100_000.0)
    one, files = blob(tmp_path, b"".join(dump_value(array)))
    before = (tmp_path / one[0]).read_bytes()
    function = type("Function", (), {"name": "f", "other_python": False})
    data = farcall_payloads.pack_blobs([one], [[0, 0]], b"P" + pickle.dumps(((None,), {})))
    (found,), _named, _kind = farcall_functions.load_arguments(data, function, "", files)
    assert (found == array).all() and found.flags.writeable
    found += 1
    assert (tmp_path / one[0]).read_bytes() == before


def test_output_that_a_task_closed_is_there_for_the_next(worker):
    worker.function(
        "import os, sys\ndef f(what):\n    exec(what)\n    fd = os.open('/dev/null', os.O_WRONLY)\n    print('x')\n    sys.stderr.write('y')\n"
        "    os.close(fd)\n    return fd\n"
    )
    for what in ("sys.stdout.close()", "os.close(1)", "os.closerange(0, 3)", "sys.stderr = sys.stdout = None; sys.stdout = open(os.devnull, 'w'); sys.stderr = sys.stdout"):
        assert worker.run(what)[0]["class"] == "none", what
        header, data = worker.run("pass")
        assert header["class"] == "none" and json.loads(data[1:]) > 2, what


def test_nothing_of_the_template_closes_descriptors_of_a_worker_later(worker):
    worker.function(
        "import gc, os\nfds = [os.open('/dev/null', os.O_RDONLY) for _ in range(20)]\n"
        "def f():\n    gc.unfreeze()\n    gc.collect()\n    return [os.fstat(fd).st_mode > 0 for fd in list(range(3)) + fds]\n"
    )
    assert worker.run()[1] == b"J" + json.dumps([True] * 23, separators=(",", ":")).encode()
    worker.function("import os\ndef f():\n    os.close(1)\n", identity="f2")
    assert worker.run(function="f2")[0]["class"] == "none"
    assert worker.run()[1] == b"J" + json.dumps([True] * 23, separators=(",", ":")).encode()


def test_an_environment_stays_for_its_tasks_and_leaves_no_trace(worker):
    worker.function(
        "import os\ndef f():\n    found = [os.environ.get('SHADE'), os.environ.get('FARCALL_TASK_ID')]\n"
        "    os.environ['SHADE'] = 'black'\n    return found\n"
    )
    worker.channel.send({"op": "environment", "number": 1, "env": {"SHADE": "blue"}})

    def run(environment):
        worker.channel.socket.sendall(pack_run(1, 1, TASK, b"J{}", environment))
        return json.loads(receive(worker.channel)[1][1:])

    assert run(1) == ["blue", TASK]
    assert run(1) == ["blue", TASK]
    assert json.loads(worker.run(env={"SHADE": "red"})[1][1:]) == ["red", TASK]
    assert run(1) == ["blue", TASK]
