#!/usr/bin/env python3
"""Mixed normal and hostile traffic against one daemon; prints how memory, descriptors, threads and latency move.

Usage: soak.py [MINUTES]   (default 30; tests/fault/test_soak.py runs two)
Exit code 1 if anything grows.
"""

import pathlib
import random
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import grpc  # noqa: E402

import harness  # noqa: E402
from h2_peer import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, Peer, call_headers, frame, header_block, message  # noqa: E402,E501
from harness import inference_pb2_grpc, request, score_pb2  # noqa: E402
from load import ENDLESS, open_fds  # noqa: E402

PAUSE = 0.02  # between two acts of one actor: the machine is also for the daemon
WARM_UP = 180.0  # seconds at most, without pauses: the allocator keeps what the worst moments took, so these come first


def normal(daemon, rng):
    with grpc.insecure_channel(daemon.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for _ in range(20):
            normal_call(stub, rng)


def normal_call(stub, rng):
    kind = rng.randrange(3)
    if kind == 0:
        list(stub.Generate(request("The sea", sampling={"seed": rng.randrange(99)}), timeout=60))
    elif kind == 1:
        list(stub.Score(score_pb2.ScoreRequest(tokens={"ids": [300] * 200}), timeout=60))
    else:
        call = stub.Generate(request("The", stop=ENDLESS), timeout=60)
        next(call)
        call.cancel()


def hostile(daemon, rng):
    kind = rng.randrange(6)
    if kind == 0:
        host, port = daemon.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(rng.randbytes(rng.randrange(200)))
        return
    peer = Peer(daemon.address, window=0 if kind == 1 else None)
    try:
        for _ in range(20):
            if kind <= 2:
                peer.reset(peer.open(request("The", stop=ENDLESS)))
            elif kind == 3:
                peer.send(frame(PING, 0, 0, b"12345678"))
            elif kind == 4:
                peer.send(frame(HEADERS, 0, 1, header_block(call_headers())) + frame(CONTINUATION, 0, 1, b"\x00"))
            else:
                body = message(request("The"))[:rng.randrange(40)]
                peer.send(frame(HEADERS, END_HEADERS, peer.next_stream, header_block(call_headers())) +
                          frame(DATA, END_STREAM, peer.next_stream, body))
                peer.next_stream += 2
            for _ in peer.frames():
                pass
    finally:
        peer.close()


def slope(samples):
    """Least squares, per hour, of (seconds, value)."""
    n = len(samples)
    mean_t, mean_v = (sum(s[i] for s in samples) / n for i in (0, 1))
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    return 3600 * sum((t - mean_t) * (v - mean_v) for t, v in samples) / spread


def run(minutes):
    daemon = harness.Daemon("--log_level=error", "--write_stall=2s")
    stop, errors = threading.Event(), []
    warm_up = min(WARM_UP, minutes * 60 / 4)
    begin = time.monotonic()
    # Acts done, of each actor.
    acts = {"normal": 0, "hostile": 0}

    def actor(act, seed):
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                act(daemon, rng)
            except (grpc.RpcError, OSError):
                pass  # refused or thrown out: it may be
            except Exception as error:  # noqa: BLE001
                errors.append(repr(error))
            acts[act.__name__] += 1
            if time.monotonic() - begin > warm_up:
                stop.wait(PAUSE)

    def latency():
        started = time.monotonic()
        next(daemon.inference.Generate(request("The", stop={"max_new_tokens": 1}), timeout=60))
        return time.monotonic() - started

    threads = [threading.Thread(target=actor, args=(act, seed), daemon=True)
               for seed, act in enumerate((normal, normal, hostile, hostile))]
    for thread in threads:
        thread.start()
    samples = []
    try:
        while time.monotonic() - begin < minutes * 60:
            time.sleep(max(1, minutes * 60 / 120))
            if time.monotonic() - begin < warm_up:
                continue
            samples.append((time.monotonic() - begin, daemon.rss_kib() / 1024, open_fds(daemon),
                            harness.proc_status(daemon.process.pid, "Threads"), 1000 * latency()))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    half = len(samples) // 2
    figures = {}
    for i, name in enumerate(("MiB resident", "descriptors", "threads", "ms to a first token"), start=1):
        first, last = (sorted(s[i] for s in part) for part in (samples[:half], samples[half:]))
        figures[name] = (slope([(s[0], s[i]) for s in samples]), first[len(first) // 2], last[len(last) // 2])
        print(f"soak: {name}: {figures[name][1]:.1f} in the first half, {figures[name][2]:.1f} in the second, slope "
              f"{figures[name][0]:+.1f} an hour")
    print(f"soak: {minutes} minutes, {acts['normal']} normal and {acts['hostile']} hostile acts")
    daemon.wait_idle()
    assert not errors, errors[:3]
    assert daemon.stop() == 0, daemon.stderr()
    _, first, last = figures["MiB resident"]
    assert last < first * 1.1 + 16, "memory grows"
    _, first, last = figures["threads"]
    assert last <= first + 2, "threads grow"
    _, first, last = figures["descriptors"]
    assert last <= first * 1.2 + 20, "descriptors grow"


if __name__ == "__main__":
    try:
        run(float(sys.argv[1]) if len(sys.argv) > 1 else 30)
    except AssertionError as problem:
        sys.exit(f"soak: {problem}")
