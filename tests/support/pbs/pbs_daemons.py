"""The server and the MoMs of the PBS look-alike. A request is one JSON line on a unix socket, so is the answer.

A server that is killed loses nothing: its jobs are in jobs.json, and what ends meanwhile leaves a note in obits/.
"""

import ctypes
import json
import os
import pathlib
import pwd
import select
import shutil
import signal
import socket
import sys
import time

import pbs_text

CLONE_NEWUTS = 0x04000000
QUEUES = {  # name: (enabled, started, longest walltime, nodes, cpus, jobs of a user)
    "workq": (True, True, None, None, None, None),
    "short": (True, True, 600, None, None, None),
    "small": (True, True, None, 1, 4, None),
    "closedq": (False, True, None, None, None, None),
    "stoppedq": (True, False, None, None, None, None),
    "limitq": (True, True, None, None, None, 2),
}
SERVER = "pbsctl"


def listen(path):
    temporary = path.with_suffix(".binding")
    temporary.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(temporary))
    server.listen(512)
    temporary.rename(path)  # there only when it listens
    return server


def call(path, request, timeout=None):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(str(path))
        client.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(read_line(client) or "null")


def read_line(client):
    data = b""
    while not data.endswith(b"\n"):
        part = client.recv(1 << 16)
        if not part:
            break
        data += part
    return data.decode()


# ---- the MoM of one node ------------------------------------------------------------------------


class Mom:
    def __init__(self, directory, node):
        self.directory, self.node = directory, node
        self.jobs = {}  # id -> {"sessions": [pid], "main": pid or None, "environment": {}}
        self.tasks = {}  # pid -> (job id, socket that waits for its end)

    def run(self):
        server = listen(self.directory / f"mom.{self.node}.sock")
        (self.directory / f"mom.{self.node}.pid").write_text(str(os.getpid()))
        while True:
            ready, _, _ = select.select([server], [], [], 0.05)
            if ready:
                client, _ = server.accept()
                self.serve(client)
            self.reap()

    def serve(self, client):
        line, descriptors, _, _ = socket.recv_fds(client, 1 << 20, 3)
        while not line.endswith(b"\n"):
            more = client.recv(1 << 20)
            if not more:
                client.close()
                return
            line += more
        request = json.loads(line)
        if request["what"] == "task":
            self.task(request, descriptors, client)
            return
        answer = getattr(self, request["what"])(request)
        client.sendall(json.dumps(answer).encode() + b"\n")
        client.close()

    def spawn(self, argv, environment, descriptors):
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        if ctypes.CDLL(None).unshare(CLONE_NEWUTS) == 0:
            socket.sethostname(self.node)
        os.umask(0o077)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            os.chdir(environment["HOME"])
            os.execve(argv[0] if "/" in argv[0] else shutil.which(argv[0], path=environment["PATH"]) or argv[0], argv, environment)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(254)

    def start_job(self, request):
        """The batch script itself, on the first node."""
        job = request["job"]
        spool = [open(self.directory / "spool" / f"{job}.{kind}", "a") for kind in ("OU", "ER")]
        null = os.open("/dev/null", os.O_RDONLY)
        environment = {**request["environment"], "PBS_LOOKALIKE_NODE": self.node}
        pid = self.spawn(request["argv"], environment, [null, spool[0].fileno(), spool[1].fileno()])
        os.close(null)
        self.jobs[job] = {"sessions": [pid], "main": pid, "environment": environment}
        return {"session": pid}

    def join_job(self, request):
        self.jobs[request["job"]] = {"sessions": [], "main": None, "environment": {**request["environment"], "PBS_LOOKALIKE_NODE": self.node}}
        return {}

    def task(self, request, descriptors, client):
        job = self.jobs.get(request["job"])
        if job is None:
            client.sendall(b'{"error": "no such job"}\n')
            client.close()
        else:
            environment = {**job["environment"], "PBS_NODENUM": str(request["rank"]), "PBS_TASKNUM": "00000002"}
            pid = self.spawn(request["argv"], environment, descriptors)
            job["sessions"].append(pid)
            self.tasks[pid] = (request["job"], client)
        for descriptor in descriptors:
            os.close(descriptor)

    def signal_job(self, request):
        """To everything in the job's sessions; what made a session of its own is not reached."""
        for session in self.jobs.get(request["job"], {}).get("sessions", []):
            for pid in in_session(session):
                try:
                    os.kill(pid, request["signal"])
                except ProcessLookupError:
                    pass
        return {}

    def forget_job(self, request):
        self.signal_job({"job": request["job"], "signal": signal.SIGKILL})
        self.jobs.pop(request["job"], None)
        return {}

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            if pid in self.tasks:
                _, client = self.tasks.pop(pid)
                try:
                    client.sendall(json.dumps({"code": code}).encode() + b"\n")
                except OSError:
                    pass
                client.close()
            for job, state in self.jobs.items():
                if state["main"] == pid:
                    note = self.directory / "obits" / job
                    note.with_suffix(".new").write_text(json.dumps({"code": code, "at": time.time()}))
                    note.with_suffix(".new").rename(note)


def in_session(session):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(entry.name))
    return found


# ---- the server ---------------------------------------------------------------------------------


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code, self.text = code, text


class Server:
    def __init__(self, directory):
        self.directory = directory
        self.jobs = {}
        self.next = 1
        self.down_since = {}
        try:
            kept = json.loads((directory / "jobs.json").read_text())
            self.jobs, self.next = kept["jobs"], kept["next"] + 1000  # ids are not dense, as after a real crash
        except OSError:
            pass

    def run(self):
        server = listen(self.directory / "server.sock")
        (self.directory / "server.pid").write_text(str(os.getpid()))
        while True:
            ready, _, _ = select.select([server], [], [], 0.05)
            if ready:
                client, _ = server.accept()
                try:
                    self.serve(client)
                except OSError:
                    pass  # the client was killed
            self.settings = json.loads((self.directory / "settings.json").read_text())
            self.tick()

    def serve(self, client):
        with client:
            line = read_line(client)
            if not line:
                return
            request = json.loads(line)
            self.settings = json.loads((self.directory / "settings.json").read_text())
            try:
                answer = getattr(self, "on_" + request["what"])(request)
            except Refused as refused:
                answer = {"code": refused.code, "error": refused.text}
            self.save()
            client.sendall(json.dumps(answer).encode() + b"\n")

    def save(self):
        temporary = self.directory / "jobs.new"
        temporary.write_text(json.dumps({"jobs": self.jobs, "next": self.next}))
        temporary.rename(self.directory / "jobs.json")

    # requests

    def on_submit(self, request):
        queue = request.get("queue") or "workq"
        if queue == "aclq":
            raise Refused(159, "Unauthorized Request ")
        if queue not in QUEUES:
            raise Refused(170, "Unknown queue")
        enabled, _, longest, nodes, cpus, mine = QUEUES[queue]
        if not enabled:
            raise Refused(173, "Queue is not enabled")
        chunks = request["chunks"]
        walltime = pbs_text.parse_span(request["resources"]["walltime"]) if "walltime" in request["resources"] else None
        if (longest and (walltime or 0) > longest) or (nodes and len(chunks) > nodes) or (cpus and sum(chunks) > cpus):
            self.next += 1  # a rejected one has used its id up
            raise Refused(188, "Job violates queue and/or server resource limits")
        if mine and sum(job["queue"] == queue and job["state"] in "QHWR" for job in self.jobs.values()) >= mine:
            raise Refused(38, "would exceed queue generic's per-user limit")
        job_id = f"{self.next}.{SERVER}"
        self.next += 1
        now = time.time()
        self.jobs[job_id] = {**request, "queue": queue, "state": "H" if request["held"] else "Q", "substate": 20 if request["held"] else 10,
                             "ctime": now, "mtime": now, "walltime": walltime, "runs": 0}
        shutil.copy(request["script"], self.directory / "jobs" / f"{job_id}.SC")
        os.chmod(self.directory / "jobs" / f"{job_id}.SC", 0o700)
        return {"code": 0, "id": job_id}

    def full_id(self, text):
        return text if "." in text else f"{text}.{SERVER}"

    def on_stat(self, request):
        """Of all ids, or of those asked for; those that are not there are named with the reason."""
        answer = {"jobs": {}, "errors": [], "history": self.settings["history"], "client": self.settings["client"]}
        if request["x"] and not self.settings["history"]:
            return answer
        ids = [self.full_id(each) for each in request["ids"]] or [i for i, job in self.jobs.items() if request["x"] or job["state"] not in "FM"]
        for job_id in ids:
            job = self.jobs.get(job_id)
            if job is None or (job["state"] == "F" and not self.settings["history"]):
                answer["errors"].append([153, f"Unknown Job Id {job_id}"])
            elif job["state"] == "F" and not request["x"]:
                answer["errors"].append([35, f"{job_id} {pbs_text.FINISHED}"])
            else:
                answer["jobs"][job_id] = self.attributes(job_id, job)
        return answer

    def on_select(self, request):
        if request["x"] and not self.settings["history"]:
            raise Refused(36, pbs_text.HISTORY_OFF)
        return {"code": 0, "ids": [i for i, job in self.jobs.items()
                                   if (request["name"] is None or job["name"] == request["name"]) and (request["states"] is None or job["state"] in request["states"])
                                   and (job["state"] != "F" or request["x"])]}

    def on_delete(self, request):
        errors = []
        for job_id in map(self.full_id, request["ids"]):
            job = self.jobs.get(job_id)
            if job is None or (job["state"] == "F" and not self.settings["history"]):
                errors.append([153, f"Unknown Job Id {job_id}"])
            elif job["state"] == "F":
                errors.append([35, f"Job has finished {job_id}"])
            elif job["state"] in "RE":
                if "deleted" not in job:
                    job["deleted"] = time.time()
                    self.signal(job_id, job, signal.SIGTERM)
            else:
                self.finish(job_id, job, 91, None)
        return {"code": 0, "errors": errors}

    def on_queues(self, request):
        return {"code": 0, "queues": {name: {"queue_type": "Execution", "total_jobs": sum(j["queue"] == name for j in self.jobs.values()),
                                             **({"resources_max": {"walltime": pbs_text.span(longest)}} if longest else {}),
                                             "enabled": str(enabled), "started": str(started)}
                                      for name, (enabled, started, longest, *_) in QUEUES.items()},
                "client": self.settings["client"], "history": self.settings["history"]}

    # the life of jobs

    def mom(self, node, request):
        try:
            return call(self.directory / f"mom.{node}.sock", request, timeout=5)
        except OSError:
            return None

    def signal(self, job_id, job, number):
        for node in dict.fromkeys(job["nodes"]):
            self.mom(node, {"what": "signal_job", "job": job_id, "signal": number})

    def up(self, node):
        try:
            pid = int((self.directory / f"mom.{node}.pid").read_text())
            running = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (OSError, ValueError):
            running = False
        if running:
            self.down_since.pop(node, None)
        else:
            self.down_since.setdefault(node, time.time())
        return running

    def tick(self):
        nodes = [f"pbsn{n}" for n in range(1, self.settings["nodes"] + 1)]
        up = [node for node in nodes if self.up(node)]
        before = json.dumps(self.jobs)
        for job_id, job in self.jobs.items():
            if job["state"] == "R":
                self.follow(job_id, job)
            elif job["state"] == "E":
                self.finish(job_id, job, 91 if "deleted" in job else (92 if job["exit"] == 0 else 93), job["exit"])
        for job_id, job in self.jobs.items():
            if job["state"] == "Q" and QUEUES[job["queue"]][1]:
                self.place(job_id, job, nodes, up)
        if json.dumps(self.jobs) != before:
            self.save()

    def free(self, nodes):
        left = {node: self.settings["ncpus"] for node in nodes}
        for job in self.jobs.values():
            if job["state"] in "RE":
                for node, cpus in zip(job["nodes"], job["chunks"]):
                    if node in left:
                        left[node] -= cpus
        return left

    def place(self, job_id, job, nodes, up):
        total = self.settings["ncpus"] * len(nodes)
        scatter = "scatter" in job["place"]
        if sum(job["chunks"]) > total:
            job["comment"] = f"Can Never Run: Insufficient amount of resource: ncpus (R: {sum(job['chunks'])} A: {total} T: {total})"
            return
        if scatter and len(job["chunks"]) > len(nodes):
            job["comment"] = "Can Never Run: Not enough total nodes available"
            return
        left, chosen = self.free(up), []
        for cpus in job["chunks"]:
            node = next((n for n in up if left[n] >= cpus and not (scatter and n in chosen)), None)
            if node is None:
                job["comment"] = "Not Running: Insufficient amount of resource: " + ("host " if len(up) < len(nodes) else "ncpus ")
                return
            left[node] -= cpus
            chosen.append(node)
        self.start(job_id, job, chosen)

    def start(self, job_id, job, chosen):
        user = pwd.getpwuid(os.getuid())
        nodefile = self.directory / "aux" / job_id
        nodefile.write_text("".join(f"{node}\n" for node, mpi in zip(chosen, job["mpiprocs"]) for _ in range(mpi)))
        environment = {
            "HOME": user.pw_dir, "LOGNAME": user.pw_name, "USER": user.pw_name, "SHELL": "/bin/bash", "PATH": "/usr/local/bin:/usr/bin:/bin",
            **{"PBS_O_" + name: value for name, value in job["origin"].items()},
            "PBS_JOBID": job_id, "PBS_JOBNAME": job["name"], "PBS_QUEUE": job["queue"], "PBS_NODEFILE": str(nodefile), "PBS_NODENUM": "0",
            "PBS_TASKNUM": "00000001", "PBS_MOMPORT": "15003", "PBS_JOBCOOKIE": "1337C16A26BAFC82083312FF0BC674AF", "PBS_ENVIRONMENT": "PBS_BATCH",
            "ENVIRONMENT": "BATCH", "PBS_JOBDIR": user.pw_dir, "NCPUS": str(job["chunks"][0]), "OMP_NUM_THREADS": str(job["chunks"][0]),
            "TMPDIR": "/var/tmp", "PBS_CONF_FILE": f"{self.directory}/pbs.conf"}
        bare = {name: value for name, value in environment.items() if name not in ("LOGNAME", "USER", "SHELL", "PBS_NODEFILE")} | {"PATH": "/bin:/usr/bin"}
        job["nodes"] = chosen
        for node in dict.fromkeys(chosen[1:]):
            if node != chosen[0]:
                self.mom(node, {"what": "join_job", "job": job_id, "environment": bare})
        script = self.directory / "jobs" / f"{job_id}.SC"
        (self.directory / "obits" / job_id).unlink(missing_ok=True)
        argv = [str(script)] if script.read_bytes().startswith(b"#!") else ["/bin/bash", str(script)]
        started = self.mom(chosen[0], {"what": "start_job", "job": job_id, "argv": argv, "environment": environment})
        if started is None:
            return
        job.update(state="R", substate=41, stime=time.time(), session=started["session"], runs=job["runs"] + 1)
        job["comment"] = f"Job run at {time.strftime('%a %b %d at %H:%M')} on {self.vnodes(job)}"
        job.pop("exit", None)

    def vnodes(self, job):
        return "+".join(f"({node}:ncpus={cpus})" for node, cpus in zip(job["nodes"], job["chunks"]))

    def follow(self, job_id, job):
        now = time.time()
        note = self.directory / "obits" / job_id
        if note.exists():
            job.update(state="E", substate=51, exit=self.exit_status(job, json.loads(note.read_text())["code"]), obittime=now)
            for node in dict.fromkeys(job["nodes"]):
                self.mom(node, {"what": "forget_job", "job": job_id})
            return
        lost = [node for node in dict.fromkeys(job["nodes"]) if now - self.down_since.get(node, now) >= self.settings["node_fail_requeue"]]
        if job["nodes"][0] in lost or (lost and job["attributes"].get("tolerate_node_failures") != "all"):
            self.lose(job_id, job)
            return
        if all(node not in self.down_since for node in job["nodes"]):
            job["substate"] = 42
        if "deleted" not in job and job["walltime"] and now - job["stime"] > job["walltime"]:
            job["deleted_by_walltime"] = job.get("deleted_by_walltime", now)
            if "terminated" not in job:
                job["terminated"] = now
                self.signal(job_id, job, signal.SIGTERM)
        since = job.get("deleted") or job.get("deleted_by_walltime")
        if since and now - since > self.settings["kill_delay"]:
            self.signal(job_id, job, signal.SIGKILL)

    def exit_status(self, job, code):
        if "deleted" in job:
            return 271
        return -29 if "deleted_by_walltime" in job else code

    def lose(self, job_id, job):
        if job["rerunnable"]:
            job.update(state="Q", substate=10, exit=-20, comment="Not Running: Insufficient amount of resource: host ")
        else:
            self.finish(job_id, job, 93, -20)

    def finish(self, job_id, job, substate, code):
        now = time.time()
        ends = {92: " and finished", 93: " and failed", 91: f" and terminated by {job['user']}@{SERVER}"}
        if "stime" in job and code != -20:
            job["comment"] += " and exceeded resource walltime" if code == -29 else ends[substate]
            for kind, path in (("OU", job["output"]), ("ER", job["error"])):
                spool = self.directory / "spool" / f"{job_id}.{kind}"
                if path != "/dev/null" and spool.exists():
                    try:
                        shutil.copy(spool, path)
                    except OSError:
                        pass
                spool.unlink(missing_ok=True)
        job.update(state="F", substate=93 if code == -29 else substate, mtime=now, history=now)
        if code is not None:
            job["exit"] = code
        else:
            job.pop("exit", None)

    # what is shown

    def attributes(self, job_id, job):
        now = time.time()
        ran = "stime" in job
        used = int(min(now, job.get("obittime", now)) - job["stime"]) if ran else 0
        resources = job["resources"]
        shown = {"Job_Name": job["name"], "Job_Owner": f"{job['user']}@{SERVER}"}
        if ran and job["state"] in "REF":
            shown["resources_used"] = {"cpupercent": 0, "cput": "00:00:00", "mem": "1272kb", "ncpus": sum(job["chunks"]), "vmem": "2500kb", "walltime": pbs_text.span(used)}
        shown |= {"job_state": job["state"], "queue": job["queue"], "server": SERVER, "Checkpoint": "u", "ctime": pbs_text.date(job["ctime"]),
                  "Error_Path": f"{SERVER}:{job['error']}"}
        if ran and job["state"] in "REF":
            numbers = [f"{node}/{i}" + (f"*{cpus}" if cpus > 1 else "") for i, (node, cpus) in enumerate(zip(job["nodes"], job["chunks"]))]
            shown |= {"exec_host": "+".join(numbers), "exec_vnode": self.vnodes(job)}
        shown |= {"Hold_Types": "u" if job["held"] else "n", "Join_Path": "n", "Keep_Files": "n", "Mail_Points": "a", "mtime": pbs_text.date(job["mtime"]),
                  "Output_Path": f"{SERVER}:{job['output']}", "Priority": 0, "qtime": pbs_text.date(job["ctime"]), "Rerunable": str(job["rerunnable"]),
                  "Resource_List": {"ncpus": sum(job["chunks"]), "nodect": len(job["chunks"]), "place": job["place"], "select": job["select"],
                                    **({"walltime": pbs_text.span(job["walltime"])} if job["walltime"] else {}),
                                    **{k: v for k, v in resources.items() if k not in ("select", "place", "walltime", "ncpus")}}}
        if ran and job["state"] in "REF":
            shown["stime"] = pbs_text.date(job["stime"])
            if "obittime" in job:
                shown["obittime"] = pbs_text.date(job["obittime"])
            shown |= {"session_id": job["session"], "jobdir": job["origin"]["HOME"]}
        shown["substate"] = job["substate"]
        variables = {f"PBS_O_{name}": value for name, value in job["origin"].items()}
        variables |= {"PBS_O_INTERACTIVE_AUTH_METHOD": "resvport", "PBS_O_INTERACTIVE_ENCRYPT_METHOD": "", "PBS_O_WORKDIR": job["workdir"],
                      "PBS_O_SYSTEM": "Linux", "PBS_O_QUEUE": job["queue"], "PBS_O_HOST": SERVER}
        shown["Variable_List"] = pbs_text.swallow_empty(variables) if self.settings["client"] == "v23" else variables
        if "comment" in job:
            shown["comment"] = job["comment"]
        if ran:
            shown |= {"etime": pbs_text.date(job["ctime"]), "run_count": job["runs"]}
        if "exit" in job:
            if job["state"] == "F":
                shown["Stageout_status"] = 1
            shown["Exit_status"] = job["exit"]
        shown["Submit_arguments"] = job["arguments"]
        if job["state"] == "F":
            shown["history_timestamp"] = int(job["history"])
        return shown | {"project": "_pbs_project_default", "Submit_Host": SERVER}


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[1])
    if sys.argv[2] == "server":
        Server(where).run()
    else:
        Mom(where, sys.argv[3]).run()
