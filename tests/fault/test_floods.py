"""Floods on one connection: what the daemon's own bounds make of them (row 15)."""

import select
import threading
import time

import grpc
import pytest

from h2_peer import CONTINUATION, DATA, END_HEADERS, HEADERS, SETTINGS, Peer, call_headers, frame, header_block, message
from harness import PATIENCE, SCALE, collect, request, tokens_pb2, wait_until
from load import assert_alive

MIB = 1 << 20
EARLY = "sluice_early_calls_refused_total"
UNCLAIMED = "sluice_connections_evicted_total{reason=unclaimed_bytes}"


def continuation():
    """One call's headers that never end: 779 MiB of them."""
    piece = header_block([("x-" + "a" * 100, "b" * 8000)])
    yield frame(HEADERS, 0, 1, header_block(call_headers()))
    pieces = frame(CONTINUATION, 0, 1, piece) * 16
    for _ in range(779 * MIB // len(pieces)):
        yield pieces


def settings():
    many = frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 4000
    for _ in range(200 * MIB // len(many)):
        yield many


def resets(count):
    """Whole calls, each reset at once."""
    call = message(request("The", stop={"max_new_tokens": 1}))
    block = header_block(call_headers())
    for first in range(0, count, 100):
        yield b"".join(frame(HEADERS, END_HEADERS, 2 * i + 1, block) + frame(DATA, 1, 2 * i + 1, call) +
                       frame(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(first, min(first + 100, count)))


def heads(count, reset=False):
    """Heads of calls whose messages never come, on more streams than a connection may have: 15 bytes each. The peer never
    acknowledges the bound."""
    fields = call_headers("/grpc.health.v1.Health/Check")
    first = b"".join(b"\x40" + header_block([field])[1:] for field in fields)  # into the table of HPACK
    later = bytes(0x80 | (61 + len(fields) - i) for i in range(len(fields)))  # out of it; the newest is 62
    for begin in range(0, count, 100):
        yield b"".join(frame(HEADERS, END_HEADERS, 2 * i + 1, later if i else first) + (frame(3, 0, 2 * i + 1, b"\0\0\0\x08") if reset else b"")
                       for i in range(begin, min(begin + 100, count)))


class Flood:
    """Sends pieces on a connection of its own, reading what comes, until the end of either."""

    def __init__(self, daemon, pieces, seconds):
        self.daemon, self.sent, self.cut, self.peak = daemon, 0, False, 0
        peer = Peer(daemon.address)
        peer.socket.setblocking(False)
        self.before = daemon.rss_kib() / 1024
        end = time.monotonic() + seconds
        watcher = threading.Thread(target=self._watch)
        self._running = True
        watcher.start()
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view and time.monotonic() < end:
                    readable, writable, _ = select.select([peer.socket], [peer.socket], [], 1)
                    if readable and not peer.socket.recv(1 << 18):
                        raise ConnectionError
                    if writable:
                        sent = peer.socket.send(view)
                        self.sent += sent
                        view = view[sent:]
                if view:
                    break
            while time.monotonic() < end and self._busy(peer):
                pass
        except ConnectionError:
            self.cut = True
        finally:
            peer.close()
            time.sleep(1)
            self._running = False
            watcher.join()
        self.after = daemon.rss_kib() / 1024

    def _busy(self, peer):
        """True if the daemon still answers within a second."""
        readable, _, _ = select.select([peer.socket], [], [], 1)
        if readable and not peer.socket.recv(1 << 18):
            raise ConnectionError
        return bool(readable)

    def _watch(self):
        while self._running:
            self.peak = max(self.peak, self.daemon.rss_kib() / 1024)
            time.sleep(0.02)

    def __str__(self):
        return (f"{self.sent / MIB:.1f} MiB sent, {'cut off' if self.cut else 'not cut off'}, resident +{self.peak - self.before:.0f} "
                f"MiB at the peak, +{self.after - self.before:.0f} after")


@pytest.mark.parametrize("name, pieces, bound", [("CONTINUATION", continuation, 64), ("SETTINGS, acks read", settings, 64)])
def test_a_flood_before_any_call_is_cut_off(start_daemon, name, pieces, bound):
    daemon = start_daemon("--log_level=error")
    assert_alive(daemon)
    flood = Flood(daemon, pieces(), 60)
    print(f"flood of {name}: {flood}")
    assert flood.cut and flood.sent < 64 * MIB
    assert flood.peak - flood.before < bound
    assert daemon.metrics()[UNCLAIMED] == 1
    assert_alive(daemon)


@pytest.mark.parametrize("reset", [False, True], ids=["open", "reset"])
def test_heads_of_calls_that_never_come(start_daemon, tmp_path, reset):
    """Also for who has no credentials. Other connections are served meanwhile."""
    tokens = tmp_path / "tokens"
    tokens.write_text("")
    daemon = start_daemon("--log_level=error", f"--auth_tokens_file={tokens}")
    flood = Flood(daemon, heads(70_000, reset), 60)
    print(f"70,000 heads of calls, {'each reset' if reset else 'none reset'}: {flood}")
    assert flood.peak - flood.before < 100
    seen = [0.0]

    def all_are_counted():
        seen.append(daemon.metrics()[EARLY])
        return seen[-1] > 10_000 and seen[-1] == seen[-2]

    wait_until(all_are_counted, "what was sent is read and counted")
    assert daemon.process.poll() is None
    honest = Peer(daemon.address)
    stream = honest.open(request("The"))
    frames = [kind for kind, _, number, _ in honest.frames(5) if number == stream]
    honest.close()
    assert HEADERS in frames  # refused for its credentials, not for the others' heads
    assert daemon.metrics()[EARLY] == seen[-1]


@pytest.mark.parametrize("count", [10_000, pytest.param(55_200, marks=pytest.mark.timed)])
def test_whole_calls_that_are_reset(start_daemon, count):
    """A reset costs gRPC 1.51 some 10 KiB and the peer a hundred bytes. What has not come to its handler is bounded."""
    daemon = start_daemon("--log_level=error")
    assert_alive(daemon)
    flood = Flood(daemon, resets(round(count * SCALE)), 60)
    print(f"{count} resets, a peer that reads: {flood}")
    assert flood.peak - flood.before < 100
    assert_alive(daemon)
    # The daemon gives back what gRPC has freed.
    started = time.monotonic()
    wait_until(lambda: daemon.rss_kib() / 1024 < flood.before + 80, "the memory is free again", timeout=30)
    print(f"resident +{daemon.rss_kib() / 1024 - flood.before:.0f} MiB {time.monotonic() - started:.0f} s later")


def test_honest_clients_are_not_cut_off(start_daemon):
    """What a good client may send first: the largest message, many calls at once, and more than the bound in all."""
    daemon = start_daemon("--max_queued_tokens=100000000", "--log_level=error")
    stub = daemon.stub()
    for _ in range(3):  # one message too large is an error of its own call
        with pytest.raises(grpc.RpcError) as error:
            stub.Tokenize(tokens_pb2.TokenizeRequest(text="a" * 4_300_000), timeout=PATIENCE)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    largest = request([5] * 1_000_000, stop={"max_new_tokens": 1})
    with pytest.raises(grpc.RpcError) as error:  # more than its own bound admits, but it came whole
        collect(daemon.stub().Generate(request([4000] * 1_048_577, stop={"max_new_tokens": 1}), timeout=PATIENCE))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    call = daemon.stub().Generate(largest, timeout=PATIENCE)
    next(call)
    call.cancel()
    stub = daemon.stub()
    calls = [stub.Generate(request([5] * 100_000, stop={"max_new_tokens": 1}), timeout=PATIENCE) for _ in range(64)]
    for call in calls:
        next(call)
    for call in calls:
        call.cancel()
    samples = daemon.metrics()
    assert samples[UNCLAIMED] == 0
