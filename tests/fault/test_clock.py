"""The time of day jumps by a day, either way, while the daemon runs (row 28)."""

import glob

import grpc
import pytest

from harness import PATIENCE, request, rpc_error, wait_until
from load import ENDLESS
from sessions import Sessions

LIBRARY = "/usr/lib/*/faketime/libfaketime.so.1"


@pytest.fixture
def clock(tmp_path, start_daemon):
    """(start(*flags) -> its sessions, set("+1d")): daemons whose time of day can be set; their steady clock goes on."""
    (library,) = glob.glob(LIBRARY)
    file = tmp_path / "time"

    def set_time(offset):
        file.write_text(offset + "\n")

    def start(*flags):
        return Sessions(start_daemon(*flags, environment={
            "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1"}))

    set_time("+0")
    return start, set_time


def test_jumps_end_nothing_early_and_keep_nothing_for_ever(clock, tmp_path):
    start, set_time = clock
    flags = (f"--session_dir={tmp_path / 'sessions'}", "--session_ttl=1h")
    sessions = start(*flags)
    sessions.create("hour")
    sessions.say("hour", "The night", durable=True)
    stream = sessions.daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE)
    next(stream)
    days = set()

    def on_a_new_day():
        """A session of today's, once today is another day: the library looks at its file now and then."""
        created = sessions.create(ttl={"seconds": 1})
        new = created.create_time.ToDatetime().date() not in days
        days.add(created.create_time.ToDatetime().date())
        return created.id if new else None

    short = []
    for offset in ("+1d", "-1d", "+0"):
        set_time(offset)
        short.append(wait_until(on_a_new_day, "the daemon sees the jump"))
        # What runs goes on, what has an hour has it, and a bound on time is no day longer or shorter.
        for _ in range(5):
            next(stream)
        sessions.say("hour", " was", durable=True)
        with rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED):
            list(sessions.daemon.inference.Generate(request("The", stop=ENDLESS), timeout=0.1))
        assert sessions.get("hour").position > 0

    def gone(id):
        return id not in sessions.ids()

    for id in short:
        wait_until(lambda: gone(id), "a second is over", timeout=10)
    assert len(days) == 3, f"the daemon has not seen the jumps: {days}"
    stream.cancel()
    told = sessions.get("hour")
    assert sessions.daemon.stop() == 0
    # Restarted a day before it was written, half an hour after, and a day after: then it is over.
    for offset in ("-1d", "+30m"):
        set_time(offset)
        again = start(*flags)
        assert again.get("hour").etag == told.etag
        assert ("wrong_clock" in again.daemon.stderr()) == (offset == "-1d")
        assert again.daemon.stop() == 0
    set_time("+1d")
    again = start(*flags)
    wait_until(lambda: again.ids() == [], "an hour is over")
    assert not list((tmp_path / "sessions/sessions").glob("*/s-*"))
