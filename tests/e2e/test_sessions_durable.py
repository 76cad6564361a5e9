"""Sessions that outlive their daemon: restarts, shared directories, tiers, and kill -9 at any moment."""

import pathlib
import random
import signal
import threading
import time

import grpc
import pytest

import harness
from harness import PATIENCE, SCALE, in_threads, rpc_error, wait_until
from sessions import Sessions, Tier, key_file

Code = grpc.StatusCode
STATE = 589_824  # bytes of one state of the bundled model


def test_a_restart_keeps_every_session(start_daemon, tmp_path):
    flags = (f"--session_dir={tmp_path}", f"--state_key_file={key_file(tmp_path.parent, tmp_path.name + '.key')}")
    first = Sessions(start_daemon(*flags))
    first.create("a", labels={"mood": "dark"}, affinity="shelf")
    _, told = first.say("a", "The night was", durable=True, request_id="turn 1")
    assert told.durable
    first.fork("a", "b")
    first.create("empty")
    first.create("gone")
    first.delete("gone")
    blob = first.export("a")
    expected = first.say("b", " dark", sampling={"seed": 4}, commit_policy=2)[0].bits()
    assert first.daemon.stop() == 0
    second = Sessions(start_daemon(*flags))
    assert second.ids() == ["a", "b", "empty"]
    again = second.get("a")
    assert (again.etag, again.position, again.labels, again.affinity, again.last_request_id, again.durable) == \
        (told.etag, told.position, {"mood": "dark"}, "shelf", "turn 1", True)
    assert again.tier == Tier.STATE_TIER_DISK
    assert second.export("a") == blob
    for id in ("a", "b"):
        assert second.say(id, " dark", sampling={"seed": 4}, commit_policy=2)[0].bits() == expected
    assert second.daemon.metrics()["sluice_state_restores_total{from=disk}"] >= 1


def test_a_drain_writes_what_was_not_asked_to_be_durable(start_daemon, tmp_path):
    first = Sessions(start_daemon(f"--session_dir={tmp_path}"))
    told = {}
    for i in range(20):
        first.create(f"s{i}")
        told[f"s{i}"] = first.say(f"s{i}", "The", tokens=2)[1]
    assert first.daemon.stop() == 0
    second = Sessions(start_daemon(f"--session_dir={tmp_path}"))
    for id, session in told.items():
        assert (second.get(id).etag, second.get(id).position) == (session.etag, session.position)


def test_a_bad_file_is_its_owners_alone(start_daemon, tmp_path):
    first = Sessions(start_daemon(f"--session_dir={tmp_path}"))
    for id in ("good", "bad"):
        first.create(id)
        first.say(id, "The", durable=True)
    assert first.daemon.stop() == 0
    (state,) = [path for path in tmp_path.glob("sessions/*/s-bad/*.state")]
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.chmod(0o600)
    state.write_bytes(data)
    (tmp_path / "sessions/t-notes").write_text("what is this doing here?")
    second = Sessions(start_daemon(f"--session_dir={tmp_path}"))
    assert "file=sessions/t-notes" in second.daemon.stderr()
    with rpc_error(Code.DATA_LOSS):
        second.get("bad")
    assert [(s.id, s.unreadable) for s in second.page().sessions] == [("bad", True), ("good", False)]
    with rpc_error(Code.DATA_LOSS):
        second.say("bad", " end")
    second.say("good", " end")
    assert len(list((tmp_path / "quarantine").iterdir())) == 2
    assert second.daemon.metrics()["sluice_session_files_quarantined_total"] == 2
    with rpc_error(Code.ALREADY_EXISTS):
        second.create("bad")
    second.delete("bad")
    assert second.ids() == ["good"]


def say_once_there_is_room(sessions, name, prompt, turn):
    """What is not written yet stays in memory: on a slow disk there may be no room for another for a moment."""
    def say():
        try:
            return sessions.say(name, prompt, tokens=6, sampling={"seed": turn})[0].bits()
        except grpc.RpcError as error:
            assert error.code() == Code.RESOURCE_EXHAUSTED, error
            return None

    return wait_until(say, "there is room")


def test_more_sessions_than_slots_and_memory(start_daemon, tmp_path):
    """Two slots, three states in memory, the rest on disk: equal to a daemon that has room for all."""
    small = Sessions(start_daemon(f"--session_dir={tmp_path}", f"--device_state_bytes={2 * STATE + 1000}",
                                  f"--host_state_bytes={4 * STATE}"))
    large = Sessions(start_daemon())
    names = [f"s{i:02}" for i in range(16)]
    for sessions in (small, large):
        for name in names:
            sessions.create(name)
    rng = random.Random(2)
    for turn in range(60):
        name = rng.choice(names)
        prompt = rng.choice(["The night", " was dark", [5, 6, 7]])
        bits = [say_once_there_is_room(s, name, prompt, turn) for s in (small, large)]
        assert bits[0] == bits[1], turn
    metrics = small.daemon.metrics()
    assert metrics["sluice_state_restores_total{from=disk}"] > 0
    assert metrics["sluice_state_bytes{tier=host}"] <= 4 * STATE


def test_no_room_is_said_before_anything_runs(start_daemon):
    small = Sessions(start_daemon(f"--host_state_bytes={2 * STATE}"))
    refused = 0
    for i in range(5):
        small.create(f"s{i}")
        try:
            small.say(f"s{i}", "The", tokens=1)
        except grpc.RpcError as error:
            assert error.code() == Code.RESOURCE_EXHAUSTED
            refused += 1
    assert 0 < refused < 5


def test_a_full_disk_goes_on_with_the_sessions_it_has(start_daemon, tmp_path):
    """Room for three states, three sessions that have one: each goes on, durable or not; a fourth does not begin."""
    full = Sessions(start_daemon(f"--session_dir={tmp_path / 'full'}", f"--disk_state_bytes={3 * STATE + 1000}"))
    large = Sessions(start_daemon(f"--session_dir={tmp_path / 'large'}"))
    for sessions in (full, large):
        for name in ("a", "b", "c", "d"):
            sessions.create(name)
    for turn in range(12):
        name = "abc"[turn % 3]
        bits = [s.say(name, "The night", tokens=6, sampling={"seed": turn}, durable=turn % 2 == 0 or turn < 3)[0].bits()
                for s in (full, large)]
        assert bits[0] == bits[1], turn
        wait_until(lambda: full.get(name).durable, "it is written")
    with rpc_error(Code.RESOURCE_EXHAUSTED):
        full.say("d", "The night", tokens=6)
    full.delete("a")
    full.say("d", "The night", tokens=6, durable=True)
    assert len(list(tmp_path.glob("full/sessions/*/*/*.state"))) == 3


class Ledger:
    """What a client was told, for one session: nothing it was told may be lost."""

    def __init__(self, name):
        self.name = name
        self.acknowledged = None  # Session of the last answer
        self.attempted = None     # request_id of the call that had no answer


def load(daemon, ledgers, stop, rng):
    """Durable turns on one's own sessions until the daemon dies."""
    sessions = Sessions(daemon)
    turn = 0
    while not stop.is_set():
        ledger = rng.choice(ledgers)
        turn += 1
        try:
            if ledger.acknowledged is None:
                ledger.acknowledged = sessions.create(ledger.name)
                continue
            ledger.attempted = f"{ledger.name}-{ledger.acknowledged.position}-{turn}-{rng.random()}"
            _, session = sessions.say(ledger.name, "The", tokens=rng.randint(0, 3), durable=True,
                                      request_id=ledger.attempted, sampling={"seed": turn})
            ledger.acknowledged, ledger.attempted = session, None
        except grpc.RpcError as error:
            if error.code() == Code.ALREADY_EXISTS:  # an answer that was lost
                ledger.acknowledged = sessions.get(ledger.name)
                continue
            assert error.code() in (Code.UNAVAILABLE, Code.CANCELLED), error
            return


def check(daemon, ledgers):
    sessions = Sessions(daemon)
    for ledger in ledgers:
        if ledger.acknowledged is None:
            continue
        now = sessions.get(ledger.name)
        told = ledger.acknowledged
        lost_answer = ledger.attempted is not None and now.last_request_id == ledger.attempted
        assert now.etag == told.etag or lost_answer, (ledger.name, told, now)
        assert lost_answer or (now.position, now.last_request_id) == (told.position, told.last_request_id)
        ledger.acknowledged, ledger.attempted = now, None
        if now.position:
            sessions.say(ledger.name, " end", tokens=1, commit_policy=2)


def kill_rounds(directory, rounds, seed):
    """kill -9 at random moments under load; the slowest start in seconds."""
    rng = random.Random(seed)
    ledgers = [[Ledger(f"t{t}-{i}") for i in range(4)] for t in range(6)]
    slowest = 0.0
    for _ in range(rounds):
        began = time.monotonic()
        daemon = harness.Daemon(f"--session_dir={directory}")
        slowest = max(slowest, time.monotonic() - began)
        try:
            check(daemon, [ledger for mine in ledgers for ledger in mine])
            stop = threading.Event()
            threads = [threading.Thread(target=load, args=(daemon, mine, stop, random.Random(rng.random())))
                       for mine in ledgers]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.05, 0.6))
            daemon.process.send_signal(signal.SIGKILL)
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
        finally:
            daemon.kill()
    return slowest


@pytest.mark.slow
def test_kill_nine_loses_nothing_that_was_acknowledged(tmp_path):
    kill_rounds(tmp_path, max(2, round(10 * SCALE)), seed=1)
