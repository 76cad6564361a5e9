"""A network that takes packets and gives nothing back (row 14). Needs root, for a network of its own."""

import os
import subprocess

import pytest

from harness import BIN, clean_environment
from load import assert_alive, seconds_until_idle


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


@pytest.fixture
def network():
    """(name of a network namespace, the address at which processes in it reach this one); a cable between them."""
    name, number = f"sluice-{os.getpid()}", os.getpid() % 64
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


def test_a_peer_whose_packets_are_lost(start_daemon, network):
    """What the daemon sends still arrives; no acknowledgement comes back, nor anything else."""
    name, here = network
    daemon = start_daemon(f"--listen={here}:0", "--allow_plaintext", "--keepalive_time=1s", "--keepalive_timeout=1s",
                          "--write_stall=1h", "--log_level=error")
    client = subprocess.Popen(["ip", "netns", "exec", name, str(BIN / "sluice"), f"--address={daemon.address}", "generate",
                               "The sea", "--max_new_tokens=1000000", "--ignore_eos"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment())
    try:
        assert client.stdout.read(1)
        ip("-n", name, "route", "add", "blackhole", f"{here}/32")
        seconds = seconds_until_idle(daemon)
    finally:
        client.kill()
        client.wait()
    print(f"lost packets: the stream is gone {seconds:.1f} s after the first (keepalive 1 s + 1 s)")
    assert seconds < 10
    assert_alive(daemon)
