"""A tenant that is no longer let in loses what it has running; a rotation of tokens cuts nothing."""

import concurrent.futures
import http.client
import json
import queue
import time

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from harness import PATIENCE, request, rpc_error, score_pb2, session_pb2, wait_until
from sessions import OPTIONS, key_file
from test_access import ENDLESS, UNAUTHENTICATED, bearer, digest, replace

Code = grpc.StatusCode
BOUND = 10.0  # seconds: a reload takes two, and a busy test machine as long again and more
LEAVER = f"tenant leaver\ntoken leaver {digest('l-token')}\n"
STAYER = f"tenant stayer\ntoken stayer {digest('s-token')}\n"


@pytest.fixture
def tenants(tmp_path):
    path = tmp_path / "tenants"
    path.write_text(LEAVER + STAYER)
    return path


@pytest.fixture
def guarded(start_daemon, tenants, tmp_path):
    return start_daemon(f"--auth_tokens_file={tenants}", f"--state_key_file={key_file(tmp_path)}",
                        "--http_listen=127.0.0.1:0", "--write_stall=10m")


def generate(daemon, token, prompt="The", **fields):
    """An endless stream that has begun."""
    call = daemon.inference.Generate(request(prompt, **{"stop": ENDLESS, **fields}), metadata=bearer(token), timeout=PATIENCE)
    next(call)
    return call


def end_of(call):
    """(code, details, when) of a stream that is read to its end."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code(), error.details(), time.monotonic()
    return Code.OK, "", time.monotonic()


def post(daemon, path, body, token):
    host, port = daemon.http.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.request("POST", f"/v1/{path}", json.dumps(body),
                       {"Content-Type": "application/json", "Authorization": f"Bearer {token}"})
    return connection.getresponse()


ENDLESS_HTTP = {"prompt": "The", "max_tokens": 1_000_000, "ignore_eos": True}


def questions(ask):
    """Messages of a stream whose client has more to say, until it says None."""
    return iter(ask.get, None)


@pytest.mark.parametrize("left", ["tenant", "token"])
def test_what_a_tenant_that_goes_has_running_ends(guarded, tenants, left):
    """Streams over gRPC and HTTP, calls that wait for a slot or for the client, an import, a reflection."""
    stays = generate(guarded, "s-token")
    ask, pieces = queue.Queue(), queue.Queue()
    ask.put(reflection_pb2.ServerReflectionRequest(list_services=""))
    pieces.put(session_pb2.ImportSessionRequest(options=OPTIONS(id="new")))
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    stub = guarded.stub()  # the endless ones share no connection with the unread one
    unread = stub.Generate(request("The", stop=ENDLESS), metadata=bearer("l-token"), timeout=PATIENCE)
    next(unread)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        grpc_calls = {
            "generate": generate(guarded, "l-token"),
            "score": guarded.inference.Score(score_pb2.ScoreRequest(tokens={"ids": [300] * 1_000_000}),
                                            metadata=bearer("l-token"), timeout=PATIENCE),
            "reflection": reflection.ServerReflectionInfo(questions(ask), metadata=bearer("l-token"), timeout=PATIENCE),
        }
        next(grpc_calls["reflection"])
        ends = {name: pool.submit(end_of, call) for name, call in grpc_calls.items()}
        importing = guarded.sessions.ImportSession.future(questions(pieces), metadata=bearer("l-token"), timeout=PATIENCE)
        streamed = post(guarded, "completions", {**ENDLESS_HTTP, "stream": True}, "l-token")
        assert streamed.status == 200
        events = pool.submit(streamed.read)
        whole = pool.submit(post, guarded, "completions", {**ENDLESS_HTTP, "max_tokens": 60_000}, "l-token")
        wait_until(lambda: guarded.metrics()["sluice_streams"] >= 6, "all run")
        replace(tenants, STAYER if left == "tenant" else "tenant leaver\n" + STAYER)
        since = time.monotonic()
        for name, end in ends.items():
            code, details, when = end.result(PATIENCE)
            assert code == UNAUTHENTICATED and "no longer let in" in details, (name, code, details)
            print(f"{name} ended {when - since:.1f} s after the change")
            assert when - since < BOUND, name
        with rpc_error(UNAUTHENTICATED):
            importing.result(PATIENCE)
        last = events.result(PATIENCE).decode().strip().splitlines()[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key", last
        answer = whole.result(PATIENCE)
        assert answer.status == 401 and json.loads(answer.read())["error"]["code"] == "invalid_api_key"
    # What was sent before may still be read; then comes the end, and no token of a later step.
    assert end_of(unread)[0] == UNAUTHENTICATED
    ask.put(None)
    pieces.put(None)
    next(stays)
    wait_until(lambda: guarded.metrics()["sluice_streams"] == 1, "the other tenant's goes on alone")
    samples = guarded.metrics()
    assert samples["sluice_auth_revoked_calls_total"] == 7
    assert 'ended_calls=7' in guarded.stderr()
    stays.cancel()
    guarded.wait_idle()


def test_a_rotation_cuts_nothing(guarded, tenants):
    running = generate(guarded, "l-token")
    streamed = post(guarded, "completions", {**ENDLESS_HTTP, "stream": True}, "l-token")
    steps = [f"token leaver {digest('next')}\n", "", f"token leaver {digest('third')}\n"]
    texts = [LEAVER + steps[0] + STAYER,  # the next token beside the old one
             "tenant leaver\n" + steps[0] + STAYER,  # the old one goes
             "tenant leaver max_streams=9\n" + steps[2] + STAYER]  # one for another in one change
    for done, text in enumerate(texts, 1):
        replace(tenants, text)
        wait_until(lambda: guarded.metrics()["sluice_auth_reloads_total{result=ok}"] == done, "the change is read")
        next(running)
        assert streamed.read(100)
    with rpc_error(UNAUTHENTICATED):
        generate(guarded, "l-token")
    assert guarded.metrics()["sluice_auth_revoked_calls_total"] == 0
    running.cancel()
    streamed.close()
    guarded.wait_idle()


def test_a_call_that_is_ended_leaves_its_session_as_it_was(guarded, tenants):
    token = bearer("l-token")
    guarded.sessions.CreateSession(session_pb2.CreateSessionRequest(options=OPTIONS(id="a")), metadata=token, timeout=PATIENCE)
    list(guarded.inference.Generate(request("The", session_id="a", stop={"max_new_tokens": 5}), metadata=token, timeout=PATIENCE))

    def get():
        return guarded.sessions.GetSession(session_pb2.GetSessionRequest(id="a"), metadata=token, timeout=PATIENCE)

    before = get()
    call = generate(guarded, "l-token", session_id="a")
    replace(tenants, STAYER)
    assert end_of(call)[0] == UNAUTHENTICATED
    replace(tenants, LEAVER + STAYER)
    wait_until(lambda: end_of(guarded.inference.Generate(request("The", stop={"max_new_tokens": 1}), metadata=token,
                                                        timeout=PATIENCE))[0] == Code.OK, "let in again")
    after = get()
    assert (after.position, after.etag) == (before.position, before.etag)


def test_a_flag_lets_them_finish(start_daemon, tenants):
    daemon = start_daemon(f"--auth_tokens_file={tenants}", "--auth_finish_revoked_calls")
    call = generate(daemon, "l-token")
    replace(tenants, STAYER)
    wait_until(lambda: daemon.metrics()["sluice_auth_reloads_total{result=ok}"] == 1, "the change is read")
    with rpc_error(UNAUTHENTICATED):
        generate(daemon, "l-token")
    for _ in range(50):
        next(call)
    assert daemon.metrics()["sluice_auth_revoked_calls_total"] == 0
    call.cancel()
    daemon.wait_idle()
