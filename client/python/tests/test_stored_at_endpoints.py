"""Client.stored() and Client.release(): pages, batches, endpoints that are away."""

import pytest

import farcall
from farcall.errors import from_code

TASK = "0190b0a0-0000-7000-8000-00000000%04x"


@pytest.fixture(name="endpoints")
def _endpoints(relay):
    """Files by endpoint id; None: it is not connected."""
    files = {"1": ["a", "b", "c"], "2": None, "3": [], "4": ["d"]}

    def page(endpoint, after, limit):
        if files[endpoint] is None:
            raise from_code("unreachable", "endpoint two is not connected")
        first = files[endpoint].index(after) + 1 if after else 0
        names = files[endpoint][first : first + limit]
        more = first + limit < len(files[endpoint])
        return {"stored": [{"task_id": name, "bytes": 5, "there": True} for name in names], "after": names[-1] if more else None}

    relay.call_endpoint_list = lambda: {"endpoints": [{"name": "n" + one, "endpoint_id": one} for one in files]}
    relay.call_task_stored = page
    return files


def test_all_endpoints_are_listed_in_pages_and_those_that_are_away_are_named(client, endpoints):
    found = list(client.stored(page_size=2))
    assert [one["task_id"] for one in found] == ["a", "b", "c", None, "d"]
    assert found[3] == {"endpoint": "n2", "endpoint_id": "2", "task_id": None, "bytes": 0, "there": None, "state": "not connected"}
    assert sum(one["bytes"] for one in found) == 20
    assert [one["task_id"] for one in client.stored("4")] == ["d"]
    with pytest.raises(farcall.Unreachable, match="endpoint two is not connected"):
        list(client.stored("2"))


def test_a_release_goes_on_while_there_is_more_and_in_batches(client, relay):
    asked, left = [], [700, 300, 500]

    def release(**what):
        asked.append(len(what.get("tasks", ())) or what["group"])
        return {"files": left[0], "bytes": 10 * left[0], "more": left.pop(0) == 700, "failed": []}

    relay.call_task_release = release
    assert client.release([TASK % i for i in range(1500)]) == {"files": 1500, "bytes": 15000}
    assert asked == [1000, 1000, 500]
    left.append(1)
    assert client.release(group="night") == {"files": 1, "bytes": 10} and asked[-1] == "night"
    assert client.release([]) == {"files": 0, "bytes": 0}
    left.append(2)
    assert client.release(TASK % 7)["files"] == 2 and asked[-1] == 1


def test_an_endpoint_that_is_away_ends_a_release_with_what_went_elsewhere(client, relay):
    failed = [{"endpoint": "two", "error": "unreachable", "text": "endpoint two is not connected"}]
    relay.call_task_release = lambda tasks: {"files": 3, "bytes": 30, "more": True, "failed": failed}
    text = r"endpoint two is not connected: what it keeps of these tasks stays, release them again \(3 files, 30 bytes went elsewhere\)"
    with pytest.raises(farcall.Unreachable, match=text):
        client.release([TASK % 1])


@pytest.mark.parametrize("what", [{}, {"task_ids": [TASK % 1], "group": "night"}])
def test_tasks_or_a_group_are_released(client, what):
    with pytest.raises(farcall.InvalidRequest, match="release.. needs task ids or a group, one of both"):
        client.release(**what)


def test_a_lost_result_is_a_kind_of_not_found():
    lost = from_code("result_lost", "gone")
    assert type(lost) is farcall.ResultLost and isinstance(lost, farcall.NotFound) and lost.code == "result_lost"
    assert type(from_code("not_found", "gone")) is farcall.NotFound
