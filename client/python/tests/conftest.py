import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_relay import FakeRelay  # noqa: E402

import farcall  # noqa: E402


@pytest.fixture(name="client")
def _client(monkeypatch):
    monkeypatch.setattr("farcall.client._NativeClient", FakeRelay)
    with farcall.Client() as client:
        yield client


@pytest.fixture(name="relay")
def _relay(client):
    return client._native


@pytest.fixture(name="executor")
def _executor(client):
    with farcall.Executor("here", client=client) as executor:
        yield executor
