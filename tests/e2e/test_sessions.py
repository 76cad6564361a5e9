"""Sessions of the running daemon: every call, every refusal, and that what did not commit left no trace."""

import threading
import time

import grpc
import pytest

from harness import PATIENCE, in_threads, request, rpc_error, score_pb2, session_pb2, violated_fields, wait_until
from sessions import Sessions, Tier, key_file

Code = grpc.StatusCode
ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A daemon that exports and has no directory."""
    import harness
    key = key_file(tmp_path_factory.mktemp("key"))
    running = harness.Daemon(f"--state_key_file={key}")
    yield running
    assert running.stop() == 0, running.stderr()


@pytest.fixture
def sessions(keyed):
    found = Sessions(keyed)
    yield found
    for id in found.ids(page_size=1000):
        found.delete(id)
    keyed.wait_idle()


def reason(caught):
    return caught.details["ErrorInfo"].reason


# ---- SessionService ----

def test_create_and_get(sessions):
    made = sessions.create("story", affinity="shelf", labels={"user": "42"})
    assert (made.id, made.affinity, made.position, made.busy, made.durable) == ("story", "shelf", 0, False, False)
    assert made.etag and made.labels == {"user": "42"} and made.tier == Tier.STATE_TIER_UNSPECIFIED
    model = sessions.daemon.inference.GetModel(__import__("harness").model_pb2.GetModelRequest())
    assert made.model_fingerprint == model.fingerprint
    assert model.sessions.transferable and not model.sessions.durable and model.sessions.max_sessions == 100_000
    got = sessions.get("story")
    assert got.etag == made.etag and abs(got.create_time.seconds - time.time()) < 60
    assert abs(got.expire_time.seconds - time.time() - 24 * 3600) < 60
    other = sessions.create()
    assert len(other.id) == 32 and other.affinity == other.id


def test_create_refusals(sessions):
    sessions.create("a")
    with rpc_error(Code.ALREADY_EXISTS) as caught:
        sessions.create("a")
    assert reason(caught) == "SESSION_EXISTS"
    with rpc_error(Code.NOT_FOUND) as caught:
        sessions.stub.CreateSession(session_pb2.CreateSessionRequest(model="other"))
    assert reason(caught) == "MODEL_NOT_FOUND"
    for fields, name in [({"id": "a/b"}, "options.id"), ({"id": "x" * 65}, "options.id"),
                         ({"affinity": "a b"}, "options.affinity"), ({"ttl": {"seconds": 0}}, "options.ttl"),
                         ({"ttl": {"seconds": -1}}, "options.ttl"), ({"labels": {"": "x"}}, "options.labels"),
                         ({"labels": {"k" * 65: ""}}, "options.labels"), ({"labels": {"k": "v" * 257}}, "options.labels"),
                         ({"labels": {str(i): "" for i in range(17)}}, "options.labels")]:
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            sessions.create(**fields)
        assert violated_fields(caught) == [name]


def test_unknown_and_missing_ids(sessions):
    for call in (sessions.get, sessions.fork, sessions.delete, sessions.export, sessions.update):
        with rpc_error(Code.NOT_FOUND) as caught:
            call("nobody")
        assert reason(caught) == "SESSION_NOT_FOUND"
        for bad in ("", "no/body", "x" * 65):
            with rpc_error(Code.INVALID_ARGUMENT) as caught:
                call(bad)
            assert violated_fields(caught) in (["id"], ["session.id"])


def test_list_pages_and_labels(sessions):
    names = sorted(f"s{i:02}" for i in range(25))
    for i, name in enumerate(reversed(names)):
        sessions.create(name, labels={"odd": str(i % 2), "all": "yes"})
    assert sessions.ids() == sessions.ids(page_size=7) == sessions.ids(page_size=1) == names
    odd = sessions.ids(page_size=4, labels={"odd": "1", "all": "yes"})
    assert odd == [name for i, name in enumerate(reversed(names)) if i % 2][::-1]
    assert sessions.ids(labels={"all": "no"}) == []
    first = sessions.page(page_size=3)
    assert len(first.sessions) == 3
    for token in ("x", first.next_page_token[:-2], first.next_page_token + "AA", "\u00e9"):
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            sessions.page(page_token=token)
        assert violated_fields(caught) == ["page_token"]
    with rpc_error(Code.INVALID_ARGUMENT):  # of another query
        sessions.page(page_token=first.next_page_token, labels={"all": "yes"})
    for size in (-1, 1001):
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            sessions.page(page_size=size)
        assert violated_fields(caught) == ["page_size"]


def test_a_page_of_large_labels_stays_below_a_message(sessions):
    labels = {f"{i:064}": "v" * 256 for i in range(16)}
    in_threads(10, lambda t: [sessions.create(f"s{t}-{i:03}", labels=labels) for i in range(100)])
    page = sessions.page(page_size=1000)
    assert page.ByteSize() <= 4194304 and page.next_page_token and len(page.sessions) < 1000
    assert len(sessions.ids(page_size=1000)) == 1000


def test_update(sessions):
    made = sessions.create("a", labels={"x": "1"})
    changed = sessions.update("a", labels={"y": "2"}, ttl=60)
    assert changed.labels == {"y": "2"} and changed.etag != made.etag
    assert abs(changed.expire_time.seconds - time.time() - 60) < 30
    assert sessions.update("a", ttl=3600, labels={"z": "3"}, paths=["ttl"]).labels == {"y": "2"}
    assert not sessions.update("a", paths=["labels"]).labels
    with rpc_error(Code.ABORTED) as caught:
        sessions.update("a", etag=made.etag, labels={"x": "1"})
    assert reason(caught) == "ETAG_MISMATCH"
    with rpc_error(Code.ABORTED) as caught:
        sessions.update("a", etag="line\nbreak", labels={"x": "1"})
    for fields, name in [({"paths": ["id"]}, "update_mask"), ({"paths": ["ttl"]}, "ttl"), ({"ttl": 0}, "ttl"),
                         ({"labels": {"": "x"}}, "session.labels")]:
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            sessions.update("a", **fields)
        assert violated_fields(caught) == [name]


def test_time_to_live_counts_from_the_last_use(sessions):
    made = sessions.create("a", ttl={"nanos": 600_000_000})
    for _ in range(3):
        time.sleep(0.3)
        sessions.say("a", "The", tokens=1)
    assert sessions.get("a").create_time == made.create_time
    wait_until(lambda: "a" not in sessions.ids(), "an unused session ends")
    with rpc_error(Code.NOT_FOUND):
        sessions.get("a")


def test_delete(sessions):
    made = sessions.create("a")
    with rpc_error(Code.ABORTED):
        sessions.delete("a", etag="old")
    sessions.delete("a", etag=made.etag)
    with rpc_error(Code.NOT_FOUND):
        sessions.delete("a")
    assert sessions.create("a").position == 0


def test_limits_on_sessions(start_daemon):
    few = Sessions(start_daemon("--max_sessions=2"))
    few.create("a"), few.create("b")
    for make in (lambda: few.create("c"), lambda: few.fork("a", "c")):
        with rpc_error(Code.RESOURCE_EXHAUSTED):
            make()
    few.delete("a")
    few.create("c")


def test_a_daemon_without_sessions(start_daemon):
    none = Sessions(start_daemon("--max_sessions=0"))
    for call in (none.create, none.page, lambda: none.get("a"), lambda: none.export("a"), lambda: none.import_(b"x"),
                 lambda: none.daemon.generate("The", session_id="a")):
        with rpc_error(Code.UNIMPLEMENTED) as caught:
            call()
        assert reason(caught) == "SESSIONS_NOT_SUPPORTED"


# ---- Generate and Score ----

def test_turns_continue_the_history(sessions):
    """Equal calls on another session give equal bits, and the text goes on where it was."""
    bits = []
    for id in ("a", "b"):
        sessions.create(id)
        first, after = sessions.say(id, "Once upon a time", tokens=20, sampling={"seed": 3})
        assert after.id == id and after.etag == sessions.get(id).etag
        second, later = sessions.say(id, " there", tokens=20, sampling={"seed": 4})
        third, last = sessions.say(id, None, tokens=5, sampling={"seed": 5})
        assert later.position > after.position and last.position == later.position + 5
        bits.append([turn.bits() for turn in (first, second, third)])
    assert bits[0] == bits[1]
    fresh = sessions.daemon.generate("Once upon a time", sampling={"seed": 3},
                                     stop={"max_new_tokens": 20, "ignore_eos": True}).only
    assert fresh.bits() == bits[0][0]


def test_position_counts_the_whole_history(sessions):
    sessions.create("a")
    prompt = sessions.daemon.tokenize("The sea")
    _, after = sessions.say("a", "The sea", tokens=3)
    assert after.position == len(prompt) + 3 and after.numerics_id and after.state_bytes > 0
    _, after = sessions.say("a", [5, 6, 7], tokens=0)
    assert after.position == len(prompt) + 6
    _, after = sessions.say("a", None, tokens=0)
    assert after.position == len(prompt) + 6
    assert sessions.get("a").last_request_id == after.last_request_id != ""


def test_an_empty_session_needs_a_prompt(sessions):
    sessions.create("a")
    with rpc_error(Code.INVALID_ARGUMENT):
        sessions.say("a", None)
    assert sessions.get("a").position == 0 and not sessions.get("a").busy


@pytest.mark.parametrize("fields,field", [
    ({"etag": "x"}, "etag"), ({"durable": True}, "durable"), ({"session_id": "a/b"}, "session_id"),
    ({"session_id": "a", "n": 2}, "n"), ({"session_id": "a", "durable": True, "commit_policy": 2}, "durable"),
    ({"session_id": "a", "commit_policy": 9}, "commit_policy"), ({"session_id": "a", "on_conflict": 9}, "on_conflict"),
])
def test_combinations_that_mean_nothing(sessions, fields, field):
    sessions.create("a")
    with rpc_error(Code.INVALID_ARGUMENT) as caught:
        sessions.daemon.generate("The", **fields)
    assert violated_fields(caught) == [field]


def test_durable_needs_a_directory(sessions):
    sessions.create("a")
    with rpc_error(Code.FAILED_PRECONDITION) as caught:
        sessions.say("a", "The", durable=True)
    assert reason(caught) == "NO_SESSION_DIRECTORY"


def test_never_reads_only(sessions):
    made = sessions.create("a")
    sessions.say("a", "The night")
    before = sessions.get("a")
    result = sessions.daemon.generate(" was", session_id="a", commit_policy=2, n=3, sampling={"seed": 1})
    assert len(result.sequences) == 3
    assert all(not s.finished.HasField("session") for s in result.sequences.values())
    after = sessions.get("a")
    assert (after.etag, after.position) == (before.etag, before.position) and made.etag != after.etag


def test_etag_of_a_call(sessions):
    made = sessions.create("a")
    _, after = sessions.say("a", "The", etag=made.etag)
    with rpc_error(Code.ABORTED) as caught:
        sessions.say("a", "The", etag=made.etag)
    assert reason(caught) == "ETAG_MISMATCH"
    sessions.say("a", "The", etag=after.etag)


def running_call(sessions, id, **fields):
    """A call that writes to the session until it is ended."""
    call = sessions.daemon.inference.Generate(request("The", session_id=id, stop=ENDLESS, **fields), timeout=PATIENCE)
    while next(call).WhichOneof("event") != "delta":
        pass
    assert sessions.get(id).busy
    return call


def test_conflicts(sessions):
    sessions.create("a")
    call = running_call(sessions, "a")
    with rpc_error(Code.ABORTED) as caught:
        sessions.say("a", "The")
    assert reason(caught) == "SESSION_BUSY"
    with rpc_error(Code.DEADLINE_EXCEEDED):  # waits, in vain
        sessions.say("a", "The", on_conflict=2, timeout=0.3)
    sessions.say("a", "The", commit_policy=2)  # reads what is committed
    _, after = sessions.say("a", "The", on_conflict=3)
    with pytest.raises(grpc.RpcError):
        for _ in call:
            pass
    assert call.code() == Code.CANCELLED
    assert after.position == sessions.get("a").position and not sessions.get("a").busy
    assert after.position == len(sessions.daemon.tokenize("The")) + 16  # nothing of the call before


def test_waiting_calls_get_their_turn(sessions):
    sessions.create("a")
    in_threads(8, lambda i: sessions.say("a", "The", tokens=4, on_conflict=2))
    assert sessions.get("a").position == 8 * (len(sessions.daemon.tokenize("The", add_special_tokens=False)) + 4) + 1


@pytest.mark.parametrize("way", ["cancel", "deadline", "time_limit_in_prompt", "delete_reader"])
def test_what_does_not_commit_leaves_no_trace(sessions, way):
    sessions.create("a")
    sessions.say("a", "It was a dark and stormy night")
    copy = sessions.fork("a", "copy")
    before = sessions.export("a")
    etag = sessions.get("a").etag
    if way == "cancel":
        running_call(sessions, "a").cancel()
    elif way == "deadline":
        with rpc_error(Code.DEADLINE_EXCEEDED):
            sessions.daemon.generate("The", session_id="a", stop=ENDLESS, timeout=0.3)
    elif way == "time_limit_in_prompt":
        with rpc_error(Code.DEADLINE_EXCEEDED):
            sessions.say("a", [300] * 200_000, stop={"time_limit": {"nanos": 1_000_000}})
    else:
        sessions.daemon.generate("The", session_id="a", commit_policy=2)
    wait_until(lambda: not sessions.get("a").busy, "the call is over")
    assert sessions.get("a").etag == etag and sessions.export("a") == before
    assert sessions.say("a", " and", sampling={"seed": 8})[0].bits() == \
        sessions.say(copy.id, " and", sampling={"seed": 8})[0].bits()


def test_a_time_limit_commits(sessions):
    sessions.create("a")
    only, after = sessions.say("a", "The", tokens=1_000_000, stop={"time_limit": {"nanos": 200_000_000}})
    assert only.reason == "TIME_LIMIT" and after.position == sessions.get("a").position > 2


def test_fork_while_busy(sessions):
    sessions.create("a", affinity="shelf")
    _, committed = sessions.say("a", "The night")
    call = running_call(sessions, "a")
    fork = sessions.fork("a", "b")
    assert (fork.position, fork.affinity, fork.busy) == (committed.position, "shelf", False)
    one, _ = sessions.say("b", " was", sampling={"seed": 2})
    call.cancel()
    wait_until(lambda: not sessions.get("a").busy, "the call is over")
    assert sessions.say("a", " was", sampling={"seed": 2})[0].bits() == one.bits()
    with rpc_error(Code.ABORTED):
        sessions.fork("a", "c", etag=committed.etag)
    with rpc_error(Code.ALREADY_EXISTS):
        sessions.fork("a", "b")


def test_delete_ends_the_writing_call(sessions):
    sessions.create("a")
    call = running_call(sessions, "a")
    sessions.delete("a")
    with pytest.raises(grpc.RpcError):
        for _ in call:
            pass
    assert call.code() == Code.CANCELLED
    with rpc_error(Code.NOT_FOUND):
        sessions.get("a")


def test_split_characters_are_held_over_calls(sessions):
    """Token by token, each in a call of its own: the same text as in one call."""
    whole = sessions.daemon.generate([1], sampling={"seed": 5, "temperature": 3},
                                     stop={"max_new_tokens": 60, "ignore_eos": True}).only
    sessions.create("a")
    text = sessions.say("a", [1], tokens=0)[0].text
    for token in whole.token_ids:
        text += sessions.say("a", [token], tokens=0, output={"echo": True})[0].text
    assert text.rstrip("\ufffd") == whole.text.rstrip("\ufffd")


def test_score_continues_and_changes_nothing(sessions):
    sessions.create("a")
    with rpc_error(Code.NOT_FOUND):
        sessions.daemon.score(session_id="nobody", text="The")
    only, after = sessions.say("a", "The night was", tokens=8)
    summary = sessions.daemon.score(session_id="a", tokens={"ids": [300]}).summary
    assert (summary.tokens, summary.scored_tokens) == (1, 1)
    assert sessions.get("a").etag == after.etag
    again = sessions.daemon.score(session_id="a", tokens={"ids": [300]}).summary
    assert again.total_logprob == summary.total_logprob
    # The model's own opinion of what it says next.
    following = sessions.daemon.generate(None, session_id="a", commit_policy=2, output={"logprobs": 0},
                                         stop={"max_new_tokens": 1, "ignore_eos": True}).only
    scored = sessions.daemon.score(session_id="a", tokens={"ids": following.token_ids})
    assert scored.logprobs[0].logprob == pytest.approx(following.logprobs[0].logprob, abs=1e-3)
    call = running_call(sessions, "a")
    assert sessions.daemon.score(session_id="a", text=" cold").summary.scored_tokens > 0
    call.cancel()


# ---- Export and import ----

def test_export_and_import(sessions):
    sessions.create("a")
    sessions.say("a", "The night was")
    blob = sessions.export("a")
    other = sessions.import_(blob, "b", labels={"from": "a"}, affinity="shelf")
    assert other.position == sessions.get("a").position and other.labels == {"from": "a"}
    assert other.etag and other.affinity == "shelf"
    assert sessions.say("a", " dark")[0].bits() == sessions.say("b", " dark")[0].bits()
    assert sessions.import_(blob, piece=7919).position == other.position
    empty = sessions.import_(sessions.export(sessions.create("c").id))
    assert empty.position == 0
    with rpc_error(Code.ALREADY_EXISTS):
        sessions.import_(blob, "b")
    with rpc_error(Code.ABORTED):
        sessions.export("a", etag="old")


def test_import_refuses_what_is_not_whole(sessions):
    sessions.create("a")
    sessions.say("a", "The")
    blob = sessions.export("a")
    for bad in (b"", blob[:10], blob[:-1], blob + b"x", blob[:200] + b"\x01" + blob[201:], b"x" * len(blob),
                blob[:-40] + bytes([blob[-40] ^ 1]) + blob[-39:]):
        with rpc_error(Code.DATA_LOSS, Code.PERMISSION_DENIED):
            sessions.import_(bad, "bad")
    assert sessions.ids() == ["a"]


def test_import_wants_options_first(sessions):
    part = session_pb2.ImportSessionRequest
    for parts in ([], [part(data=b"x")], [part(options={}), part(options={})], [part()]):
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            sessions.stub.ImportSession(iter(parts), timeout=PATIENCE)
        assert violated_fields(caught) in (["options"], ["data"])
    with rpc_error(Code.INVALID_ARGUMENT) as caught:
        sessions.import_(b"x", id="a/b")
    assert violated_fields(caught) == ["options.id"]


def test_import_that_is_broken_off(sessions):
    for _ in range(30):  # more than may run at once
        gate = threading.Event()

        def parts():
            yield session_pb2.ImportSessionRequest(options={})
            gate.wait(PATIENCE)

        call = sessions.stub.ImportSession.future(parts(), timeout=PATIENCE)
        call.cancel()
        gate.set()
    sessions.create("a")
    assert sessions.import_(sessions.export("a"), "b").id == "b"


def test_without_a_key_nothing_moves(daemon):
    plain = Sessions(daemon)
    made = plain.create()
    for call in (lambda: plain.export(made.id), lambda: plain.import_(b"x")):
        with rpc_error(Code.FAILED_PRECONDITION) as caught:
            call()
        assert reason(caught) == "NO_STATE_KEY"
    plain.delete(made.id)


def test_between_daemons(sessions, start_daemon, tmp_path):
    sessions.create("a")
    sessions.say("a", "The night was")
    blob = sessions.export("a")
    same = Sessions(start_daemon(f"--state_key_file={key_file(tmp_path, 'same', ('b' * 64, 'a' * 64))}"))
    same.import_(blob, "a")
    assert same.say("a", " dark")[0].bits() == sessions.say("a", " dark")[0].bits()
    other = Sessions(start_daemon(f"--state_key_file={key_file(tmp_path, 'other', ('c' * 64,))}"))
    with rpc_error(Code.PERMISSION_DENIED):
        other.import_(blob, "a")
    assert other.ids() == []


# ---- Metrics ----

def test_metrics_follow(sessions):
    before = sessions.daemon.metrics()
    sessions.create("a")
    sessions.say("a", "The")
    sessions.fork("a", "b")
    sessions.import_(sessions.export("a"), "c")
    wait_until(lambda: sessions.daemon.metrics()["sluice_sessions{status=idle}"] == 3, "three sessions are idle")
    after = sessions.daemon.metrics()

    def grown(name):
        return after[name] - before[name]

    assert grown("sluice_sessions_created_total") == 1 and grown("sluice_forks_total") == 1
    assert grown("sluice_snapshots_total{direction=export}") == grown("sluice_snapshots_total{direction=import}") == 1
    assert grown("sluice_commits_total") == 1
    service = "grpc_server_handled_total{grpc_code=OK,grpc_method=ForkSession,grpc_service=sluice.v1.SessionService}"
    assert grown(service) == 1
