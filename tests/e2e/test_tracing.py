"""W3C Trace Context: a call's traceparent comes back with the daemon's own span, and stands in the call's log line."""

import http.client
import json
import re

import grpc
import pytest

from harness import PATIENCE, generate_pb2, model_pb2, run_sluice, session_pb2, wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"
IGNORED = ["", "nonsense", GOOD.upper(), GOOD + "-00", "ff" + GOOD[2:], f"00-{'0' * 32}-{PARENT}-01",
           f"00-{TRACE}-{'0' * 16}-01", GOOD[:-1], "0" * 4000]


def request(**fields):
    return generate_pb2.GenerateRequest(text="Once", stop={"max_new_tokens": 2}, **fields)


def generate(daemon, *traceparents, **fields):
    """One call with these; the trailing metadata's traceparents."""
    call = daemon.inference.Generate(request(**fields), metadata=[("traceparent", t) for t in traceparents],
                                     timeout=PATIENCE)
    try:
        list(call)
    except grpc.RpcError:
        pass
    return [value for key, value in call.trailing_metadata() if key == "traceparent"]


def span_of(answers, trace=TRACE, flags="01"):
    """The daemon's span in what it answered."""
    assert len(answers) == 1, answers
    found = re.fullmatch(rf"00-{trace}-([0-9a-f]{{16}})-{flags}", answers[0])
    assert found and found[1] not in (PARENT, "0" * 16), answers
    return found[1]


def line_of(daemon, span):
    """The call's line in the log."""
    return wait_until(lambda: next((line for line in daemon.stderr().splitlines() if f"span_id={span} " in line), None),
                      "the call is logged")


def test_a_stream(daemon):
    span = span_of(generate(daemon, GOOD, request_id="traced"))
    line = line_of(daemon, span)
    assert f"trace_id={TRACE} span_id={span} parent_span_id={PARENT}" in line
    assert "method=Generate request_id=traced code=OK" in line
    assert span_of(generate(daemon, GOOD)) != span  # each call has its own


def test_flags_and_later_versions(daemon):
    span_of(generate(daemon, f"00-{TRACE}-{PARENT}-00"), flags="00")
    span_of(generate(daemon, f"00-{TRACE}-{PARENT}-fe"), flags="00")
    span_of(generate(daemon, f"cc-{TRACE}-{PARENT}-01-more"))


# Not two of them: this gRPC's own client sends the last alone (server_test.cc sends two).
@pytest.mark.parametrize("traceparents", [(bad,) for bad in IGNORED] + [()])
def test_what_is_not_one_is_no_error(daemon, traceparents):
    call = daemon.inference.Generate(request(), metadata=[("traceparent", t) for t in traceparents], timeout=PATIENCE)
    assert list(call)
    assert call.code() == grpc.StatusCode.OK
    assert "traceparent" not in dict(call.trailing_metadata())


def test_calls_that_are_refused(daemon):
    line = line_of(daemon, span_of(generate(daemon, GOOD, model="another")))
    assert f"trace_id={TRACE}" in line and "code=OK" not in line


def test_unary_calls(daemon):
    for call, message, name in ((daemon.inference.GetModel, model_pb2.GetModelRequest(), "GetModel"),
                                (daemon.sessions.CreateSession, session_pb2.CreateSessionRequest(), "CreateSession")):
        _, end = call.with_call(message, metadata=[("traceparent", GOOD)], timeout=PATIENCE)
        span = span_of([value for key, value in end.trailing_metadata() if key == "traceparent"])
        assert f"method={name} " in line_of(daemon, span)


def test_sluice(daemon):
    end = run_sluice(daemon, "generate", f"--traceparent={GOOD}", "--max-new-tokens=2", "--seed=5", "Once")
    assert end.returncode == 0, end.stderr
    wait_until(lambda: f"parent_span_id={PARENT}" in daemon.stderr(), "the call is logged")


def test_over_http(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--log_format=json")

    def post(*traceparents, **fields):
        connection = http.client.HTTPConnection(daemon.http, timeout=PATIENCE)
        body = json.dumps({"prompt": "Once", "max_tokens": 2, **fields})
        connection.putrequest("POST", "/v1/completions")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        for value in traceparents:
            connection.putheader("Traceparent", value)
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        answer.read()
        answers = answer.headers.get_all("traceparent") or []
        connection.close()
        return answer.status, answers

    for stream in (False, True):
        status, answers = post(GOOD, stream=stream)
        assert status == 200
        span = span_of(answers)
        logged = json.loads(wait_until(lambda: next((line for line in daemon.stderr().splitlines() if span in line), None),
                                       "the call is logged"))
        assert (logged["trace_id"], logged["span_id"], logged["parent_span_id"]) == (TRACE, span, PARENT)
    status, answers = post(GOOD, temperature=-1)
    assert status == 400
    span_of(answers)
    for bad in (("nonsense",), (GOOD, GOOD), ()):
        assert post(*bad) == (200, [])
