"""SIGTERM (row 27): no stream without a status, no commit lost, and no disk that keeps the process for ever."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

from drain import drain_rounds
from harness import wait_until
from sessions import Sessions

HERE = pathlib.Path(__file__).resolve().parent


def test_drains_at_random_steps(tmp_path):
    report = drain_rounds(tmp_path, 2, seed=2)
    print(report)
    assert report.dropped == report.lost == 0
    assert report.whole > 0 and report.refused > 0 and report.commits > 0


@pytest.fixture
def hung_disk(tmp_path, start_daemon):
    """start(*flags) -> a daemon on whose disk nothing is ever synced while the file `marker` is there."""
    library, marker = tmp_path / "hung_disk.so", tmp_path / "hangs"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "hung_disk.c", "-ldl"], check=True)

    def start(*flags):
        return Sessions(start_daemon(f"--session_dir={tmp_path / 'sessions'}", *flags,
                                     environment={"LD_PRELOAD": str(library), "HUNG_DISK": str(marker)}))

    return start, marker


def test_a_disk_that_hangs_does_not_keep_the_process(hung_disk):
    start, marker = hung_disk
    sessions = start("--flush_timeout=300ms")
    told = []
    for id in ("a", "b"):
        sessions.create(id)
        told.append(sessions.say(id, "The night", durable=True)[1])
    marker.touch()
    sessions.say("a", " was")
    began = time.monotonic()
    sessions.daemon.send(signal.SIGTERM)
    assert sessions.daemon.wait() == 74
    seconds = time.monotonic() - began
    print(f"a disk that hangs: ended {seconds:.2f} s after SIGTERM (bound 0.3 s)")
    assert 0.3 <= seconds < 5
    lines = [line for line in sessions.daemon.stderr().splitlines() if "sessions_not_written" in line]
    assert len(lines) == 1 and "sessions=1" in lines[0], sessions.daemon.stderr()
    # What was durable is there, as it was.
    marker.unlink()
    again = start()
    assert [again.get(id).etag for id in ("a", "b")] == [session.etag for session in told]


def test_a_signal_ends_the_wait_for_the_disk(hung_disk):
    start, marker = hung_disk
    sessions = start("--flush_timeout=1h")
    sessions.create("a")
    marker.touch()
    sessions.say("a", "The night")
    sessions.daemon.send(signal.SIGTERM)
    wait_until(lambda: "flushing" in sessions.daemon.stderr(), "it waits for the disk")
    assert sessions.daemon.process.poll() is None
    sessions.daemon.send(signal.SIGTERM)
    assert sessions.daemon.wait() == 74
    os.unlink(marker)


def test_a_disk_that_is_slow_is_waited_for(hung_disk):
    start, marker = hung_disk
    sessions = start("--flush_timeout=1h")
    sessions.create("a")
    marker.touch()
    told = sessions.say("a", "The night")[1]
    sessions.daemon.send(signal.SIGTERM)
    wait_until(lambda: "flushing" in sessions.daemon.stderr(), "it waits for the disk")
    marker.unlink()
    assert sessions.daemon.wait() == 0
    assert start().get("a").etag == told.etag
