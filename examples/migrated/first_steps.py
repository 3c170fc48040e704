"""Estimates pi on an endpoint, one task a sample, with futures as they complete."""

import concurrent.futures
import sys

# from globus_compute_sdk import Executor
from farcall import Executor


def pi(num_points):
    from random import random

    inside = 0
    for _ in range(num_points):
        x, y = random(), random()
        if x**2 + y**2 < 1:
            inside += 1
    return inside * 4 / num_points


def mean(*values):
    return sum(values) / len(values)


endpoint_id = sys.argv[1]
with Executor(endpoint_id=endpoint_id, label="pi") as gce:
    estimates = [gce.submit(pi, 20_000) for _ in range(8)]
    values = [future.result() for future in concurrent.futures.as_completed(estimates)]
    average = gce.submit(mean, *values).result()

print("pi is about %.2f, from %d tasks" % (average, len(values)))
