#!/usr/bin/env python3
"""SIGTERM at a random step of 50 streams, again and again on one session directory (row 27).

  tests/fault/drain.py [--rounds=100] [--seed=1]

Each stream ends with its tokens or with a status that the daemon sent, and each commit that a client was told of, durable
or not, is there after the restart."""

import argparse
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import harness  # noqa: E402
from harness import PATIENCE, Result, in_threads, request  # noqa: E402
from sessions import Sessions  # noqa: E402

STREAMS = 50
SESSIONS = 20  # of the streams, those that commit to one each
# What gRPC's own library says when a stream ended and no status came.
MADE_UP = ("socket", "connection", "goaway", "transport", "stream removed", "broken pipe", "rst_stream")


class Report:
    def __init__(self):
        self.seconds = []
        self.whole = self.refused = self.dropped = 0
        self.commits = self.lost = 0

    def __str__(self):
        ordered = sorted(self.seconds)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        return (f"{len(ordered)} drains of {STREAMS} streams: p50 {ordered[len(ordered) // 2]:.2f} s, p99 {p99:.2f} s, "
                f"longest {ordered[-1]:.2f} s; {self.whole} streams whole, {self.refused} UNAVAILABLE, {self.dropped} "
                f"dropped without a status; {self.commits} commits told of, {self.lost} lost")


def stream(stub, i, seed, going, count):
    """One stream to its end: ("whole", its session or None), or ("refused" or "dropped", None)."""
    fields = {"session_id": f"s{i}"} if i < SESSIONS else {}
    # Some end by themselves before the drain's bound, some in it, some never do.
    tokens = random.Random(seed).choice([5, 40, 150, 1_000_000])
    result = Result()
    try:
        stop = {"max_new_tokens": tokens, "ignore_eos": True}
        for message in stub.Generate(request("The night", sampling={"seed": seed}, stop=stop, **fields), timeout=PATIENCE):
            result.add(message)
            if message.WhichOneof("event") == "delta":
                with count:
                    going[0] += 1
                    count.notify()
        if not result.only.finished:
            return "dropped", None
        return "whole", result.only.finished.session if fields else None
    except grpc.RpcError as error:
        from_daemon = (error.code() == grpc.StatusCode.UNAVAILABLE and
                       not any(word in error.details().lower() for word in MADE_UP))
        return ("refused" if from_daemon else "dropped"), None


def drain_once(directory, rng, told, report):
    daemon = harness.Daemon(f"--session_dir={directory}", "--drain_timeout=500ms", "--log_level=warn")
    try:
        sessions = Sessions(daemon)
        for id, session in told.items():
            now = sessions.get(id)
            report.lost += (now.etag, now.position) != (session.etag, session.position)
        if not told:
            for i in range(SESSIONS):
                told[f"s{i}"] = sessions.create(f"s{i}")
        stubs = [daemon.stub() for _ in range(5)]
        going, count = [0], threading.Condition()
        seeds = [rng.getrandbits(32) for _ in range(STREAMS)]
        ends = []
        runner = threading.Thread(target=lambda: ends.extend(in_threads(
            STREAMS, lambda i: stream(stubs[i % 5], i, seeds[i], going, count))))
        runner.start()
        # After a random number of deltas, of all streams together: some have not begun, some are over.
        moment = rng.randint(1, 3000)
        with count:
            count.wait_for(lambda: going[0] >= moment, PATIENCE)
        began = time.monotonic()
        daemon.send(signal.SIGTERM)
        code = daemon.wait()
        report.seconds.append(time.monotonic() - began)
        runner.join(PATIENCE)
        assert code == 0 and len(ends) == STREAMS, (code, daemon.stderr())
        assert not daemon.stderr(), daemon.stderr()
    finally:
        daemon.kill()
    for end, session in ends:
        setattr(report, end, getattr(report, end) + 1)
        if session is not None:
            told[session.id] = session
            report.commits += 1


def drain_rounds(directory, rounds, seed):
    rng, told, report = random.Random(seed), {}, Report()
    for _ in range(rounds):
        drain_once(directory, rng, told, report)
    # What the last one left.
    daemon = harness.Daemon(f"--session_dir={directory}")
    try:
        for id, session in told.items():
            now = Sessions(daemon).get(id)
            report.lost += (now.etag, now.position) != (session.etag, session.position)
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    return report


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-drain-") as directory:
        report = drain_rounds(directory, options.rounds, options.seed)
    print(report)
    sys.exit(report.dropped > 0 or report.lost > 0)
