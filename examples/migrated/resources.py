"""Tasks with different needs from one executor, and values as JSON."""

import sys

# import globus_compute_sdk
# from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, JSONData
import farcall as globus_compute_sdk
from farcall.serialize import AllCodeStrategies, ComputeSerializer, JSONData


def count_cpus(label):
    import os

    return {"label": label, "cpus": len(os.sched_getaffinity(0)) > 0}


serializer = ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=JSONData())
with globus_compute_sdk.Executor(endpoint_id=sys.argv[1], serializer=serializer) as gce:
    gce.resource_specification = {"num_nodes": 1}
    one = gce.submit(count_cpus, "one node")
    gce.resource_specification = {"priority": -5}
    gce.result_serializers = ["globus_compute_sdk.serialize.JSONData"]
    other = gce.submit(count_cpus, "urgent")
    gce.resource_specification = None
    third = gce.submit(count_cpus, "no wishes")
    for future in (one, other, third):
        print(future.result())
