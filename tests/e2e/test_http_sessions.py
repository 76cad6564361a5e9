"""Sessions over the HTTP port: what gRPC's SessionService says, in HTTP's words."""

import http.client
import json
import socket
import time
import urllib.parse

import pytest

from harness import Daemon, PATIENCE, check_message, wait_until
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
    running = Daemon(f"--state_key_file={key}", "--http_listen=127.0.0.1:0")
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
    assert door.ask("PUT", "/v1/sessions/a", {}).headers["Allow"] == "GET, PATCH, DELETE"
    assert door.ids() == ["a"]


@pytest.mark.parametrize("id", ["nobody", "import", "fork"])
def test_an_absent_session(door, id):
    for method, path, body in [("GET", "", None), ("PATCH", "", {"ttl": 60}), ("DELETE", "", None), ("POST", "/fork", {}),
                               ("GET", "/export", None)]:
        door.ask(method, f"/v1/sessions/{id}{path}", body).error(404, "session_not_found")


@pytest.mark.parametrize("id, status", [("a%2Fb", 404), ("a%00b", 400), ("x" * 65, 400), ("%C3%A9", 400), ("a.b", 400), ("..", 400),
                                        ("", 404), ("a/b/c", 404), ("%0d%0aX-Evil:%201", 400)])
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
    head = (f"POST /v1/sessions/import?id=x HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
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


def test_without_a_key_or_sessions(start_daemon):
    door = Door(start_daemon("--http_listen=127.0.0.1:0"))
    door.create(id="a")
    door.get("/v1/sessions/a/export").error(400, "no_state_key")
    door.post("/v1/sessions/import", b"x", **BYTES).error(400, "no_state_key")
    door = Door(start_daemon("--http_listen=127.0.0.1:0", "--max_sessions=0"))
    for method, path, body in [("GET", "", None), ("POST", "", {}), ("GET", "/a", None), ("GET", "/a/export", None)]:
        door.ask(method, f"/v1/sessions{path}", body).error(400, "sessions_not_supported")
    door.post("/v1/sessions/import", b"x", **BYTES).error(400, "sessions_not_supported")


def test_a_limit_of_sessions(start_daemon):
    door = Door(start_daemon("--http_listen=127.0.0.1:0", "--max_sessions=2"))
    door.create(id="a"), door.create(id="b")
    full = door.post("/v1/sessions", {"id": "c"})
    full.error(429, "rate_limit_exceeded")
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
        # With the right etag too: a foreign session is an absent one.
        foreign = large.ask(method, f"/v1/sessions/mine{path}", body, **{"If-Match": made["etag"]})
        assert foreign.error(404, "session_not_found")["message"] == absent
        nobody.ask(method, f"/v1/sessions/mine{path}", body).error(401)
    nobody.post("/v1/sessions", {}).error(401)
    nobody.get("/v1/sessions").error(401)
    nobody.post("/v1/sessions/import", data, **BYTES).error(401)
    large.post("/v1/sessions/import", data, **BYTES).error(403)
    large.create(id="mine")
    assert large.ids() == small.ids() == ["mine"] and small.get("/v1/sessions/mine").json["etag"] == made["etag"]
    assert digest("s-token") not in daemon.stderr()
