"""A model whose states grow: the limit of a sequence at both doors, what a session's state takes, and pages in the metrics."""

import json
import urllib.error
import urllib.request

import grpc
import pytest

from harness import PATIENCE, ROOT, Daemon, model_pb2
from sessions import Sessions

MODEL = ROOT / "tests/goldens/llama/rope_llama3"
TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads of 16, fp32
PROMPT = [1] + [3 + i % 30 for i in range(99)]


@pytest.fixture(scope="module")
def daemon():
    daemon = Daemon("--tokenizer=none", "--http_listen=127.0.0.1:0", "--model_name=m", "--max_attention_tokens=128",
                    "--prefix_cache_bytes=0", model=MODEL)
    yield daemon
    daemon.kill()


def refused(call, code):
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() == code, error.value
    return error.value.details()


def post(daemon, **body):
    sent = urllib.request.Request(f"http://{daemon.http}/v1/completions", data=json.dumps(body).encode(),
                                  headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_model_says_it(daemon):
    model = daemon.inference.GetModel(model_pb2.GetModelRequest())
    assert model.state_bytes == 0 and model.state_bytes_per_token == TOKEN_BYTES
    assert model.limits.max_attention_tokens == 128
    with urllib.request.urlopen(f"http://{daemon.http}/v1/models/m", timeout=PATIENCE) as answer:
        described = json.loads(answer.read())["sluice"]
    assert described["context_length"] == 128 and described["state_bytes_per_token"] == TOKEN_BYTES


def test_grpc(daemon):
    out_of_range = grpc.StatusCode.OUT_OF_RANGE
    text = refused(lambda: daemon.generate(PROMPT, stop={"max_new_tokens": 29}), out_of_range)
    assert "must be at most 28" in text and "--max_attention_tokens" in text
    text = refused(lambda: daemon.generate(PROMPT + PROMPT[:28]), out_of_range)
    assert "128 tokens, which leaves no room for one more" in text
    answer = daemon.generate(PROMPT, stop={"max_new_tokens": None, "ignore_eos": True})
    assert len(answer.only.token_ids) == 28


def test_http(daemon):
    status, answer = post(daemon, model="m", prompt=PROMPT, max_tokens=29)
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded", answer
    status, answer = post(daemon, model="m", prompt=PROMPT + PROMPT[:28], max_tokens=1)
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded", answer


def test_a_sessions_state_grows(daemon):
    sessions = Sessions(daemon)
    id = sessions.create().id
    sessions.say(id, PROMPT[:50], tokens=10)
    assert sessions.get(id).state_bytes == 59 * TOKEN_BYTES
    sessions.say(id, PROMPT[:10], tokens=5)
    assert sessions.get(id).state_bytes == 74 * TOKEN_BYTES
    metrics = daemon.metrics()
    assert metrics["sluice_attention_pages{status=used}"] == 2
    assert metrics["sluice_attention_pages{status=free}"] == 64 * 2 - 2
