"""A device that hangs (row 26): the daemon says so, then ends, instead of holding its callers for ever."""

import time

import grpc
import pytest

import harness
from harness import PATIENCE, request, rpc_error


def test_a_step_that_takes_too_long_ends_the_daemon():
    """The bound is set below what an honest step takes: that is what a hang looks like from outside."""
    daemon = harness.Daemon("--step_timeout=1ms", "--max_batch_tokens=4096")
    try:
        assert daemon.get("/readyz")[0] == 200
        started = time.monotonic()
        with rpc_error(grpc.StatusCode.UNAVAILABLE):
            list(daemon.inference.Generate(request([1] + [300] * 200_000), timeout=PATIENCE))
        code = daemon.wait()
        took = time.monotonic() - started
        assert code == 70
        assert "device_stuck" in daemon.stderr()
        print(f"hang: exit code {code} {1000 * took:.0f} ms after the call that hung (bound 1 ms)")
        assert took < 2
    finally:
        daemon.kill()


@pytest.mark.parametrize("flags", [(), ("--step_timeout=10s",)])
def test_an_honest_load_is_no_hang(start_daemon, flags):
    daemon = start_daemon("--log_level=error", *flags)
    assert daemon.generate([1] + [300] * 20_000).only.token_ids
    assert daemon.process.poll() is None
