"""Load and measurements that several fault tests share."""

import contextlib
import json
import os
import subprocess
import time

import grpc

from harness import BIN, MODEL, PATIENCE, clean_environment, request, wait_until

ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}


def slots(count):
    """The flag for so many state slots."""
    config = json.loads((MODEL / "config.json").read_text())
    hidden = config["hidden_size"]
    state = config["num_hidden_layers"] * (hidden // 2) * hidden // config["num_heads"] * 4
    return f"--device_state_bytes={count * state}"


@contextlib.contextmanager
def own_cores(whose):
    """What is started within has half of the machine for itself: "daemon" the one, "clients" the other."""
    every = sorted(os.sched_getaffinity(0))
    half = max(1, len(every) // 2)
    os.sched_setaffinity(0, every[:half] if whose == "daemon" else every[-half:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def bench(daemon, *flags, token=None):
    """The report of `sluice bench`, whose client costs little beside the daemon on the same cores."""
    environment = clean_environment()
    if token:
        environment["SLUICE_TOKEN"] = token
    end = subprocess.run([str(BIN / "sluice"), f"--address={daemon.address}", "bench", "--json", *flags],
                         capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert end.stdout, end.stderr
    return json.loads(end.stdout)


def start_bench(daemon, *flags, token=None):
    """The same in the background; stop it with terminate()."""
    environment = clean_environment()
    if token:
        environment["SLUICE_TOKEN"] = token
    return subprocess.Popen([str(BIN / "sluice"), f"--address={daemon.address}", "bench", "--json", *flags],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def open_fds(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def assert_alive(daemon, metadata=None):
    """It gives the same tokens as ever, on a new connection, and holds nothing of anybody."""
    assert daemon.process.poll() is None, daemon.stderr()
    stub = daemon.stub()

    def answers():
        try:
            call = stub.Generate(request("The", stop={"max_new_tokens": 8}), metadata=metadata, timeout=PATIENCE)
            return sum(message.WhichOneof("event") == "delta" for message in call) > 0
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE), error
            return False

    wait_until(answers, "a new call is answered")
    daemon.wait_idle()


def seconds_until_idle(daemon):
    started = time.monotonic()
    daemon.wait_idle()
    return time.monotonic() - started
