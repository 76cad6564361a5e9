#!/usr/bin/env python3
"""What sessions cost on this machine, through gRPC, with the bundled model on the CPU.

  SLUICE_BIN_DIR=build/bin tests/bench/sessions_table.py [--long=1000000] [--shared] [--before SLUICED] [--save FILE]

With --shared, the rows of shared directories alone. With --before, only calls of one token on this daemon and on
another build of it, in turns.

Times are medians of what a client on the same machine sees. Step times are the daemon's own (/metrics), to the upper
bound of their bucket.
"""
import argparse
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import harness  # noqa: E402
from sessions import Sessions, Tier  # noqa: E402

STATE = 589_824
PLENTY = ("--max_sessions=100000", f"--host_state_bytes={512 << 20}")


def timed(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def first_token(sessions, id):
    """Seconds from the call to its first token."""
    stream = sessions.daemon.inference.Generate(harness.request(
        [5], session_id=id, commit_policy=2, stop={"max_new_tokens": 1, "ignore_eos": True}), timeout=600)
    return timed(lambda: next(m for m in stream if m.WhichOneof("event") == "delta"))


def fork_seconds(sessions):
    sessions.create("parent")
    sessions.say("parent", "The night", tokens=4)
    return statistics.median(timed(lambda: sessions.fork("parent")) for _ in range(200))


def turn_seconds(sessions, id, **fields):
    return statistics.median(timed(lambda: sessions.daemon.generate(
        [5], session_id=id, stop={"max_new_tokens": 1, "ignore_eos": True}, **fields)) for _ in range(100))


def shared_turns(directory):
    """Calls of one token that commit, with the session directory of one daemon, shared by one, and shared by two that
    take turns: by kind of commit, the three medians in seconds. All in the same run, a call of each after the other."""
    def daemon(name, *flags):
        return Sessions(harness.Daemon(*PLENTY, f"--session_dir={directory / name}", *flags))

    alone, one = daemon("alone"), daemon("one", "--session_dir_shared")
    two = [daemon("two", "--session_dir_shared") for _ in range(2)]
    worlds = [[alone], [one], two]
    try:
        medians = {}
        for kind, fields in (("plain", {}), ("durable", {"durable": True})):
            for world in worlds:
                world[0].create(kind)
            times = [[] for _ in worlds]
            for turn in range(300):
                for world, mine in zip(worlds, times):
                    sessions = world[turn % len(world)]
                    mine.append(timed(lambda: sessions.daemon.generate(
                        [5], session_id=kind, stop={"max_new_tokens": 1, "ignore_eos": True}, **fields)))
                time.sleep(0.002)  # what is not durable is written meanwhile, as it is between a client's turns
            medians[kind] = [statistics.median(mine) for mine in times]
        return medians
    finally:
        for sessions in (alone, one, *two):
            sessions.daemon.stop()


def before_and_now(before, directory):
    """Calls of one token on two builds of the daemon, one call of each after the other: by kind of call, the medians in
    seconds and the two quartiles around the median of the pairs' differences."""
    daemons = [Sessions(harness.Daemon(*PLENTY, f"--session_dir={directory / name}", program=program))
               for name, program in (("before", before), ("now", harness.BIN / "sluiced"))]
    try:
        for kind, fields in (("only reads", {"commit_policy": 2}), ("plain commit", {}), ("durable commit", {"durable": True})):
            for sessions in daemons:
                sessions.create(kind.replace(" ", "-"))
            pairs = []
            for turn in range(1000):
                times = [0.0, 0.0]
                for i in ((0, 1), (1, 0))[turn % 2]:
                    times[i] = timed(lambda: daemons[i].daemon.generate(
                        [5], session_id=kind.replace(" ", "-"), stop={"max_new_tokens": 1, "ignore_eos": True}, **fields))
                pairs.append(times)
            quartiles = statistics.quantiles((now - then for then, now in pairs), n=4)
            yield kind, [statistics.median(times) for times in zip(*pairs)], quartiles
    finally:
        for sessions in daemons:
            sessions.daemon.stop()


def resume_seconds(tier, directory):
    """First token of sessions whose state is in this tier."""
    device = ("--device_state_bytes=%d" % (2 * STATE),)
    flags = {"host": (*device, *PLENTY), "disk": (*device, f"--host_state_bytes={3 * STATE}",
                                                  f"--session_dir={directory}")}[tier]
    daemon = harness.Daemon(*flags)
    try:
        sessions = Sessions(daemon)
        names = [f"s{i}" for i in range(24)]
        for name in names:
            sessions.create(name)
            sessions.say(name, "The night", tokens=2, **({"durable": True} if tier == "disk" else {}))
        wanted = Tier.Value(f"STATE_TIER_{tier.upper()}")
        times = []
        for name in names * 3:
            if sessions.get(name).tier == wanted:
                times.append(first_token(sessions, name))
        assert len(times) >= 10, "too few states were where they should be"
        return statistics.median(times)
    finally:
        daemon.stop()


def p99_step(daemon):
    """Upper bound of the bucket that holds the 99th percentile of sluice_step_seconds."""
    buckets = sorted((float(name.split("le=")[1].rstrip("}").split(",")[0]), value)
                     for name, value in daemon.metrics().items() if name.startswith("sluice_step_seconds_bucket"))
    total = buckets[-1][1]
    return next(bound for bound, count in buckets if count >= 0.99 * total)


def step_p99(moving, directory):
    """Eight streams decode; with `moving`, others go on from the disk all the while."""
    daemon = harness.Daemon(f"--host_state_bytes={12 * STATE}", f"--session_dir={directory}",
                            f"--device_state_bytes={12 * STATE}")
    try:
        sessions = Sessions(daemon)
        if moving:
            for i in range(40):
                sessions.create(f"s{i}")
                sessions.say(f"s{i}", "The", tokens=1, durable=True)
        stop = threading.Event()

        def move():
            i = 0
            while not stop.is_set():
                sessions.say(f"s{i % 40}", [5], tokens=0, durable=True)
                i += 1

        mover = threading.Thread(target=move)
        if moving:
            mover.start()
        harness.in_threads(8, lambda i: daemon.generate("The", sampling={"seed": i}, stop={
            "max_new_tokens": 3000, "ignore_eos": True}, timeout=600))
        stop.set()
        if moving:
            mover.join()
        return p99_step(daemon)
    finally:
        daemon.stop()


def per_token_seconds(sessions, id, tokens=2000):
    only = sessions.daemon.generate(None, session_id=id, commit_policy=2, timeout=600,
                                    stop={"max_new_tokens": tokens, "ignore_eos": True}).only
    decode = only.finished.timings.decode
    return (decode.seconds + decode.nanos * 1e-9) / (tokens - 1)


def long_ratio(sessions, position):
    """Seconds a token at `position` and at 100, measured in turns."""
    for name, length in (("short", 100), ("long", position)):
        sessions.create(name)
        sessions.say(name, [1] + [300 + i * 7919 % 3000 for i in range(length - 1)], tokens=0, timeout=3000)
    pairs = [(per_token_seconds(sessions, "long"), per_token_seconds(sessions, "short")) for _ in range(5)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def prefix_seconds(daemon, length):
    """A call of one token whose prompt is cached but for its end, and the same computed anew."""
    def prompt(seed):
        return [1] + [300 + (seed + i) * 7919 % 3000 for i in range(length - 1)]

    def call(tokens, **fields):
        return daemon.generate(tokens, stop={"max_new_tokens": 1, "ignore_eos": True}, timeout=600, **fields)

    times = {"hit": [], "anew": []}
    for seed in range(3):
        tokens = prompt(seed)
        call(tokens)
        for _ in range(3):
            times["anew"].append(timed(lambda: call(tokens, bypass_prefix_cache=True)))
            times["hit"].append(timed(lambda: call(tokens)))
        assert call(tokens).only.finished.usage.reused_tokens >= length - 64
    return statistics.median(times["hit"]), statistics.median(times["anew"])


def milliseconds(seconds):
    return f"{seconds * 1e3:.2f} ms"


def shared_rows(base=None):
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        for kind, medians in shared_turns(base or pathlib.Path(directory)).items():
            yield (f"call of one token, {kind} commit: directory of one daemon / shared, one daemon / shared, two in turns",
                   " / ".join(f"{1e6 * median:,.0f} µs" for median in medians))


def before_rows(before):
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        for kind, medians, quartiles in before_and_now(before, pathlib.Path(directory)):
            yield (f"call of one token, {kind}: before / now; difference of a pair, quartiles",
                   " / ".join(f"{1e6 * median:,.0f} µs" for median in medians) + "; " +
                   " / ".join(f"{1e6 * quartile:+,.0f} µs" for quartile in quartiles))


def rows(long_position):
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        base = pathlib.Path(directory)
        daemon = harness.Daemon(*PLENTY, f"--session_dir={base / 'a'}")
        memory = harness.Daemon(*PLENTY)
        try:
            sessions, fast = Sessions(daemon), Sessions(memory)
            yield "fork, sessions in memory", milliseconds(fork_seconds(fast))
            yield "fork, on disk before it answers", milliseconds(fork_seconds(sessions))
            turns = {name: turn_seconds(s, "parent", **fields) for name, s, fields in (
                ("reads", fast, {"commit_policy": 2}), ("commits", fast, {}),
                ("durable", sessions, {"durable": True}))}
            yield "call of one token that only reads", milliseconds(turns["reads"])
            yield "the same, committed", milliseconds(turns["commits"])
            yield "the same, committed to disk (durable)", milliseconds(turns["durable"])
            yield "sessions per GiB, each tier", f"{(1 << 30) // STATE:,}"
            long, short = long_ratio(fast, long_position)
            yield f"a token at position {long_position:,} over one at 100", f"{long / short:.3f}"
        finally:
            daemon.stop()
            memory.stop()
        yield from shared_rows(base)
        daemon = harness.Daemon()
        try:
            for length in (1024, 8192, 65536):
                hit, anew = prefix_seconds(daemon, length)
                yield (f"call of one token with a cached prompt of {length:,}, against computing it anew",
                       f"{milliseconds(hit)} / {milliseconds(anew)}")
        finally:
            daemon.stop()
        for tier in ("host", "disk"):
            yield f"first token of a session whose state is in {tier}", milliseconds(resume_seconds(tier, base / tier))
        for moving in (False, True):
            yield (f"p99 of a step of 8 streams, {'states moving' if moving else 'none moving'}",
                   f"<= {milliseconds(step_p99(moving, base / f'step{moving}'))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--before", type=pathlib.Path)
    parser.add_argument("--save", type=pathlib.Path)
    options = parser.parse_args()
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    lines = [f"{os.cpu_count()} cores, Linux {platform.release()}, commit {commit.stdout.strip()}, load average before "
             f"{os.getloadavg()[0]:.1f}", "", "| bundled model on the CPU, through gRPC | |", "|---|--:|"]
    print("\n".join(lines), flush=True)
    chosen = before_rows(options.before) if options.before else shared_rows() if options.shared else rows(options.long)
    for name, value in chosen:
        lines.append(f"| {name} | {value} |")
        print(lines[-1], flush=True)
    if options.save:
        options.save.write_text("\n".join(lines) + "\n")
