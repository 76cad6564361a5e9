"""What the log and the errors must not say, whatever a client writes into its fields (rows 33 and 34)."""

import json

import grpc
import pytest

from harness import check_message, generate_pb2, model_pb2, request, score_pb2, tokens_pb2
from load import assert_alive

SECRET = "the-prompt-nobody-may-log"
HOSTILE = ["\n2026-01-01 error forged=line", "\r\nforged", "\x1b[31mred\x1b[0m", "\x00nul", "\u202egnp.exe", "a" * 5_000,
           '"} {"event":"forged"}', "%s%n%x", "../../etc/passwd", "\u0085\u2028\u2029"]


def fields(text):
    """A call for each place where a client can put text."""
    return [
        ("Generate", request(SECRET, request_id=text)),
        ("Generate", request(SECRET, model=text)),
        ("Generate", request(SECRET + text, stop={"max_new_tokens": 1})),
        ("Generate", request(SECRET, stop={"strings": [text], "max_new_tokens": 1})),
        ("Generate", request(SECRET, session_id=text) if has_session() else request(SECRET, model=text)),
        ("Score", score_pb2.ScoreRequest(text=SECRET, model=text)),
        ("Tokenize", tokens_pb2.TokenizeRequest(text=SECRET, model=text)),
        ("Detokenize", tokens_pb2.DetokenizeRequest(token_ids=[5], model=text)),
        ("GetModel", model_pb2.GetModelRequest(model=text)),
    ]


def has_session():
    return "session_id" in generate_pb2.GenerateRequest.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_hostile_text_in_every_field(start_daemon, log_format):
    daemon = start_daemon(f"--log_format={log_format}", "--log_level=info")
    calls = messages = 0
    for text in HOSTILE:
        for method, message in fields(text):
            calls += 1
            call = getattr(daemon.inference, method)
            try:
                answer = call(message, timeout=60, metadata=(("x-request-id", "forged"),))
                if method in ("Generate", "Score"):
                    list(answer)
            except grpc.RpcError as error:
                messages += 1
                check_message(error.details().replace(text, "its own text"))
                assert len(error.details()) <= 300, error.details()
    assert_alive(daemon)
    text = daemon.stderr()
    lines = text.splitlines()
    assert SECRET not in text and "forged=line" not in [w for line in lines for w in line.split()[:1]]
    assert all(c >= " " or c == "\n" for c in text) and "\x7f" not in text, "control bytes are escaped"
    assert max(map(len, lines)) < 2000
    answered = [line for line in lines if ("call" in line.split()[2:3] if log_format == "text"
                                           else json.loads(line)["event"] == "call")]
    print(f"log injection ({log_format}): {calls} hostile calls, {len(answered) - 1} lines for them; "
          f"{messages} errors, none says anything of the inside")
    assert len(answered) == calls + 1  # the last one is ours
