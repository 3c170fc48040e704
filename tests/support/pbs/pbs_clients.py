#!/usr/bin/python3 -B
"""qsub, qstat, qselect, qdel, pbs_tmrsh and pbsdsh of the PBS look-alike, by the name it is called with."""

import getopt
import json
import os
import pathlib
import pwd
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(os.path.realpath(__file__)).parent))

import pbs_text
from pbs_daemons import SERVER, call, read_line

DIRECTORY = pathlib.Path(os.path.abspath(sys.argv[0])).parent.parent
KNOWN_RESOURCES = {"ncpus", "mem", "mpiprocs", "ngpus", "host", "ompthreads", "walltime", "select", "place", "nodes", "cput", "filesystems", "pmem", "vmem", "software"}
KNOWN_ATTRIBUTES = {"umask", "depend", "block", "group_list", "sandbox", "stagein", "stageout", "tolerate_node_failures", "project"}


def leave(code, text=""):
    sys.stderr.write(text + ("\n" if text and not text.endswith("\n") else ""))
    sys.exit(code)


def ask(program, request, code_when_down=162):
    """A server that is frozen keeps every client waiting; one that is down refuses the connection."""
    try:
        return call(DIRECTORY / "server.sock", request)
    except (ConnectionRefusedError, FileNotFoundError, ConnectionResetError, BrokenPipeError):
        pass
    text = f"Couldn't connect to cluster: {SERVER}" if program == "qdel" else f"{program}: cannot connect to server {SERVER} (errno=15010)"
    leave(code_when_down, f"Connection refused\n{text}")


def illegal(option):
    leave(2, f"qsub: illegal {option} value\n" + pbs_text.QSUB_USAGE)


# ---- qsub ---------------------------------------------------------------------------------------


class Submission:
    def __init__(self):
        self.name = self.queue = self.account = self.output = self.error = None
        self.held, self.rerunnable = False, True
        self.resources, self.attributes = {}, {}

    def take(self, options):
        for option, value in options:
            if option == "-N":
                plain = value and value.isascii() and all(c.isalnum() or c in "-_+." for c in value)
                if len(value) > 230:
                    leave(2, "qsub: Job name is too long ")
                self.name = value if plain else illegal("-N")
            elif option == "-r":
                self.rerunnable = value == "y" if value in ("y", "n") else illegal("-r")
            elif option == "-l":
                self.take_resources(value)
            elif option == "-W":
                name, _, text = value.partition("=")
                if name not in KNOWN_ATTRIBUTES or (name == "tolerate_node_failures" and text not in ("all", "none", "job_start")):
                    illegal("-W")
                self.attributes[name] = text
            elif option == "-h":
                self.held = True
            else:
                field = {"-q": "queue", "-A": "account", "-o": "output", "-e": "error"}.get(option)
                if field:
                    setattr(self, field, value)

    def take_resources(self, text):
        parts = [text] if text.startswith(("select=", "place=")) else text.split(",")
        for part in parts:
            name, _, value = part.partition("=")
            if name not in KNOWN_RESOURCES:
                leave(187, f"qsub: Unknown resource Resource_List.{name}")
            self.resources[name] = value

    def check(self):
        if "select" in self.resources and "ncpus" in self.resources:
            leave(5, 'qsub: "-lresource=" cannot be used with "select" or "place", resource is: ncpus')
        if "walltime" in self.resources and pbs_text.parse_span(self.resources["walltime"]) is None:
            leave(166, "qsub: Illegal attribute or resource value Resource_List.walltime")
        if self.resources.get("place", "free").split(":")[0] not in ("free", "pack", "scatter", "vscatter"):
            leave(166, "qsub: Illegal attribute or resource value Resource_List.place")

    def chunks(self):
        """(cpus, mpiprocs) of every chunk of select."""
        found = []
        for part in self.resources.get("select", f"1:ncpus={self.resources.get('ncpus', '1')}").split("+"):
            count, *more = part.split(":")
            values = dict(each.partition("=")[::2] for each in more)
            for name in values:
                if name not in KNOWN_RESOURCES:
                    leave(187, f"qsub: Unknown resource: {name}")
            cpus = values.get("ncpus", "1")
            if not count.isdigit() or int(count) < 1:
                leave(166, "qsub: Illegal attribute or resource value")
            if not cpus.isdigit():
                leave(166, "qsub: Illegal attribute or resource value select.ncpus")
            found += [(int(cpus), int(values.get("mpiprocs", 1)))] * int(count)
        return found


OPTIONS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:W:v:VXz"


def parse(arguments, directive=None):
    try:
        return getopt.getopt(arguments, OPTIONS)
    except getopt.GetoptError as error:
        if directive is not None:
            leave(1, f"qsub: invalid option -- '{error.opt[:1] or '-'}'\nqsub: directive error: {directive} ")
        leave(2, f"qsub: invalid option -- '{error.opt[:1]}'\n" + pbs_text.QSUB_USAGE)


def directives(text):
    for line in text.splitlines():
        if line.startswith("#PBS"):
            yield line[4:].strip()
        elif line.strip() and not line.startswith("#"):
            return


def qsub(arguments):
    command_line, rest = parse(arguments)
    path = pathlib.Path(rest[0]) if rest else None
    if path and not path.exists():
        leave(1, "qsub: script file:: No such file or directory")
    if path and not path.is_file():
        leave(1, "qsub: script not a file")
    text = path.read_text() if path else sys.stdin.read()
    if "\r\n" in text:
        leave(1, "qsub: script contains cr, lf")
    submission = Submission()
    for directive in directives(text):
        option, _, value = directive.partition(" ")
        submission.take(parse([option, value.strip()] if value else [option], directive)[0])
    submission.take(command_line)
    submission.check()
    chunks = submission.chunks()
    user = pwd.getpwuid(os.getuid())
    name = submission.name or (path.name if path else "STDIN")
    with tempfile.NamedTemporaryFile("w", suffix=".SC") as script:
        script.write(text)
        script.flush()
        origin = {name: os.environ[variable] for name, variable in
                  (("HOME", "HOME"), ("LANG", "LANG"), ("LOGNAME", "LOGNAME"), ("PATH", "PATH"), ("SHELL", "SHELL")) if variable in os.environ}
        origin.setdefault("HOME", user.pw_dir)
        workdir = os.getcwd()
        place = submission.resources.get("place") or ("pack" if "select" not in submission.resources else "free")
        answer = ask("qsub", {
            "what": "submit", "script": script.name, "name": name, "user": user.pw_name, "queue": submission.queue, "held": submission.held,
            "rerunnable": submission.rerunnable, "resources": submission.resources, "attributes": submission.attributes,
            "chunks": [cpus for cpus, _ in chunks], "mpiprocs": [mpi for _, mpi in chunks], "place": place,
            "select": submission.resources.get("select", f"1:ncpus={submission.resources.get('ncpus', '1')}"),
            "output": submission.output or f"{workdir}/{name}.o", "error": submission.error or f"{workdir}/{name}.e",
            "origin": origin, "workdir": workdir, "arguments": " ".join(arguments)})
    if answer["code"]:
        leave(answer["code"], f"qsub: {answer['error']}")
    if ("-z", "") not in command_line:
        print(answer["id"])


# ---- qstat, qselect, qdel -----------------------------------------------------------------------


def well_formed(job_id):
    number, _, server = job_id.partition(".")
    return number.rstrip("]").replace("[", "").isdigit() and server in ("", SERVER)


def qstat(arguments):
    letters, ids = getopt.getopt(arguments, "xEfF:D:QBtu:")
    options = dict(letters)
    style = lambda answer: pbs_text.V23 if answer["client"] == "v23" else pbs_text.MASTER
    if "-u" in options and "-f" in options:
        leave(2, "qstat: conflicting options.")
    if "-Q" in options:
        answer = ask("qstat", {"what": "queues"}, 255)
        chosen = {name: queue for name, queue in answer["queues"].items() if not ids or name in ids}
        sys.stdout.write(pbs_text.json_answer(SERVER, time.time(), style(answer), Queue=chosen))
        return 0
    as_json, express = options.get("-F") == "json", "-E" in options
    nothing = pbs_text.json_answer(SERVER, time.time()) if as_json else ""
    for each in ids:
        if not well_formed(each):
            if express:
                leave(1, "qstat: Express option can only be used with job ids")
            numeric = each.split(".")[0].isdigit()
            leave(1 if numeric else 170, f"qstat: illegally formed job identifier: {each}" if numeric else f"qstat: Unknown queue destination {each}")
    try:
        answer = call(DIRECTORY / "server.sock", {"what": "stat", "ids": ids, "x": "-x" in options})
    except (ConnectionRefusedError, FileNotFoundError, ConnectionResetError, BrokenPipeError):
        sys.stdout.write(nothing)
        leave(255, f"Connection refused\nqstat: cannot connect to server {SERVER} (errno=15010)")
    jobs, errors = answer["jobs"], answer["errors"]
    if "-x" in options and not answer["history"]:
        sys.stderr.write(f"qstat: {pbs_text.HISTORY_OFF} {ids[-1] + ('' if '.' in ids[-1] else '.' + SERVER) if ids else ''}\n")
    if express and jobs:
        errors = []  # unknown ones are left out without a word
    for _, text in errors[-1:] if express else errors:
        sys.stderr.write(f"qstat: {text}\n")
    if as_json and len(ids) > 1 and not express and answer["client"] == "master":
        jobs = dict(list(jobs.items())[:1])  # as it is, only the first
    if as_json:
        sys.stdout.write(pbs_text.json_answer(SERVER, time.time(), style(answer), Jobs=jobs))
    elif "-f" in options:
        for job_id, attributes in jobs.items():
            sys.stdout.write(pbs_text.dsv(job_id, attributes, options.get("-D", "|")) if options.get("-F") == "dsv" else
                             f"Job Id: {job_id}\n" + "".join(f"    {n} = {v}\n" for n, v in pbs_text.attribute_lines(attributes)) + "\n")
    elif jobs:
        sys.stdout.write(pbs_text.TABLE_HEAD)
        for job_id, a in jobs.items():
            used = a.get("resources_used", {}).get("cput", "0")
            sys.stdout.write(pbs_text.table_line(job_id, a["Job_Name"], a["Job_Owner"].split("@")[0], used, a["job_state"], a["queue"]))
    return errors[-1][0] if errors else 0


def qselect(arguments):
    options = dict(getopt.getopt(arguments, "xN:u:s:")[0])
    answer = ask("qselect", {"what": "select", "name": options.get("-N"), "states": options.get("-s"), "x": "-x" in options})
    if answer["code"]:
        leave(answer["code"], f"qselect: {answer['error']}")
    for job_id in answer["ids"]:
        print(job_id)
    return 0


def qdel(arguments):
    letters, ids = getopt.getopt(arguments, "xW:")
    if not ids:
        leave(2, pbs_text.QDEL_USAGE)
    for each in ids:
        if not well_formed(each):
            leave(1, f"qdel: illegally formed job identifier: {each}")
    answer = ask("qdel", {"what": "delete", "ids": ids})
    errors = answer["errors"]
    if errors and all(code == 153 for code, _ in errors) and len(errors) == len(ids):
        errors = errors[:1]  # of unknown ones alone only the first is named
    for _, text in errors:
        sys.stderr.write(f"qdel: {text}\n")
    return errors[-1][0] if errors else 0


# ---- within a job -------------------------------------------------------------------------------


def hosts():
    return pathlib.Path(os.environ.get("PBS_NODEFILE", DIRECTORY / "aux" / os.environ["PBS_JOBID"])).read_text().split()


def task(host, rank, argv):
    """Runs argv on a node of the job with our own streams; its exit code, 254 when its MoM is lost."""
    with socket.socket(socket.AF_UNIX) as mom:
        try:
            mom.connect(str(DIRECTORY / f"mom.{host}.sock"))
            request = {"what": "task", "job": os.environ["PBS_JOBID"], "argv": argv, "rank": rank}
            socket.send_fds(mom, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
            answer = json.loads(read_line(mom) or "{}")
        except OSError:
            return 254
        return answer.get("code", 254)


def pbs_tmrsh(arguments):
    host, *argv = arguments
    names = list(dict.fromkeys(hosts()))
    if host not in names:
        leave(255, f"{sys.argv[0]}: host \"{host}\" is not a node in job <{os.environ['PBS_JOBID']}>")
    return task(host, names.index(host), argv)


def pbsdsh(arguments):
    letters, argv = getopt.getopt(arguments, "n:")
    lines = list(enumerate(hosts()))
    if letters:
        lines = [lines[int(letters[0][1])]]
    return max([task(host, rank, argv) for rank, host in lines], default=0)


if __name__ == "__main__":
    program = pathlib.Path(sys.argv[0]).name
    sys.exit(globals()[program](sys.argv[1:]) or 0)
