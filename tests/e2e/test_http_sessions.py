"""Sessions over the HTTP port: what gRPC's SessionService says, in HTTP's words."""

import contextlib
import http.client
import json
import re
import socket
import subprocess
import time
import urllib.parse

import jsonschema
import pytest

from harness import Daemon, PATIENCE, ROOT, check_message, in_threads, wait_until
from sessions import Sessions, key_file
from test_access import digest, write_tenants

JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class Answer:
    def __init__(self, answer):
        self.status, self.headers, self.bytes = answer.status, answer.headers, answer.read()

    @property
    def json(self):
        return json.loads(self.bytes)

    def error(self, status, code=None, param=None):
        """The error, which must be one of that status."""
        assert self.status == status, (self.status, self.bytes)
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        check_message(error["message"])
        assert code is None or error["code"] == code, error
        assert param is None or error["param"] == param, error
        return error


class Door:
    """The HTTP port of a daemon, for one tenant."""

    def __init__(self, daemon, token=None):
        self.daemon = daemon
        self.credentials = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.daemon.http, timeout=PATIENCE)
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), {**JSON, **headers}
        try:
            connection.request(method, path, body, {**self.credentials, **headers})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, **headers)

    def create(self, **fields):
        answer = self.post("/v1/sessions", fields)
        assert answer.status == 200, answer.bytes
        return answer.json

    def ids(self, query=""):
        found, token = [], ""
        while True:
            page = self.get(f"/v1/sessions?page_token={urllib.parse.quote(token)}&{query}").json
            found += [session["id"] for session in page["data"]]
            token = page["next_page_token"]
            assert page["has_more"] == (token is not None)
            if token is None:
                return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    key = key_file(tmp_path_factory.mktemp("key"))
    running = Daemon(f"--state_key_file={key}", "--http_listen=127.0.0.1:0", "--http_metrics")
    try:
        yield running
        assert running.stop() == 0, running.stderr()
    finally:
        running.kill()


@pytest.fixture
def door(daemon):
    yield Door(daemon)
    grpc = Sessions(daemon)
    for id in grpc.ids(page_size=1000):
        grpc.delete(id)
    daemon.wait_idle()


# ---- /v1/sessions ----

def test_a_session_is_that_of_grpc(door):
    answer = door.post("/v1/sessions", {"id": "story", "affinity": "shelf", "ttl": 90.5, "labels": {"user": "é"}})
    made = answer.json
    known = Sessions(door.daemon).get("story")
    assert made == {"id": "story", "object": "session", "etag": known.etag, "position": 0, "affinity": "shelf",
                    "model_fingerprint": known.model_fingerprint, "numerics_id": "", "tier": None, "busy": False,
                    "state_bytes": 0, "durable": False, "last_request_id": "", "created_at": known.create_time.seconds,
                    "updated_at": known.update_time.seconds, "expires_at": known.expire_time.seconds, "labels": {"user": "é"}}
    assert answer.headers["ETag"] == f'"{known.etag}"' and answer.headers["x-session-id"] == "story"
    assert 60 < known.expire_time.seconds - time.time() < 100
    assert door.get("/v1/sessions/story").json == made
    Sessions(door.daemon).say("story", "Once upon a time", tokens=4, request_id="turn-1")
    moved = door.get("/v1/sessions/story")
    known = Sessions(door.daemon).get("story")
    assert moved.json["position"] == known.position > 4 and moved.json["tier"] in ("device", "host")
    assert moved.json["last_request_id"] == "turn-1" and moved.json["etag"] == known.etag != made["etag"]
    assert moved.json["state_bytes"] == 589_824 and moved.headers["x-session-position"] == str(known.position)
    assert len(door.create()["id"]) == 32


def test_refusals_name_their_field(door):
    door.create(id="a")
    door.post("/v1/sessions", {"id": "a"}).error(409, "session_exists")
    door.post("/v1/sessions", {"model": "other"}).error(404, "model_not_found")
    for fields, name in [({"id": "a/b"}, "id"), ({"id": "x" * 65}, "id"), ({"id": 5}, "id"), ({"affinity": "a b"}, "affinity"),
                         ({"ttl": 0}, "ttl"), ({"ttl": -1}, "ttl"), ({"ttl": 1e300}, "ttl"), ({"ttl": "60"}, "ttl"),
                         ({"labels": {"": "x"}}, "labels"), ({"labels": {"k": 1}}, "labels"), ({"labels": []}, "labels"),
                         ({"labels": {str(i): "" for i in range(17)}}, "labels"), ({"colour": "red"}, "colour")]:
        assert door.post("/v1/sessions", fields).error(400, param=name)["message"].startswith(name)
    for bad in (b"[]", b"{", b'{"id": "\xff"}', b"[" * 100):
        door.post("/v1/sessions", bad, **JSON).error(400)
    door.post("/v1/sessions?id=b", {}).error(400, param="id")
    door.post("/v1/sessions", b"{}").error(415)
    door.ask("PUT", "/v1/sessions", {}).error(405)
    assert door.ask("PUT", "/v1/sessions/a", {}).headers["Allow"] == "GET, HEAD, PATCH, DELETE"
    assert door.ids() == ["a"]


@pytest.mark.parametrize("id", ["nobody", "import", "fork"])
def test_an_absent_session(door, id):
    for method, path, body in [("GET", "", None), ("PATCH", "", {"ttl": 60}), ("DELETE", "", None), ("POST", "/fork", {}),
                               ("GET", "/export", None)]:
        door.ask(method, f"/v1/sessions/{id}{path}", body).error(404, "session_not_found")


@pytest.mark.parametrize("id, status", [("a%2Fb", 404), ("a%00b", 400), ("x" * 65, 400), ("%C3%A9", 400), ("a.b", 400), ("..", 400),
                                        ("a/b/c", 404), ("%0d%0aX-Evil:%201", 400)])
def test_hostile_ids(door, id, status):
    for method, body in [("GET", None), ("DELETE", None), ("PATCH", {"ttl": 60})]:
        answer = door.ask(method, f"/v1/sessions/{id}", body)
        answer.error(status)
        assert answer.headers["X-Evil"] is None


def test_pages_and_labels(door):
    names = sorted(f"s{i:02}" for i in range(13))
    for i, name in enumerate(reversed(names)):
        door.create(id=name, labels={"odd": str(i % 2), "a b&c": "=é"})
    assert door.ids() == door.ids("page_size=4") == names
    query = urllib.parse.urlencode({"labels.a b&c": "=é", "labels.odd": "1"})
    assert door.ids(query + "&page_size=2") == [name for i, name in enumerate(reversed(names)) if i % 2][::-1]
    assert door.ids("labels.odd=2") == []
    token = door.get("/v1/sessions?page_size=3").json["next_page_token"]
    for query, name in [("page_size=-1", "page_size"), ("page_size=1001", "page_size"), ("page_size=x", "page_size"),
                        ("page_token=x", "page_token"), (f"page_token={token}&labels.odd=1", "page_token"), ("limit=3", "limit")]:
        door.get(f"/v1/sessions?{query}").error(400, param=name)
    for query in ("page_size", "page_token=%zz"):
        door.get(f"/v1/sessions?{query}").error(400)


def test_etags(door):
    first = door.create(id="a")["etag"]
    changed = door.ask("PATCH", "/v1/sessions/a", {"labels": {"x": "1"}}, **{"If-Match": f'"{first}"'})
    assert changed.status == 200 and changed.json["labels"] == {"x": "1"} and changed.json["etag"] != first
    second = changed.json["etag"]
    for method, path, body in [("PATCH", "", {"ttl": 60}), ("DELETE", "", None), ("POST", "/fork", {}), ("GET", "/export", None)]:
        for old in (f'"{first}"', first, "no etag", '""', 'W/"x"', "x" * 2000):
            door.ask(method, f"/v1/sessions/a{path}", body, **{"If-Match": old}).error(412, "etag_mismatch")
        door.ask(method, f"/v1/sessions/a{path}", body, **{"If-Match": '"a", "b"'}).error(400, param="If-Match")
    door.ask("PATCH", "/v1/sessions/a", {"ttl": 60, "etag": first}).error(412, "etag_mismatch")
    door.ask("PATCH", "/v1/sessions/a", {"ttl": 60, "etag": first}, **{"If-Match": second}).error(400, param="etag")
    kept = door.ask("PATCH", "/v1/sessions/a", {"ttl": 3600, "etag": second}, **{"If-Match": "*"}).json
    assert kept["labels"] == {"x": "1"} and abs(kept["expires_at"] - time.time() - 3600) < 60
    assert door.ask("PATCH", "/v1/sessions/a", {"labels": {}}).json["labels"] == {}
    for fields, name in [({"id": "b"}, "id"), ({"ttl": 0}, "ttl"), ({"labels": {"": "x"}}, "labels")]:
        door.ask("PATCH", "/v1/sessions/a", fields).error(400, param=name)
    deleted = door.ask("DELETE", "/v1/sessions/a", **{"If-Match": door.get("/v1/sessions/a").headers["ETag"]})
    assert deleted.json == {"id": "a", "object": "session.deleted", "deleted": True}
    door.get("/v1/sessions/a").error(404)


def test_a_fork_and_an_export_go_on_from_the_same_state(door):
    grpc = Sessions(door.daemon)
    grpc.create("a")
    grpc.say("a", "Once upon a time there was", tokens=8)
    fork = door.post("/v1/sessions/a/fork", {"id": "b", "labels": {"of": "a"}, "ttl": 600}).json
    assert (fork["id"], fork["affinity"], fork["labels"]) == ("b", "a", {"of": "a"})
    door.post("/v1/sessions/a/fork", {"id": "b"}).error(409, "session_exists")
    out = door.get("/v1/sessions/a/export")
    assert out.status == 200 and out.headers["Content-Type"] == "application/octet-stream"
    assert out.headers["ETag"] == f'"{grpc.get("a").etag}"' and len(out.bytes) > 589_824
    assert out.bytes == grpc.export("a")
    path = "/v1/sessions/import?id=c&ttl=600&labels.of=a&affinity=shelf"
    came = door.post(path, out.bytes, **BYTES).json
    assert (came["id"], came["affinity"], came["labels"], came["position"]) == ("c", "shelf", {"of": "a"}, fork["position"])
    texts = {grpc.say(id, " and", tokens=8, sampling={"seed": 1})[0].text for id in "abc"}
    assert len(texts) == 1
    door.post(path, out.bytes, **BYTES).error(409, "session_exists")


def test_imports_that_are_refused(door):
    grpc = Sessions(door.daemon)
    grpc.create("a")
    grpc.say("a", "Once upon a time", tokens=2)
    data = grpc.export("a")
    broken = data[:-1] + bytes([data[-1] ^ 1])
    for bad in (broken, data[:-1], data + b"x", data + bytes(4 << 20)):
        door.post("/v1/sessions/import", bad, **BYTES).error(500, "data_loss")
    door.post("/v1/sessions/import", b"", **BYTES).error(500, "data_loss")
    door.post("/v1/sessions/import", bytes(10 << 20), **BYTES)  # whatever the answer, the daemon goes on
    door.post("/v1/sessions/import", data, **JSON).error(415)
    for query, name in [("id=a/b", "id"), ("ttl=0", "ttl"), ("ttl=x", "ttl"), ("colour=red", "colour"), ("labels.=x", "labels")]:
        door.post(f"/v1/sessions/import?{query}", data, **BYTES).error(400, param=name)
    assert door.ids() == ["a"]


def test_an_import_whose_client_leaves_makes_room(door):
    grpc = Sessions(door.daemon)
    grpc.create("a")
    grpc.say("a", "Once upon a time", tokens=2)
    data = grpc.export("a")
    host, port = door.daemon.http.split(":")
    head = (f"POST /v1/sessions/import?id=x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode()
    peers = [socket.create_connection((host, int(port)), PATIENCE) for _ in range(16)]
    for peer in peers:
        peer.sendall(head + data[:1000])

    def refused():
        return door.post("/v1/sessions/import?id=y", data[:1000], **BYTES).status == 429

    wait_until(refused, "sixteen imports are all there are")
    for peer in peers:
        peer.close()
    wait_until(lambda: door.post("/v1/sessions/import?id=z", data, **BYTES).status == 200, "a place is free again")
    assert door.ids() == ["a", "z"]


# ---- Completions ----

def complete(door, session, prompt="Once upon a time", status=200, headers=(), **fields):
    """The answer to a completion; `session` is the body's field."""
    answer = door.post("/v1/completions", {"prompt": prompt, "max_tokens": 6, "seed": 7, "ignore_eos": True,
                                           "session": session, **fields}, **dict(headers))
    assert answer.status == status, answer.bytes
    return answer


def test_a_completion_goes_on_from_its_session(door):
    grpc = Sessions(door.daemon)
    grpc.create("theirs")
    expected = [grpc.say("theirs", prompt, tokens=6, sampling={"seed": 7})[0].text for prompt in ("Once upon a time", " and then")]
    first = complete(door, "mine")
    known = grpc.get("mine")
    assert first.json["choices"][0]["text"] == expected[0]
    assert first.json["session"] == {"id": "mine", "etag": known.etag, "position": known.position, "committed": True}
    assert (first.headers["x-session-id"], first.headers["ETag"], first.headers["x-session-position"]) == (
        "mine", f'"{known.etag}"', str(known.position))
    second = complete(door, None, " and then", headers={"x-session-id": "mine", "x-request-id": "turn 2"}.items())
    assert second.json["choices"][0]["text"] == expected[1] and second.headers["ETag"] != first.headers["ETag"]
    assert grpc.get("mine").last_request_id == "turn 2" and grpc.get("mine").position == grpc.get("theirs").position
    assert second.json["usage"]["prompt_tokens"] < 4, "what the session has read is not sent again"


def test_a_stream_says_its_session_at_the_end(door):
    for options in ({}, {"stream_options": {"include_usage": True}}):
        answer = complete(door, "a", stream=True, **options)
        chunks = [json.loads(line[6:]) for line in answer.bytes.decode().split("\n\n") if line.startswith("data: {")]
        known = Sessions(door.daemon).get("a")
        assert answer.headers["x-session-id"] == "a"
        assert chunks[-1]["session"] == {"id": "a", "etag": known.etag, "position": known.position, "committed": True}
        assert all("session" not in chunk for chunk in chunks[:-2])


def test_a_session_that_is_only_read(door):
    complete(door, {"id": "a", "commit": "never"}, status=404).error(404, "session_not_found")
    assert door.ids() == []
    complete(door, "a")
    before = Sessions(door.daemon).get("a")
    fields = {"temperature": 0, "n": 2}
    read = complete(door, {"id": "a", "commit": "never"}, [" and", " but"], **fields)
    assert read.json["session"] == {"id": "a", "etag": before.etag, "position": before.position, "committed": False}
    texts = [choice["text"] for choice in read.json["choices"]]
    assert len(texts) == 4 and texts[0] == texts[1] != texts[2] == texts[3]
    scored = complete(door, {"id": "a", "commit": "never"}, " and then", echo=True, logprobs=0, max_tokens=0)
    expected = door.daemon.score(text=" and then", session_id="a")
    values = scored.json["choices"][0]["logprobs"]["token_logprobs"]
    assert None not in values and sum(values) == pytest.approx(expected.summary.total_logprob, abs=1e-3)
    assert Sessions(door.daemon).get("a").etag == before.etag
    # Without a history the first token has no score.
    door.create(id="b")
    values = complete(door, {"id": "b", "commit": "never"}, "The quick fox", echo=True, logprobs=0, max_tokens=0)
    assert values.json["choices"][0]["logprobs"]["token_logprobs"][0] is None


def test_etags_of_a_completion(door):
    old = complete(door, "a").json["session"]["etag"]
    new = complete(door, {"id": "a", "etag": old}).json["session"]["etag"]
    complete(door, {"id": "a", "etag": old}, status=412).error(412, "etag_mismatch")
    complete(door, "a", status=412, headers={"If-Match": f'"{old}"'}.items()).error(412, "etag_mismatch")
    complete(door, {"id": "a", "etag": "é"}, status=412).error(412, "etag_mismatch")
    assert Sessions(door.daemon).get("a").etag == new
    complete(door, "a", headers={"If-Match": f'"{new}"'}.items())
    complete(door, {"id": "absent", "etag": old}, status=404).error(404, "session_not_found")
    assert door.ids() == ["a"]


def test_a_call_that_was_committed_is_not_done_again(door):
    headers = {"x-request-id": "once"}.items()
    first = complete(door, "a", headers=headers).json["session"]
    again = complete(door, "a", status=409, headers=headers).error(409, "already_committed")
    assert first["etag"] in again["message"]
    assert Sessions(door.daemon).get("a").position == first["position"]
    complete(door, "a", headers={"x-request-id": "twice"}.items())


@pytest.mark.parametrize("session, name", [
    ("", "session"), ("a/b", "session"), ("x" * 65, "session"), (5, "session"), ([], "session"), ({"etag": "e"}, "etag"),
    ({"id": 5}, "session.id"), ({"id": "a", "durable": "yes"}, "session.durable"), ({"id": "a", "commit": "always"}, "session.commit"),
    ({"id": "a", "on_conflict": "retry"}, "session.on_conflict"), ({"id": "a", "colour": "red"}, "session.colour"),
    ({"id": "a", "commit": "never", "durable": True}, "session.durable")], ids=str)
def test_a_session_field_with_a_fault(door, session, name):
    complete(door, session, status=400).error(400, param=name)
    assert door.ids() == []


def test_faults_make_no_session(door):
    complete(door, "a", temperature=-1, status=400).error(400, param="temperature")
    complete(door, "a", ["x", "y"], status=400).error(400, param="prompt")
    complete(door, "a", n=2, status=400).error(400, param="n")
    complete(door, {"id": "a", "durable": True}, status=400).error(400, "no_session_directory")
    complete(door, "b", status=400, headers={"x-session-id": "a"}.items()).error(400, param="session")
    for id in ("", "a b", "x" * 65, "a,b"):
        complete(door, None, status=400, headers={"x-session-id": id}.items()).error(400, param="x-session-id")
    complete(door, None, status=431, headers={"x-session-id": "x" * 40_000}.items())
    with contextlib.suppress(OSError):  # the connection may end while it still sends
        complete(door, None, status=431, headers={"x-session-id": "x" * 1_000_000}.items())
    assert door.ids() == []
    complete(door, "a")
    assert complete(door, "a", "").json["usage"]["prompt_tokens"] == 0, "a history can go on without a prompt"


def test_a_busy_session(door):
    host, port = door.daemon.http.split(":")
    body = json.dumps({"prompt": "The", "session": "a", "max_tokens": 1_000_000, "ignore_eos": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    peer = socket.create_connection((host, int(port)), PATIENCE)
    peer.sendall(head % len(body) + body)
    wait_until(lambda: door.get("/v1/sessions/a").status == 200 and door.get("/v1/sessions/a").json["busy"], "the call runs")
    complete(door, "a", status=409).error(409, "session_busy")
    assert not complete(door, {"id": "a", "commit": "never"}).json["session"]["committed"]
    # A client that leaves commits nothing, also where its answer is no stream.
    peer.close()
    wait_until(lambda: not door.get("/v1/sessions/a").json["busy"], "the call ends")
    assert door.get("/v1/sessions/a").json["position"] == 0
    peer = socket.create_connection((host, int(port)), PATIENCE)
    peer.sendall(head % len(body) + body)
    wait_until(lambda: door.get("/v1/sessions/a").json["busy"], "the call runs")
    assert complete(door, {"id": "a", "on_conflict": "cancel_running"}).json["session"]["committed"]
    assert b" 499 " in peer.recv(4096).split(b"\r\n")[0]
    peer.close()


# ---- Chats ----

HI, MORE = {"role": "user", "content": "Who lives on the moor?"}, {"role": "user", "content": "And why?"}


def say(messages):
    return {"role": "user", "content": messages} if isinstance(messages, str) else messages


def chat(door, session, *messages, status=200, headers=(), **fields):
    answer = door.post("/v1/chat/completions", {"messages": [say(m) for m in messages], "max_tokens": 6, "seed": 7, "ignore_eos": True,
                                                "session": session, **fields}, **dict(headers))
    assert answer.status == status, answer.bytes
    return answer


def told(answer):
    """The assistant's message of an answer."""
    return answer.json["choices"][0]["message"]


def details(answer):
    found = answer.json["usage"]["session_details"]
    return found["messages"], found["resent"], found["recomputed"]


def test_a_chat_goes_on_from_its_session(door):
    grpc = Sessions(door.daemon)
    grpc.create("theirs")
    sampling = {"seed": 7}
    expected = [grpc.say("theirs", prompt, tokens=6, sampling=sampling)[0].text
                for prompt in ("user: Who lives on the moor?\nassistant:", "\nuser: And why?\nassistant:", "\nuser: Oh\nassistant:")]
    first = chat(door, "a", HI)
    assert told(first)["content"] == expected[0] and details(first) == (2, False, False)
    # A client may send what is new, or all of it; some strip the answers.
    second = chat(door, "a", HI, {**told(first), "content": told(first)["content"].strip()}, MORE)
    assert told(second)["content"] == expected[1] and details(second) == (4, True, False)
    third = chat(door, "a", "Oh")
    assert told(third)["content"] == expected[2] and details(third) == (6, False, False)
    assert grpc.get("a").position == grpc.get("theirs").position == third.json["session"]["position"]
    history = [HI, told(first), MORE, told(second), say("Oh"), told(third)]
    read = chat(door, {"id": "a", "commit": "never"}, *history, "So?")
    assert details(read) == (8, True, False) and not read.json["session"]["committed"]
    streamed = chat(door, "a", *history, "So?", stream=True, stream_options={"include_usage": True}).bytes.decode()
    last = json.loads(streamed.split("\n\n")[-3][6:])
    assert last["usage"]["session_details"]["resent"] and last["session"]["etag"] == grpc.get("a").etag


def test_another_conversation_is_never_appended(door):
    first = told(chat(door, "a", HI))
    before = door.get("/v1/sessions/a").json
    for messages in ([HI, {**first, "content": "No."}, MORE], [MORE, first, MORE], [first, MORE], [HI, MORE, first, MORE],
                     [{"role": "system", "content": "x"}, HI, first, MORE]):
        chat(door, "a", *messages, status=409).error(409, "history_mismatch")
    chat(door, "a", HI, first, status=400).error(400, param="messages")
    assert door.get("/v1/sessions/a").json["etag"] == before["etag"]
    # A fork has the history, a text that was not a chat's takes it away.
    door.post("/v1/sessions/a/fork", {"id": "b"})
    assert details(chat(door, "b", HI, first, MORE)) == (4, True, False)
    complete(door, "a")
    chat(door, "a", HI, first, MORE, status=409).error(409, "history_unknown")
    assert chat(door, "a", MORE).json["usage"]["session_details"] == {"messages": None, "resent": False, "recomputed": False}


def test_what_the_template_cannot_go_on_from_is_computed_from_the_start(door):
    text = told(chat(door, "probe", HI, max_tokens=12, temperature=0))["content"]
    first = chat(door, "a", HI, max_tokens=12, temperature=0, stop=[text[8:11]])
    assert told(first)["content"] == text[:text.index(text[8:11])]
    chat(door, "a", MORE, status=409).error(409, "history_needed")
    second = chat(door, "a", HI, told(first), MORE, temperature=0)
    assert details(second) == (4, True, True)
    alone = chat(door, None, HI, told(first), MORE, temperature=0)
    assert told(alone) == told(second) and "session_details" not in alone.json["usage"]
    assert second.json["usage"]["prompt_tokens"] == alone.json["usage"]["prompt_tokens"]
    assert second.json["session"]["position"] == alone.json["usage"]["total_tokens"]
    assert details(chat(door, "a", HI, told(first), MORE, told(second), "Oh")) == (6, True, False)


def test_a_stop_string_that_the_template_begins_with_is_read_once(start_daemon):
    door = Door(start_daemon("--http_listen=127.0.0.1:0", "--chat_template={content}."))
    grpc = Sessions(door.daemon)
    grpc.create("theirs")
    stop = {"strings": ["."], "max_new_tokens": 200}
    expected = [door.daemon.generate(prompt, session_id="theirs", stop=stop, sampling={"temperature": 0}).only.text
                for prompt in ("Once upon a time.", "And then.", "At last.")]
    fields = {"max_tokens": 200, "temperature": 0, "ignore_eos": False}
    first = chat(door, "a", "Once upon a time", **fields)
    second = chat(door, "a", "And then", **fields)
    third = chat(door, "a", "Once upon a time", told(first), "And then", told(second), "At last", **fields)
    assert [told(answer)["content"] for answer in (first, second, third)] == expected
    assert {answer.json["choices"][0]["finish_reason"] for answer in (first, second, third)} == {"stop"}
    assert details(third) == (6, True, False) and grpc.get("a").position == grpc.get("theirs").position


def test_a_chat_survives_a_restart(start_daemon, tmp_path):
    flags = ("--http_listen=127.0.0.1:0", f"--session_dir={tmp_path}/sessions", f"--state_key_file={key_file(tmp_path)}")
    daemon = start_daemon(*flags)
    door = Door(daemon)
    first = told(chat(door, {"id": "a", "durable": True}, HI))
    state = door.get("/v1/sessions/a/export").bytes
    daemon.process.kill()
    daemon.wait()
    door = Door(start_daemon(*flags))
    chat(door, "a", HI, {**first, "content": "No."}, MORE, status=409).error(409, "history_mismatch")
    assert details(chat(door, "a", HI, first, MORE)) == (4, True, False)
    # Exported bytes have the state alone.
    door.post("/v1/sessions/import?id=c", state, **BYTES)
    chat(door, "c", HI, first, MORE, status=409).error(409, "history_unknown")


def test_two_chats_at_once(door):
    chat(door, "a", HI)
    answers = in_threads(2, lambda _: door.post("/v1/chat/completions", {
        "messages": [MORE], "max_tokens": 100, "ignore_eos": True, "session": {"id": "a", "on_conflict": "wait"}}))
    # Each was planned for one history: the second must not be appended to another one.
    statuses = sorted(answer.status for answer in answers)
    position = door.get("/v1/sessions/a").json["position"]
    if statuses == [200, 409]:
        next(answer for answer in answers if answer.status == 409).error(409, "session_busy")
    else:
        assert statuses == [200, 200]  # the first had ended when the second began
    assert position == max(answer.json["session"]["position"] for answer in answers if answer.status == 200)


def test_without_a_key_or_sessions(start_daemon):
    door = Door(start_daemon("--http_listen=127.0.0.1:0"))
    door.create(id="a")
    door.get("/v1/sessions/a/export").error(400, "no_state_key")
    door.post("/v1/sessions/import", b"x", **BYTES).error(400, "no_state_key")
    door = Door(start_daemon("--http_listen=127.0.0.1:0", "--max_sessions=0"))
    for method, path, body in [("GET", "", None), ("POST", "", {}), ("GET", "/a", None), ("GET", "/a/export", None)]:
        door.ask(method, f"/v1/sessions{path}", body).error(400, "sessions_not_supported")
    door.post("/v1/sessions/import", b"x", **BYTES).error(400, "sessions_not_supported")
    complete(door, "a", status=400).error(400, "sessions_not_supported")


def test_a_limit_of_sessions(start_daemon):
    door = Door(start_daemon("--http_listen=127.0.0.1:0", "--max_sessions=2"))
    door.create(id="a"), door.create(id="b")
    full = door.post("/v1/sessions", {"id": "c"})
    full.error(429, "rate_limit_exceeded")
    complete(door, "c", status=429)
    assert full.headers["Retry-After"]


def test_tenants_see_their_own(start_daemon, tmp_path):
    key = key_file(tmp_path)
    daemon = start_daemon(f"--auth_tokens_file={write_tenants(tmp_path / 'tenants')}", "--http_listen=127.0.0.1:0",
                          f"--state_key_file={key}")
    small, large, nobody = Door(daemon, "s-token"), Door(daemon, "l-token"), Door(daemon)
    made = small.create(id="mine")
    data = small.get("/v1/sessions/mine/export").bytes
    absent = large.get("/v1/sessions/absent").json["error"]["message"].replace("absent", "mine")
    for method, path, body in [("GET", "", None), ("PATCH", "", {"ttl": 60}), ("DELETE", "", None), ("POST", "/fork", {}),
                               ("GET", "/export", None)]:
        # A foreign session is an absent one, for a call with the right etag too.
        foreign = large.ask(method, f"/v1/sessions/mine{path}", body, **{"If-Match": made["etag"]})
        assert foreign.error(404, "session_not_found")["message"] == absent
        nobody.ask(method, f"/v1/sessions/mine{path}", body).error(401)
    nobody.post("/v1/sessions", {}).error(401)
    nobody.get("/v1/sessions").error(401)
    nobody.post("/v1/sessions/import", data, **BYTES).error(401)
    large.post("/v1/sessions/import", data, **BYTES).error(403)
    complete(large, {"id": "mine", "etag": made["etag"]}, status=404)
    complete(large, {"id": "mine", "commit": "never"}, status=404)
    complete(large, "mine")
    assert small.get("/v1/sessions/mine").json["position"] == 0, "each tenant has its own session of a name"
    large.ask("DELETE", "/v1/sessions/mine")
    large.create(id="mine")
    assert large.ids() == small.ids() == ["mine"] and small.get("/v1/sessions/mine").json["etag"] == made["etag"]
    assert digest("s-token") not in daemon.stderr()


# ---- /openapi.json ----

def schema_of(document, operation, status="200"):
    """The schema of an operation's JSON answer, with what it refers to."""
    response = operation["responses"][status]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    return {**response["content"]["application/json"]["schema"], "components": document["components"]}


def test_the_openapi_document_is_what_the_port_answers(door):
    answer = door.get("/openapi.json")
    document = answer.json
    assert answer.headers["Content-Type"] == "application/json" and document["openapi"].startswith("3.1")
    complete(door, "a")
    state = door.get("/v1/sessions/a/export").bytes
    sent = {"/v1/completions": {"prompt": "The", "max_tokens": 2, "session": {"id": "a", "commit": "never"}, "logprobs": 1},
            "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2,
                                     "session": {"id": "chat"}},
            "/tokenize": {"prompt": "The"}, "/detokenize": {"tokens": [300]}, "/v1/sessions/{id}": {"ttl": 60}, "/v1/sessions/import": state}
    checked = 0
    for path, operations in document["paths"].items():
        methods = {method.upper() for method in operations if method != "parameters"}
        # What a client is to do last is done last.
        for method in sorted(methods, key=lambda method: method == "DELETE"):
            operation = operations[method.lower()]
            body = sent.get(path, {}) if "requestBody" in operation else None
            headers = BYTES if isinstance(body, bytes) else {}
            id = "classics-12m" if "models" in path else "a"
            got = door.ask(method, path.replace("{id}", id), body, **headers)
            assert got.status == 200, (method, path, got.bytes)
            good = operation["responses"]["200"]
            media, = good["content"]
            assert got.headers["Content-Type"].split(";")[0] == media, path
            assert all(got.headers[name] is not None for name in good.get("headers", ())), (method, path)
            if media == "application/json":
                jsonschema.Draft202012Validator(schema_of(document, operation)).validate(got.json)
                checked += 1
            if method == "DELETE":
                complete(door, "a")
        if path == "/v1/sessions/import":  # is also the path of a session of that name
            methods |= {"GET", "PATCH", "DELETE"}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            refused = door.ask(method, path.replace("{id}", "classics-12m"), {})
            assert set(refused.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == methods
            refused.error(405)
            jsonschema.Draft202012Validator(schema_of(document, operation, "default")).validate(refused.json)
    assert checked > 10


# ---- The README ----

def test_the_commands_of_the_readme(door, tmp_path):
    page = (ROOT / "server/http/README.md").read_text()
    section = page.split("\n## Sessions\n")[1].split("\n## ")[0]
    commands = re.findall(r"^\$ (curl .*(?:\n    .*)*)", section, re.M)
    assert len(commands) >= 8
    for command in commands:
        ran = subprocess.run(["bash", "-c", command.replace("localhost:8080", door.daemon.http)], cwd=tmp_path,
                             capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0 and '"error"' not in ran.stdout, (command, ran)
    assert door.ids() == ["other", "story", "talk"]
    assert door.get("/v1/sessions/story").json["position"] > door.get("/v1/sessions/other").json["position"] > 0
