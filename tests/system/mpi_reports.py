"""What ranks say of the place they are in, and what they should say of it."""

import json

#: What each rank sees of itself, one JSON object a line, as a program; short writes do not mix, but print() makes two of
#: them where Python is told not to buffer.
PROGRAM = """
import json, os, socket
os.write(1, (json.dumps({
    "rank": int(os.environ["OMPI_COMM_WORLD_RANK"]),
    "host": socket.gethostname(),
    "cores": sorted(os.sched_getaffinity(0)),
    "given": os.environ["FARCALL_CORES"],
    "place": os.environ["FARCALL_MPI_NODES"],
    "devices": [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")],
}) + "\\n").encode())
"""


def report(comm):
    """The same of a rank of an MPI function."""
    import os
    import socket

    return {
        "rank": comm.Get_rank(),
        "host": socket.gethostname(),
        "cores": sorted(os.sched_getaffinity(0)),
        "given": os.environ["FARCALL_CORES"],
        "place": os.environ["FARCALL_MPI_NODES"],
        "devices": [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")],
    }


def rows_of(output):
    return sorted((json.loads(line) for line in output.splitlines()), key=lambda row: row["rank"])


def numbers(text):
    """[0, 1, 2, 8] of "0-2,8"."""
    ends = [part.partition("-") for part in text.split(",") if part]
    return [number for first, dash, last in ends for number in range(int(first), int(last if dash else first) + 1)]


def assert_as_placed(rows):
    """Each rank is on the host, on the cores and has the devices that the placement of its task names. True when it names cores:
    with more slots than processors none are bound."""
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    assert len({row["place"] for row in rows}) == 1, rows
    rank, bound, taken = 0, [], set()
    for share in rows[0]["place"].split(";"):
        node, ranks, cores, devices = share.split("|")
        cores, devices = numbers(cores), [name for name in devices.split(",") if name]
        for index in range(int(ranks)):
            row = rows[rank]
            rank += 1
            assert row["host"].split(".")[0] == node.split(".")[0], (row, share)
            each = len(devices) // int(ranks)
            wanted = ",".join(devices[index * each : (index + 1) * each]) or None
            assert row["devices"] == [wanted] * 3, (row, share)
            each = len(cores) // int(ranks)
            mine = cores[index * each : (index + 1) * each]
            assert numbers(row["given"]) == mine, (row, share)
            bound.append(bool(mine))
            if mine:
                assert row["cores"] == sorted(mine), (row, share)
                assert not taken & {(node, core) for core in mine}, (row, share)
                taken |= {(node, core) for core in mine}
    assert rank == len(rows) and len(set(bound)) == 1, rows
    return bound[0]
