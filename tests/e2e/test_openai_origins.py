"""Pages of other origins, and names that lead here, against every path of the port."""

import hashlib
import json

import pytest

from harness import Daemon
from test_openai_letter import bare

EVIL = "Origin: https://evil.example"
PATHS = ["/", "/health", "/version", "/metrics", "/tokenizer_info", "/tokenize", "/detokenize", "/v1/models",
         "/v1/models/classics-12m", "/v1/completions", "/v1/chat/completions", "/v1/sessions", "/v1/sessions/import",
         "/v1/sessions/a", "/v1/sessions/a/fork", "/v1/sessions/a/export", "/nothing"]
# What a page may send without asking first (https://fetch.spec.whatwg.org/#simple-header), and no type at all.
SIMPLE_TYPES = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", None]
BODY = b'{"prompt":"a","max_tokens":1,"messages":[{"role":"user","content":"a"}]}'


@pytest.fixture(scope="module")
def door():
    daemon = Daemon("--http_listen=127.0.0.1:0", "--cors_origins=https://friend.example, http://localhost:3000",
                    "--http_hosts=proxy.example")
    try:
        yield daemon
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def get_sessions(daemon):
    return json.loads(bare(daemon, "GET /v1/sessions HTTP/1.1", "Host: localhost")[2])["data"]


def generated(daemon):
    return sum(value for name, value in daemon.metrics().items() if name.startswith("sluice_generated_tokens_total"))


@pytest.mark.parametrize("path", PATHS)
def test_a_foreign_page_is_refused(door, path):
    before = generated(door)
    kinds = [(EVIL, type, BODY) for type in SIMPLE_TYPES + ["application/json", "application/octet-stream"]]
    kinds += [(EVIL, None, b""), ("Origin: null", "application/json", BODY), ("Origin: http://localhost", "text/plain", BODY)]
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for origin, type, body in kinds:
            fields = [] if type is None else [f"Content-Type: {type}"]
            status, headers, _ = bare(door, f"{method} {path} HTTP/1.1", "Host: localhost:1", origin, *fields, body=body)
            assert status == 403, (method, type, origin)
            assert not any(name.lower().startswith("access-control") for name in headers.keys())
    status, headers, _ = bare(door, f"OPTIONS {path} HTTP/1.1", "Host: localhost", EVIL,
                              "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
    assert status == 403 and headers["access-control-allow-origin"] is None
    assert generated(door) == before


@pytest.mark.parametrize("method,path", [("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("POST", "/tokenize"),
                                         ("POST", "/detokenize"), ("POST", "/v1/sessions"), ("POST", "/v1/sessions/import"),
                                         ("POST", "/v1/sessions/a/fork"), ("PATCH", "/v1/sessions/a")])
def test_a_call_needs_its_content_type(door, method, path):
    """Also where the browser says nothing of the page."""
    before = generated(door)
    for type in SIMPLE_TYPES:
        fields = [] if type is None else [f"Content-Type: {type}"]
        for body in (BODY, b""):
            assert bare(door, f"{method} {path} HTTP/1.1", "Host: localhost", *fields, body=body)[0] == 415, type
    assert generated(door) == before and get_sessions(door) == []


@pytest.mark.parametrize("path", PATHS)
def test_another_name_does_not_lead_here(door, path):
    for line in (f"GET {path} HTTP/1.1", f"POST {path} HTTP/1.1"):
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"):
            same = f"Origin: http://{host}"
            for fields in ([], [same]):
                status, _, body = bare(door, line, f"Host: {host}", "Content-Type: application/json", *fields, body=BODY)
                assert status == 403 and b"host_not_allowed" in body
    status, _, _ = bare(door, f"GET http://evil.example{path} HTTP/1.1", "Host: localhost")
    assert status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]", "proxy.example", "Proxy.example:443"])
def test_names_of_loopback_do(door, host):
    assert bare(door, "GET /v1/models HTTP/1.1", f"Host: {host}")[0] == 200
    assert bare(door, "GET /v1/models HTTP/1.1", f"Host: {host}", f"Origin: http://{host}")[0] == 200


@pytest.mark.parametrize("origin", ["https://friend.example", "http://localhost:3000"])
def test_a_listed_page_may_ask(door, origin):
    asked = ["Host: localhost", f"Origin: {origin}"]
    status, headers, body = bare(door, "OPTIONS /v1/completions HTTP/1.1", *asked, "Access-Control-Request-Method: POST",
                                 "Access-Control-Request-Headers: authorization, content-type")
    assert (status, body) == (200, b"")
    assert headers["access-control-allow-origin"] == origin and headers["vary"] == "Origin"
    assert headers["access-control-allow-methods"] == "POST"
    assert headers["access-control-allow-headers"] == "authorization, content-type"
    for type, wanted in (("application/json", 200), ("text/plain", 415)):
        status, headers, _ = bare(door, "POST /v1/completions HTTP/1.1", *asked, f"Content-Type: {type}", body=BODY)
        assert status == wanted and headers["access-control-allow-origin"] == origin, "a page may read its errors"
    assert bare(door, "OPTIONS /v1/models HTTP/1.1", "Host: localhost")[0] == 405, "no page asks"


def test_everybody_may_without_credentials(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--cors_origins=*")
    for fields in ([], ["Access-Control-Request-Method: GET"]):
        status, headers, _ = bare(daemon, f"{'OPTIONS' if fields else 'GET'} /v1/models HTTP/1.1", "Host: localhost", EVIL, *fields)
        assert status == 200 and headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-credentials"] is None
    assert bare(daemon, "GET /v1/models HTTP/1.1", "Host: evil.example", EVIL)[0] == 403


def test_tokens_do_for_names(start_daemon, tmp_path):
    """Nobody's page has the token, so the name in Host says nothing."""
    file = tmp_path / "tenants"
    file.write_text(f"tenant a\ntoken a sha256:{hashlib.sha256(b'secret').hexdigest()}\n")
    daemon = start_daemon("--http_listen=127.0.0.1:0", f"--auth_tokens_file={file}")
    fields = ["Host: any.example", "Authorization: Bearer secret"]
    assert bare(daemon, "GET /v1/models HTTP/1.1", *fields)[0] == 200
    assert bare(daemon, "GET /v1/models HTTP/1.1", *fields, EVIL)[0] == 403


def test_a_wrong_list_ends_the_start(start_daemon):
    with pytest.raises(AssertionError, match="--cors_origins: 'friend.example' is no origin"):
        start_daemon("--http_listen=127.0.0.1:0", "--cors_origins=friend.example")
