"""Tokens a second of streams through the OpenAI door, for several daemons in turn in one run.

  python tests/bench/http_streams.py [--streams=32] [--tokens=512] [--rounds=5] SLUICED [SLUICED...]

Every round starts each daemon anew, opens the streams together and reads them to their ends with one thread that does
nothing else, so that the daemon's cost shows; CPU seconds are the daemon's own."""

import argparse
import json
import os
import pathlib
import selectors
import socket
import statistics
import subprocess
import time

MODEL = pathlib.Path(__file__).resolve().parents[2] / "deploy/models/classics-12m"


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_streams(address, streams, tokens):
    """Seconds from the first request to the last stream's end."""
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True,
                       "seed": 1}).encode()
    request = (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
               b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    host, port = address.split(":")
    poller = selectors.DefaultSelector()
    started = time.monotonic()
    for _ in range(streams):
        peer = socket.create_connection((host, int(port)), timeout=60)
        peer.sendall(request)
        peer.setblocking(False)
        poller.register(peer, selectors.EVENT_READ)
    tails = {}
    while poller.get_map():
        for key, _ in poller.select(60):
            piece = key.fileobj.recv(65536)
            if piece:
                tails[key.fileobj] = (tails.get(key.fileobj, b"") + piece)[-64:]
            else:
                poller.unregister(key.fileobj)
                key.fileobj.close()
    seconds = time.monotonic() - started
    assert all(b"data: [DONE]" in tail for tail in tails.values()), "a stream did not end well"
    return seconds


def measure(command, streams, tokens):
    daemon = subprocess.Popen([*command.split(), f"--model={MODEL}", "--listen=127.0.0.1:0", "--admin_listen=",
                               "--http_listen=127.0.0.1:0", "--log_level=error"], stdout=subprocess.PIPE, text=True)
    try:
        address = daemon.stdout.readline().rsplit("http at ", 1)[1].strip()
        read_streams(address, streams, 16)
        before = cpu_seconds(daemon.pid)
        seconds = read_streams(address, streams, tokens)
        return streams * tokens / seconds, (cpu_seconds(daemon.pid) - before) / (streams * tokens) * 1e6
    finally:
        daemon.kill()
        daemon.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("daemon", nargs="+", help="a path, or a command line in quotes")
    arguments = parser.parse_args()
    found = {daemon: [] for daemon in arguments.daemon}
    for _ in range(arguments.rounds):
        for daemon in arguments.daemon:
            found[daemon].append(measure(daemon, arguments.streams, arguments.tokens))
    for daemon, rows in found.items():
        rates = [rate for rate, _ in rows]
        cost = statistics.median(cost for _, cost in rows)
        print(f"{daemon}: {arguments.streams} streams, median {statistics.median(rates):.0f} tok/s "
              f"({min(rates):.0f} to {max(rates):.0f}), {cost:.1f} us of CPU a token")


if __name__ == "__main__":
    main()
