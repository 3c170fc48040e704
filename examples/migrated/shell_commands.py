"""Shell commands with arguments, exit codes, time limits and results as dicts."""

import sys

# from globus_compute_sdk import Executor, ShellFunction
from farcall import Executor, ShellFunction

greet = ShellFunction("echo 'Hello,' {name}", stdout="greeting.out")
fails = ShellFunction("ls /no/such/{what}")
sleeps = ShellFunction("sleep {seconds}; echo never", walltime=1)
columns = ShellFunction("printf 'one two\\n' | awk '{{print $2}}'", return_dict=True)

with Executor(endpoint_id=sys.argv[1]) as gce:
    greeting, failure, late, column = (
        gce.submit(greet, name="World"),
        gce.submit(fails, what="place"),
        gce.submit(sleeps, seconds=60),
        gce.submit(columns),
    )
    print(greeting.result().stdout, end="")
    print(failure.result().returncode, failure.result().exception_name)
    print(late.result().returncode, late.result().exception_name)
    print(column.result()["stdout"], end="")
