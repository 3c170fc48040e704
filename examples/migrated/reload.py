"""Submits, forgets, and finds its tasks again in another process by the id of their group."""

import subprocess
import sys

# from globus_compute_sdk import Executor
from farcall import Executor


def square(x):
    return x * x


if len(sys.argv) == 2:
    gce = Executor(endpoint_id=sys.argv[1])
    for number in range(5):
        gce.submit(square, number)
    gce.shutdown(wait=True)
    task_group_id = gce.task_group_id
    subprocess.run([sys.executable, __file__, sys.argv[1], str(task_group_id)], check=True)
else:
    with Executor(endpoint_id=sys.argv[1]) as gce:
        futures = gce.reload_tasks(sys.argv[2])
        print(sorted(future.result() for future in futures))
