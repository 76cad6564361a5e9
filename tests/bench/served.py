#!/usr/bin/env python3
"""The 1.3B shape with random weights served on a GPU: start to serving, and tokens a second through gRPC beside the engine's.

  tests/bench/served.py --model DIR [--bin build/bin] [--streams 1,8,32,256] [--device cuda]

DIR is written first where it is not there (tests/bench/random_checkpoint.py). Client and daemon share the host.
"""
import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Daemon:
    def __init__(self, a, *flags):
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [a.bin / "sluiced", f"--model={a.model}", f"--device={a.device}", "--listen=127.0.0.1:0",
             "--admin_listen=127.0.0.1:0", "--http_listen=", "--log_level=debug", *flags],
            stdout=subprocess.PIPE, stderr=open(a.model / "sluiced.log", "w"), text=True)
        line = self.process.stdout.readline()
        self.seconds = time.perf_counter() - begin
        if not line:
            raise SystemExit("sluiced: " + (a.model / "sluiced.log").read_text())
        self.device = re.search(r" on (\S+) at ", line).group(1)
        self.address = re.search(r" at (\S+:\d+)", line).group(1)
        self.stages = re.findall(r"startup stage=(\S+) seconds=(\S+)", (a.model / "sluiced.log").read_text())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def through_grpc(a, daemon, streams):
    tokens = 512 if streams <= 32 else 256
    out = subprocess.run(
        [a.bin / "sluice", f"--address={daemon.address}", "bench", f"--concurrency={streams}", f"--requests={streams * 2}",
         "--prompt-tokens=8", f"--max-new-tokens={tokens}", "--json"], check=True, capture_output=True, text=True).stdout
    report = json.loads(out)
    assert report["failed"] == report["rejected"] == 0, report["errors"]
    return report["new_tokens_per_second"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/bin")
    ap.add_argument("--model", type=pathlib.Path, required=True)
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--streams", default="1,8,32,256")
    a = ap.parse_args()
    if not (a.model / "model.safetensors").exists():
        subprocess.run([sys.executable, ROOT / "tests/bench/random_checkpoint.py", a.model], check=True)
    streams = [int(n) for n in a.streams.split(",")]
    starts = []
    for invariant in ("true", "false"):
        engine = json.loads(subprocess.run(
            [a.bin / "sluice_bench", "engine", f"--model={a.model}", f"--device={a.device}",
             f"--batch_invariant={invariant}", "--json"], check=True, capture_output=True, text=True).stdout)
        daemon = Daemon(a, f"--batch_invariant={invariant}")
        starts.append(daemon.seconds)
        print(f"--batch_invariant={invariant}, on {daemon.device}; start to serving {daemon.seconds:.2f} s (" +
              ", ".join(f"{stage} {float(seconds):.2f}" for stage, seconds in daemon.stages) + ")", flush=True)
        for n in streams:
            alone, served = engine.get(f"decode_{n}_tok_s"), through_grpc(a, daemon, n)
            print(f"  {n:>4} streams: engine {alone:>8.0f} tok/s, through gRPC {served:>8.0f} ({100 * served / alone:.0f} %)",
                  flush=True)
        prompts = [(int(k.split("_")[1]), v) for k, v in engine.items() if k.startswith("prefill_") and k.endswith("tok_s")]
        print("  one prompt alone, tok/s: " + ", ".join(f"L={n} {v:.0f}" for n, v in prompts), flush=True)
        daemon.stop()
    print(f"start to serving, from page cache: {min(starts):.2f} s")


if __name__ == "__main__":
    main()
