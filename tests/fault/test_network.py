"""A network that takes packets and gives nothing back (row 14). Needs root, for a network of its own."""

import contextlib
import itertools
import os
import subprocess
import time

import pytest

from harness import BIN, clean_environment, wait_until
from load import assert_alive, seconds_until_idle


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


networks = itertools.count()


@pytest.fixture
def network():
    """(name of a network namespace, the address at which processes in it reach this one); a cable between them."""
    count = next(networks)  # the kernel takes its time to undo one
    name, number = f"sluice-{os.getpid()}-{count}", (os.getpid() + count) % 64
    here, there = f"10.203.{number}.1", f"10.203.{number}.2"
    if os.getuid() != 0 or ip("netns", "add", name, check=False).returncode != 0:
        pytest.skip("no right to make a network namespace")
    try:
        ip("link", "add", f"sl{number}a", "type", "veth", "peer", "name", f"sl{number}b", "netns", name)
        ip("addr", "add", f"{here}/30", "dev", f"sl{number}a")
        ip("link", "set", f"sl{number}a", "up")
        ip("-n", name, "addr", "add", f"{there}/30", "dev", f"sl{number}b")
        ip("-n", name, "link", "set", f"sl{number}b", "up")
        yield name, here
    finally:
        ip("netns", "del", name)


@contextlib.contextmanager
def lost_client(network, daemon, *flags):
    """A client that reads an endless stream, and by now cannot be heard: what the daemon sends still arrives, no
    acknowledgement comes back, nor anything else."""
    name, here = network
    client = subprocess.Popen(["ip", "netns", "exec", name, str(BIN / "sluice"), f"--address={daemon.address}", "generate",
                               "The sea", "--max_new_tokens=1000000", "--ignore_eos", *flags],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment())
    try:
        assert client.stdout.read(1)
        ip("-n", name, "route", "add", "blackhole", f"{here}/32")
        yield
    finally:
        client.kill()
        client.wait()


# Enough to fill what the system keeps for the connection before gRPC's ping, which then waits behind it unsent.
FLOOD = ("--n=16", "--logprobs=20", "--json")


@pytest.mark.parametrize("flags", [(), FLOOD], ids=["room for a ping", "no room for a ping"])
def test_a_peer_whose_packets_are_lost(network, start_daemon, flags):
    daemon = start_daemon(f"--listen={network[1]}:0", "--allow_plaintext", "--keepalive_time=1s", "--keepalive_timeout=1s",
                          "--write_stall=1h", "--log_level=error")
    with lost_client(network, daemon, *flags):
        seconds = seconds_until_idle(daemon)
    print(f"lost packets: the stream is gone {seconds:.1f} s after the first (keepalive 1 s + 1 s)")
    assert seconds < 10
    assert_alive(daemon)


def test_a_lost_peer_keeps_no_daemon_from_ending(network, start_daemon):
    daemon = start_daemon(f"--listen={network[1]}:0", "--allow_plaintext", "--keepalive_time=1h", "--write_stall=1h",
                          "--drain_timeout=500ms", "--flush_timeout=500ms", "--log_level=error")
    with lost_client(network, daemon, *FLOOD):
        wait_until(lambda: daemon.metrics()["sluice_sequences_paused"] == 16, "nothing more fits into the connection")
        started = time.monotonic()
        assert daemon.stop() == 0, daemon.stderr()
        seconds = time.monotonic() - started
    # Streams are told, then cancelled, 5 s each, then calls for 1 s, before the connection is cut off.
    print(f"a lost peer: ended {seconds:.1f} s after SIGTERM (drain 0.5 s)")
    assert seconds < 20
