"""Stands in for the native client: the relay, an endpoint and its workers in this process. Tasks
run with the code of the real Python worker, so payloads are the real ones."""

import hashlib
import json
import queue
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

RUNNER = Path(__file__).resolve().parents[3] / "pilot" / "runners" / "python"
sys.path.insert(0, str(RUNNER))
import farcall_functions  # noqa: E402
import farcall_payloads  # noqa: E402

from farcall.errors import from_code  # noqa: E402


class Writer:
    def __init__(self, relay, header):
        self.relay, self.header = relay, header
        self.id = header.get("submission") or relay.new_submission_id()
        self.sets = []

    @property
    def added(self):
        return len(self.sets)

    def add(self, argument_sets, first=0):
        self.sets.extend(bytes(one) for one in argument_sets[first:])

    def seal(self):
        pass

    def wait_durable(self, _timeout_s):
        if self.relay.deaf > 0:
            self.relay.deaf -= 1
            raise from_code("timeout", "the relay is deaf")
        if self.header["label"] == "refused":
            unknown = ("progress", self.id, 0, False, 0, 0, 0, [], ("not_found", "the relay knows no submission " + self.id))
            for _ in range(2):  # the first has been served when the second is taken
                self.relay.events.put(unknown)
            while not self.relay.events.empty():
                time.sleep(0.001)
            raise from_code("io", "the disk is full")
        if self.relay.stuck and self.header["label"] == "stuck":
            raise from_code("timeout", "0 of 1 tasks are durable at the relay so far")
        self.relay.accept(self)


class FakeRelay:
    """`hold`: tasks wait until release()."""

    def __init__(self, *_args):
        self.functions = {}
        self.submissions = {}
        self.outcomes = {}  # (submission, index) → tuple
        self.watches = {}
        self.collected_indices = []
        self.cancelled = []
        self.events = queue.Queue()
        self.lock = threading.RLock()
        self.deaf = 0
        self.stuck = False  # what is labelled so never becomes durable
        self.hold = False
        self.closed = False
        self.folder = tempfile.TemporaryDirectory()
        self.files = {}  # of blobs, by hash

    # what the package calls

    def relay(self):
        return {"user": "ada", "address": "tcp://nowhere:1", "software": "fake", "generation": "1", "inline_bytes_max": 1 << 20}

    def call(self, method, parameters):
        parameters = json.loads(parameters)
        answer = getattr(self, "call_" + method.replace(".", "_"))(**parameters)
        payload = [self.functions[parameters["function"]][3]] if method == "function.show" else []
        return json.dumps(answer), payload

    def new_submission_id(self):
        return str(uuid.uuid4())[:-8] + "00000000"

    def call_task_status(self, task):
        submission, index = task[:-8] + "00000000", int(task[-8:], 16)
        outcome = self.outcomes.get((submission, index))
        return {"task_id": task, "state": outcome[2] if outcome else "pending"}

    def call_function_show(self, function):
        kind, name, _meta, _body = self.functions[function]
        return {"functions": [{"function_id": function, "kind": kind, "name": name}]}

    def call_submission_list(self, group, limit, before=None):
        found = [w for w in self.submissions.values() if w.header["group"] == group]
        rows = [{"submission_id": w.id, "received": len(w.sets), "function_id": w.header["function"]} for w in reversed(found)]
        if before is not None:
            rows = rows[[row["submission_id"] for row in rows].index(before) + 1 :]
        return {"submissions": rows[:limit]}

    def register_function(self, kind, name, meta, body):
        function_id = str(uuid.uuid5(uuid.NAMESPACE_OID, "%s %s %r" % (kind, name, body)))
        self.functions[function_id] = (kind, name, meta, body)
        return function_id

    def store_bytes(self, parts):
        content = b"".join(bytes(part) for part in parts)
        name = hashlib.blake2b(content, digest_size=32).hexdigest()
        self.files[name] = str(Path(self.folder.name) / name)
        Path(self.files[name]).write_bytes(content)
        return name, len(content)

    def find_endpoint(self, name):
        if name == "nowhere":
            raise from_code("not_found", "no endpoint 'nowhere'")
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    def open_submission(self, header):
        return Writer(self, header)

    def watch(self, items):
        with self.lock:
            for submission, have in items:
                self.watches[submission] = have
                self.tell(submission)
        return len(self.watches)

    def unwatch(self, _watch):
        pass

    def collected(self, submission, indices):
        self.collected_indices.extend((submission, index) for index in indices)

    def cancel(self, tasks, _force=False):
        with self.lock:
            for task in tasks:
                self.cancelled.append(task)
                key = (task[:-8] + "00000000", int(task[-8:], 16))
                if key not in self.outcomes:
                    self.outcomes[key] = (key[1], 1, "cancelled", "cancelled", 0, 0, 0, 0, "", b"")
                    self.tell(key[0])
        return len(tasks), 0, 0

    def next_events(self, timeout_s):
        try:
            event = self.events.get(timeout=timeout_s)
        except queue.Empty:
            return []
        return None if event is None else [event]

    def close(self):
        self.closed = True
        self.events.put(None)

    # what tests call

    def release(self):
        with self.lock:
            self.hold = False
            for writer in list(self.submissions.values()):
                self.work(writer)

    def running(self, task):
        submission, index = task[:-8] + "00000000", int(task[-8:], 16)
        count = len(self.submissions[submission].sets)
        self.events.put(("progress", submission, count, True, 0, 0, 0, [(index, index + 1)], None))

    # inside

    def accept(self, writer):
        with self.lock:
            if writer.id not in self.submissions:
                self.submissions[writer.id] = writer
                if not self.hold:
                    self.work(writer)

    def work(self, writer):
        for index, arguments in enumerate(writer.sets):
            if (writer.id, index) not in self.outcomes:
                self.outcomes[(writer.id, index)] = self.execute(writer.header, index, arguments)
        self.tell(writer.id)

    def execute(self, header, index, arguments):
        kind, name, meta, body = self.functions[header["function"]]
        function = farcall_functions.Function({"id": header["function"], "kind": kind, "name": name, "meta": meta, "blobs": self.files}, body)
        now = int(time.time() * 1000)
        try:
            function.load()
            args, kwargs, kind = farcall_functions.load_arguments(arguments, function, "", self.files)
            if tuple(args) == ("die",):
                text = json.dumps({"type": "crash", "class": "crash", "message": "the worker was killed by signal 9 (Killed) on n1"}).encode()
                return (index, 2, "failed", "crash", 0, 9, now, now, "n1", b"E" + len(text).to_bytes(4, "little") + text)
            data = b"".join(farcall_payloads.dump_result(function.entry(*args, **kwargs), kind, function))
            return (index, 1, "succeeded", "none", 0, 0, now, now, "n1", data)
        except BaseException as error:
            return (index, 1, "failed", "user_error", 0, 0, now, now, "n1", farcall_payloads.failure(error, "user_error", 1))
        finally:
            for module in [one for one in sys.modules if one.startswith("farcall_function_")]:
                del sys.modules[module]  # they are in the worker's process, not in the client's

    def tell(self, submission):
        have = self.watches.get(submission)
        if have is None:
            return
        new = [o for (s, i), o in self.outcomes.items() if s == submission and not any(a <= i < b for a, b in have)]
        if new:
            self.watches[submission] = have + [(o[0], o[0] + 1) for o in new]
            self.events.put(("outcomes", submission, new))
        if submission not in self.submissions and not new:
            self.events.put(("progress", submission, 0, False, 0, 0, 0, [], None))
