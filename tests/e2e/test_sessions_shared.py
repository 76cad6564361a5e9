"""Who may have a session directory, and daemons that share one."""

import signal
import subprocess
import time

import grpc
import pytest

import harness
from harness import PATIENCE, SCALE, collect, in_threads, request, rpc_error, wait_until
from sessions import Sessions
from shared_load import POLICIES, shared_load

Code = grpc.StatusCode


def start(directory, *flags):
    """A daemon's start that need not succeed."""
    return subprocess.Popen(
        [str(harness.BIN / "sluiced"), f"--model={harness.MODEL}", "--listen=127.0.0.1:0", "--admin_listen=", "--http_listen=",
         f"--session_dir={directory}", *flags],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=harness.clean_environment())


def test_a_second_daemon_is_refused_and_told_who_has_the_directory(start_daemon, tmp_path):
    for mine, other in (((), ()), ((), ("--session_dir_shared",)), (("--session_dir_shared",), ())):
        first = start_daemon(f"--session_dir={tmp_path}", *mine)
        second = start(tmp_path, "--session_dir_wait=300ms", *other)
        out, err = second.communicate(timeout=PATIENCE)
        assert second.returncode == 2 and out == ""
        assert f"in use by process {first.process.pid} on " in err and str(tmp_path) in err, err
        assert first.stop() == 0


def test_a_second_daemon_takes_over_when_the_first_has_drained(start_daemon, tmp_path):
    first = Sessions(start_daemon(f"--session_dir={tmp_path}"))
    first.create("a")
    told = first.say("a", "The night", tokens=2)[1]
    second = start(tmp_path)
    waited = second.stderr.readline()
    assert "session_dir_wait" in waited and f"process {first.daemon.process.pid}" in waited, waited
    assert first.daemon.stop() == 0
    serving = second.stdout.readline()
    try:
        channel = grpc.insecure_channel(serving.split(" at ")[1].split(",")[0])
        stub = harness.session_pb2_grpc.SessionServiceStub(channel)
        again = stub.GetSession(harness.session_pb2.GetSessionRequest(id="a"), timeout=PATIENCE)
        assert (again.etag, again.position) == (told.etag, told.position)
        channel.close()
    finally:
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=PATIENCE)
    assert second.returncode == 0


def test_one_that_waits_can_be_told_to_end(start_daemon, tmp_path):
    start_daemon(f"--session_dir={tmp_path}")
    second = start(tmp_path)
    assert "session_dir_wait" in second.stderr.readline()
    second.send_signal(signal.SIGTERM)
    out, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0 and out == ""


def test_sharing_needs_a_directory():
    done = subprocess.run([str(harness.BIN / "sluiced"), f"--model={harness.MODEL}", "--session_dir_shared"],
                          capture_output=True, text=True, timeout=PATIENCE, env=harness.clean_environment())
    assert done.returncode == 2 and "--session_dir_shared needs --session_dir" in done.stderr


# ---- Daemons that share ----

FAIL, WAIT, CANCEL_RUNNING = POLICIES
ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}


@pytest.fixture
def two(start_daemon, tmp_path):
    return [Sessions(start_daemon(f"--session_dir={tmp_path}", "--session_dir_shared")) for _ in range(2)]


def begin(sessions, id, **fields):
    """A call that runs until it is ended, and commits if it may."""
    call = sessions.daemon.inference.Generate(request("The", session_id=id, stop=ENDLESS, **fields), timeout=PATIENCE)
    next(call)
    return call


@pytest.mark.parametrize("durable", [False, True])
def test_turns_without_affinity_are_all_there(two, durable):
    two[0].create("s")
    for turn in range(60):
        told = two[turn % 2].say("s", [40], tokens=0, durable=durable)[1]
        assert told.position == turn + 1
        assert two[1 - turn % 2].get("s").position == turn + 1
    for sessions in two:
        assert sessions.daemon.metrics()["sluice_session_lost_races_total"] == 0


def test_conflicts_reach_over_daemons(two):
    one, other = two
    one.create("s")
    one.say("s", "The night", tokens=2)
    before = one.get("s")
    call = begin(one, "s")
    wait_until(lambda: other.get("s").busy, "the other sees it run")
    with rpc_error(Code.ABORTED) as caught:
        other.say("s", " was", on_conflict=FAIL)
    assert caught.details["ErrorInfo"].reason == "SESSION_BUSY"
    with rpc_error(Code.DEADLINE_EXCEEDED):
        other.say("s", " was", on_conflict=WAIT, timeout=0.5)
    began = time.monotonic()
    _, told = other.say("s", " was", tokens=1, on_conflict=CANCEL_RUNNING)
    assert time.monotonic() - began < 1
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == Code.CANCELLED
    assert before.position < told.position < before.position + 5, "what was cancelled is not in it"
    assert one.get("s").etag == told.etag


def test_a_delete_ends_the_call_on_another_daemon(two):
    one, other = two
    one.create("s")
    call = begin(one, "s")
    began = time.monotonic()
    other.delete("s")
    assert time.monotonic() - began < 1
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == Code.CANCELLED
    for sessions in two:
        with rpc_error(Code.NOT_FOUND):
            sessions.get("s")
        assert sessions.ids() == []


def test_a_call_goes_on_where_a_dead_daemon_had_it(two):
    one, other = two
    one.create("s")
    told = one.say("s", "The night", durable=True)[1]
    begin(one, "s")
    waiting = other.daemon.inference.Generate(
        request(" was", session_id="s", stop={"max_new_tokens": 1}, on_conflict=WAIT), timeout=PATIENCE)
    time.sleep(0.2)
    one.daemon.send(signal.SIGKILL)
    assert collect(waiting).only.finished.session.position > told.position
    one.daemon.wait()


def test_bounds_count_the_directory(start_daemon, tmp_path):
    flags = (f"--session_dir={tmp_path}", "--session_dir_shared", "--max_sessions=4")
    two = [Sessions(start_daemon(*flags)) for _ in range(2)]
    for i in range(4):
        two[i % 2].create(f"s{i}")
    for sessions in two:
        with rpc_error(Code.RESOURCE_EXHAUSTED):
            sessions.create("more")
        assert sessions.ids() == ["s0", "s1", "s2", "s3"]
    two[0].delete("s3")
    two[1].create("more")


def test_calls_at_the_same_moment_take_turns(two):
    two[0].create("s")
    in_threads(8, lambda i: [two[i % 2].say("s", [50 + i], tokens=1, on_conflict=WAIT) for _ in range(5)])
    assert [sessions.get("s").position for sessions in two] == [80, 80]


def test_random_calls_lose_nothing(tmp_path):
    print(shared_load(tmp_path, count=2, epochs=2, seconds=max(0.5, 1.5 * SCALE), kills=False))


@pytest.mark.parametrize("count", [2, 3])
def test_deaths_lose_nothing_that_was_durable(tmp_path, count):
    print(shared_load(tmp_path, count=count, epochs=max(2, round(4 * SCALE)), seconds=0.7, kills=True, seed=count))
