"""Peers that break the protocol's manners: resets, floods, nonsense, connections that come and go or fall silent."""

import os
import random
import signal
import socket
import subprocess
import time

import pytest

from h2_peer import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, Peer, call_headers,
                     frame, header_block, message)
from harness import BIN, SCALE, clean_environment, request, wait_until
from load import ENDLESS, assert_alive, open_fds, seconds_until_idle


def test_rapid_reset(start_daemon):
    """gRPC 1.51 has no bound of its own here: this shows that the daemon lives, and what it costs (row 15)."""
    daemon = start_daemon("--log_level=error")
    assert_alive(daemon)
    before = daemon.rss_kib()
    resets = round(10_000 * SCALE)
    peer = Peer(daemon.address)
    call = message(request("The", stop={"max_new_tokens": 1}))
    block = header_block(call_headers())
    for i in range(resets):
        stream = 2 * i + 1
        peer.send(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, call) +
                  frame(3, 0, stream, b"\0\0\0\x08"))
    peak = daemon.rss_kib()
    started = time.monotonic()
    peer.close()
    assert_alive(daemon)
    recovered = time.monotonic() - started
    print(f"rapid reset: {resets} resets cost {(peak - before) / 1024:.0f} MiB at the peak, "
          f"{(daemon.rss_kib() - before) / 1024:.0f} MiB after; serving again in {recovered:.1f} s")
    assert recovered < 30


FLOODS = {
    "continuation": lambda peer: _continuation_flood(peer),
    "ping": lambda peer: peer.send(frame(PING, 0, 0, b"12345678") * 1000),
    "settings": lambda peer: peer.send(frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 1000),
    "empty data": lambda peer: peer.send(frame(DATA, 0, 1) * 1000),
    "window": lambda peer: peer.send(frame(8, 0, 0, b"\0\0\0\1") * 1000),
    "garbage": lambda peer: peer.send(random.Random(1).randbytes(20_000)),
}


def _continuation_flood(peer):
    piece = header_block([("x-" + "a" * 100, "b" * 8000)])
    peer.send(frame(HEADERS, 0, 1, header_block(call_headers())))
    for _ in range(100):
        peer.send(frame(CONTINUATION, 0, 1, piece))


@pytest.mark.parametrize("name", FLOODS)
def test_flood(start_daemon, name):
    daemon = start_daemon("--log_level=error")
    assert_alive(daemon)
    before, bytes_sent, end = daemon.rss_kib(), 0, time.monotonic() + 2
    rounds = 0
    while time.monotonic() < end:
        peer = Peer(daemon.address)
        try:
            for _ in range(10):
                FLOODS[name](peer)
                for kind, *_ in peer.frames():
                    if kind == GOAWAY:
                        raise ConnectionError("GOAWAY")
        except (ConnectionError, socket.timeout):
            pass  # thrown out, as it should be
        finally:
            peer.close()
        rounds += 1
    grown = daemon.rss_kib() - before
    assert_alive(daemon)
    print(f"flood of {name}: {rounds} connections in 2 s, {grown / 1024:.1f} MiB at the end, alive")
    assert grown < 256 * 1024


BAD_HEADERS = {
    "te": [(k, "x" if k == "te" else v) for k, v in call_headers()],
    "te and 9 KB": [(k, "x" if k == "te" else v) for k, v in call_headers()] + [("x-large", "y" * 9000)],
    "scheme": [(k, "gopher" if k == ":scheme" else v) for k, v in call_headers()],
    "no path": [h for h in call_headers() if h[0] != ":path"],
    "two paths": call_headers() + [(":path", "/other")],
    "upper case": call_headers() + [("X-Upper", "1")],
    "bad -bin": call_headers() + [("x-junk-bin", "!!! not base64 !!!")],
    "control bytes": call_headers() + [("x-bytes", b"\x00\x01\r\n\x7f")],
    "timeout": call_headers() + [("grpc-timeout", "99999999999999H")],
    "negative timeout": call_headers() + [("grpc-timeout", "-5S")],
    "encoding": call_headers() + [("grpc-encoding", "no-such")],
    "content type": [(k, "text/html" if k == "content-type" else v) for k, v in call_headers()],
    "unknown method": call_headers("/sluice.v1.InferenceService/NoSuch"),
    "path traversal": call_headers("/../../etc/passwd"),
    "method": [(k, "DELETE" if k == ":method" else v) for k, v in call_headers()],
}


def test_bad_headers(start_daemon):
    """Each on a connection of its own and each beside a good call."""
    daemon = start_daemon("--log_level=error")
    for name, headers in BAD_HEADERS.items():
        peer = Peer(daemon.address)
        try:
            peer.open(request("The", stop={"max_new_tokens": 1}), headers)
            for _ in peer.frames(patience=0.2):
                pass
        except ConnectionError:
            pass
        peer.close()
        assert daemon.process.poll() is None, name
    assert_alive(daemon)
    print(f"bad headers: {len(BAD_HEADERS)} kinds, alive after each")


def test_bad_messages(start_daemon):
    """Frames that lie about the message inside, and messages that are none."""
    daemon = start_daemon("--log_level=error")
    good = message(request("The", stop={"max_new_tokens": 1}))
    bodies = [b"", good[:3], good[:-1], good + good, b"\1" + good[1:], b"\xff" * 5, b"\0\xff\xff\xff\xff" + good,
              b"\0\0\0\0\0", b"\0\0\0\0\5\xff\xff\xff\xff\xff", *(random.Random(i).randbytes(60) for i in range(40))]
    for body in bodies:
        peer = Peer(daemon.address)
        try:
            peer.send(frame(HEADERS, END_HEADERS, 1, header_block(call_headers())) + frame(DATA, END_STREAM, 1, body))
            for _ in peer.frames(patience=0.05):
                pass
        except ConnectionError:
            pass
        peer.close()
    assert_alive(daemon)
    print(f"bad messages: {len(bodies)} bodies, alive")


def test_connection_churn(start_daemon):
    daemon = start_daemon("--log_level=error")
    assert_alive(daemon)
    daemon.channel.close()
    host, port = daemon.address.rsplit(":", 1)
    wait_until(lambda: daemon.metrics()["sluice_connections"] <= 1, "nobody is connected")
    before, rounds, started = open_fds(daemon), round(10_000 * SCALE), time.monotonic()
    greetings = [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(200)), b"\x16\x03\x01"]
    for i in range(rounds):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(greetings[i % len(greetings)])
    rate = rounds / (time.monotonic() - started)
    wait_until(lambda: daemon.metrics()["sluice_connections"] <= 1, "every connection is forgotten")
    wait_until(lambda: open_fds(daemon) <= before + 2, "no descriptor is left")
    assert_alive(daemon)
    print(f"churn: {rounds} connections at {rate:.0f} a second; {open_fds(daemon) - before} descriptors more than before")


def test_half_open_peer(start_daemon):
    """A client that is stopped answers no ping; its kernel still does TCP."""
    daemon = start_daemon("--keepalive_time=1s", "--keepalive_timeout=1s", "--write_stall=1h", "--log_level=error")
    client = subprocess.Popen([str(BIN / "sluice"), f"--address={daemon.address}", "generate", "The sea",
                               "--max_new_tokens=1000000", "--ignore_eos"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment())
    try:
        assert client.stdout.read(1)
        client.send_signal(signal.SIGSTOP)
        seconds = seconds_until_idle(daemon)
    finally:
        client.kill()
        client.wait()
    print(f"half-open: its stream is gone {seconds:.1f} s after the client stopped (keepalive 1 s + 1 s)")
    assert seconds < 10
    assert_alive(daemon)


def test_clients_that_die_at_once(start_daemon):
    """Between accept and first token: the connection is reset at a random byte of the call (row 35)."""
    daemon = start_daemon("--log_level=error")
    rng = random.Random(5)
    rounds = round(10_000 * SCALE)
    call = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) +
            frame(HEADERS, END_HEADERS, 1, header_block(call_headers())) +
            frame(DATA, END_STREAM, 1, message(request("The", stop=ENDLESS))))
    host, port = daemon.address.rsplit(":", 1)
    for i in range(rounds):
        connection = socket.create_connection((host, int(port)), timeout=30)
        connection.sendall(call[:rng.choice((len(call), rng.randint(1, len(call))))])
        if i % 10 == 0:
            time.sleep(0.003)  # long enough for the daemon to have begun, more often than not
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close sends RST
        connection.close()
    seconds = seconds_until_idle(daemon)
    reached = sum(value for name, value in daemon.metrics().items()
                  if name.startswith("grpc_server_handled_total") and "Generate" in name)
    assert_alive(daemon)
    print(f"clients that die: {rounds}, of which {reached:.0f} reached a handler; nothing left {seconds:.1f} s later")
    assert reached > rounds / 50


def test_no_peer_makes_a_thread(start_daemon):
    daemon = start_daemon("--log_level=error")
    assert_alive(daemon)
    before = len(os.listdir(f"/proc/{daemon.process.pid}/task"))
    peers = [Peer(daemon.address) for _ in range(200)]
    for peer in peers:
        peer.open(request("The", stop={"max_new_tokens": 4}))
    grown = len(os.listdir(f"/proc/{daemon.process.pid}/task")) - before
    for peer in peers:
        peer.close()
    assert_alive(daemon)
    print(f"200 connections: {grown} threads more")
    assert grown <= 16
