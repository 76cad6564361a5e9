#!/usr/bin/env python3
"""The CPU figures of README.md beside this file: the bundled model on this machine, beside the targets and llama.cpp.

  tests/bench/cpu_table.py [--bin build/bin] [--peer-python PYTHON] [--save FILE]

Runs `sluice_bench engine`, starts `sluiced` (time to serving, `sluice bench` through gRPC, memory of 5,000 streams that
wait for their first token), and, when PYTHON has llama-cpp-python and gguf, tests/bench/llama_cpp_peer.py.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy/models/classics-12m"


class Daemon:
    def __init__(self, binaries, *flags):
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [binaries / "sluiced", f"--model={MODEL}", "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.start_seconds = time.perf_counter() - begin
        self.address = re.search(r" at (\S+:\d+)", line).group(1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def start_seconds(binaries):
    times = []
    for _ in range(5):
        daemon = Daemon(binaries)
        times.append(daemon.start_seconds)
        daemon.stop()
    return statistics.median(times)


def through_grpc(binaries, streams):
    daemon = Daemon(binaries)
    try:
        out = subprocess.run(
            [binaries / "sluice", f"--address={daemon.address}", "bench", f"--concurrency={streams}",
             f"--requests={streams * 6}", "--prompt-tokens=8", "--max-new-tokens=256", "--json"],
            check=True, capture_output=True, text=True).stdout
        report = json.loads(out)
        assert report["failed"] == report["rejected"] == 0, report["errors"]
        return report
    finally:
        daemon.stop()


def waiting_streams_mib(binaries):
    """From the test that also asserts the bound; None without the virtual environment of tests/run.sh."""
    python = ROOT / ".venv/bin/python"
    if not python.exists():
        return None
    out = subprocess.run([python, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-k", "five_thousand",
                          ROOT / "tests/e2e/test_capacity.py"], capture_output=True, text=True,
                         env={**os.environ, "SLUICE_BIN_DIR": str(binaries.resolve())}).stdout
    found = re.search(r"waiting streams: (\d+) MiB", out)
    return int(found.group(1)) if found else None


def cpu_name():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    return re.search(r"model name\s*:\s*(.*)", text).group(1)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/bin")
    ap.add_argument("--peer-python", default=sys.executable)
    ap.add_argument("--save", type=pathlib.Path)
    a = ap.parse_args()

    engine = json.loads(subprocess.run([a.bin / "sluice_bench", "engine", f"--model={MODEL}", "--json"], check=True,
                                       capture_output=True, text=True).stdout)
    start = start_seconds(a.bin)
    grpc = {n: through_grpc(a.bin, n) for n in (1, 16)}
    waiting = waiting_streams_mib(a.bin)
    peer = subprocess.run([a.peer_python, ROOT / "tests/bench/llama_cpp_peer.py", "--json"], capture_output=True, text=True)
    peer_name = "llama.cpp"
    if peer.returncode == 0:
        peer = json.loads(peer.stdout)
        peer_name = f"llama.cpp ({peer['version']})"
    else:
        print("no peer: " + peer.stderr.strip().splitlines()[-1], file=sys.stderr)
        peer = {}

    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release().split('-')[0]}, commit {commit}",
        "",
        f"| bundled 12 M model, bf16 | target | engine | through gRPC | {peer_name} |",
        "|---|--:|--:|--:|--:|",
    ]

    def row(what, target, ours, served, theirs):
        cells = [what, target] + [f"{x:,.0f}" if isinstance(x, float) else x or "" for x in (ours, served, theirs)]
        lines.append("| " + " | ".join(cells) + " |")

    row("decode, 1 stream, tok/s", "1,000", engine["decode_1_tok_s"], float(grpc[1]["new_tokens_per_second"]), peer.get("decode_1_tok_s"))
    row("decode, 16 streams, tok/s", "3,000", engine["decode_16_tok_s"], float(grpc[16]["new_tokens_per_second"]), peer.get("decode_16_tok_s"))
    row("prompt of 2,048 tokens, tok/s", "4,096", engine["prefill_2048_tok_s"], "", peer.get("prefill_2048_tok_s"))
    lines.append(f"| prompt of 2,048 tokens, s | 0.5 | {engine['prefill_2048_seconds']:.3f} | | |")
    lines.append(f"| start to serving, s | 0.3 | | {start:.3f} | |")
    lines.append(f"| 5,000 waiting streams, MiB resident | 191 | | {waiting if waiting else 'not measured'} | |")
    print("\n".join(lines))
    if a.save:
        a.save.parent.mkdir(parents=True, exist_ok=True)
        raw = {"engine": engine, "start_seconds": start, "grpc": grpc, "waiting_mib": waiting, "peer": peer}
        a.save.write_text("\n".join(lines) + "\n\n```json\n" + json.dumps(raw, indent=1) + "\n```\n")


if __name__ == "__main__":
    main()
