"""For every test: the same seeds, few threads, no hub, and no connection to anything but this machine."""

import os
import random
import socket

import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

LOCAL = ("127.", "localhost", "::", "0.0.0.0")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuses connections and look-ups that leave this machine."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host):
        if host and not str(host).startswith(LOCAL):
            pytest.fail(f"a test reached for the network: {host!r}")

    def guarded(call):
        def wrapper(self, address):
            if self.family != socket.AF_UNIX:
                check(address[0])
            return call(self, address)

        return wrapper

    def guarded_look_up(host, *args, **kwargs):
        check(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
