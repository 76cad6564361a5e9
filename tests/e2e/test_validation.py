"""Requests that break a rule: INVALID_ARGUMENT that names the field, and a daemon that goes on."""

import math
import random

import grpc
import pytest
from google.protobuf import duration_pb2

from harness import PATIENCE, VOCAB, collect, generate_pb2, request, rpc_error, tokens_pb2, violated_fields

NAN, INF = math.nan, math.inf
INT_MAX, INT_MIN = 2**31 - 1, -(2**31)


def cases():
    """(field, request) for each rule."""
    bad = {
        "temperature": (-0.01, 100.5, NAN, INF, -INF, 3e38),
        "top_k": (-1, VOCAB + 1, INT_MAX, INT_MIN),
        "top_p": (0.0, -0.5, 1.01, NAN, INF),
        "min_p": (-0.1, 1.01, NAN, -INF),
        "typical_p": (0.0, 1.5, NAN),
        "repetition_penalty": (0.0, -1.0, 100.5, NAN, INF),
        "presence_penalty": (-100.5, 100.5, NAN, INF),
        "frequency_penalty": (-100.5, 100.5, NAN, -INF),
    }
    for field, values in bad.items():
        for value in values:
            yield f"sampling.{field}", request("a", sampling={field: value})
    for bias in ({5: 100.5}, {5: -100.5}, {5: NAN}, {5: INF}, {-1: 1.0}, {VOCAB: 1.0}, {i: 0.5 for i in range(1025)}):
        yield "sampling.logit_bias", request("a", sampling={"logit_bias": bias})
    for value in (-1, 1048577, INT_MAX, INT_MIN):
        yield "stop.max_new_tokens", request("a", stop={"max_new_tokens": value})
    for value in (-1, 33, INT_MAX):
        yield "stop.min_new_tokens", request("a", stop={"min_new_tokens": value})
    yield "stop.strings", request("a", stop={"strings": [str(i) for i in range(17)]})
    yield "stop.strings[1]", request("a", stop={"strings": ["ok", ""]})
    yield "stop.strings[0]", request("a", stop={"strings": ["x" * 257]})
    yield "stop.token_ids", request("a", stop={"token_ids": list(range(65))})
    for value in (-1, VOCAB, INT_MAX, INT_MIN):
        yield "stop.token_ids[0]", request("a", stop={"token_ids": [value]})
    for value in (duration_pb2.Duration(), duration_pb2.Duration(seconds=-1), duration_pb2.Duration(nanos=-5),
                  duration_pb2.Duration(seconds=1, nanos=2_000_000_000),
                  duration_pb2.Duration(seconds=2**63 - 1), duration_pb2.Duration(seconds=-(2**63))):
        yield "stop.time_limit", request("a", stop={"time_limit": value})
    for value in (-1, 21, INT_MAX, INT_MIN):
        yield "output.logprobs", request("a", output={"logprobs": value})
    for value in (0, -1, 65, INT_MAX, INT_MIN):
        yield "n", request("a", n=value)
    for value in (-101, 101, INT_MAX, INT_MIN):
        yield "priority", request("a", priority=value)
    for value in ("x" * 129, "new\nline", "\x1b[31m", "é"):
        yield "request_id", request("a", request_id=value)
    yield "prompt", request(None)
    yield "tokens.ids", request([])
    yield "text", request("", add_special_tokens=False)
    for ids in ([-1], [VOCAB], [INT_MAX], [INT_MIN]):
        yield "tokens.ids[0]", request(ids)
    yield "tokens.ids[2]", request([1, 2, VOCAB, 3])


@pytest.mark.parametrize("field,bad", [pytest.param(f, b, id=f"{f}-{i}") for i, (f, b) in enumerate(cases())])
def test_field_is_named(daemon, field, bad):
    with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        collect(daemon.inference.Generate(bad, timeout=PATIENCE))
    fields = violated_fields(caught)
    assert len(fields) == 1, fields
    # A map's entry may be named by its key.
    assert fields[0] == field or fields[0].startswith(field + "["), fields
    assert field in caught.error.details()


def test_values_on_the_edge_are_taken(daemon):
    for sampling in ({"temperature": 100.0}, {"temperature": 1e-38}, {"temperature": -0.0}, {"top_k": VOCAB},
                     {"top_p": 1e-38}, {"min_p": 1.0}, {"typical_p": 1e-38}, {"repetition_penalty": 100.0},
                     {"repetition_penalty": 1e-30}, {"presence_penalty": -100.0}, {"frequency_penalty": 100.0},
                     {"logit_bias": {i: 100.0 if i % 2 else -100.0 for i in range(1024)}}, {"seed": 0}):
        result = daemon.generate("a", sampling=sampling, stop={"max_new_tokens": 3, "ignore_eos": True})
        assert len(result.only.token_ids) == 3
    daemon.generate("a", stop={"max_new_tokens": 3, "min_new_tokens": 3, "strings": ["x" * 256] * 16,
                               "token_ids": list(range(64))})
    daemon.generate("a", priority=-100, request_id="x" * 128)
    daemon.generate("a", priority=100, n=64, stop={"max_new_tokens": 1})
    daemon.generate("", stop={"max_new_tokens": 1})  # BOS alone


def test_several_violations_are_all_named(daemon):
    with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        daemon.generate("a", sampling={"temperature": -1.0, "top_p": 2.0}, n=0)
    assert sorted(violated_fields(caught)) == ["n", "sampling.temperature", "sampling.top_p"]


def test_unknown_enum_values(daemon):
    for field in ("commit_policy", "on_conflict"):
        with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
            daemon.generate("a", **{field: 99})
        assert violated_fields(caught) == [field]


def raw_call(daemon, method, data, service="InferenceService"):
    """Sends bytes as they are."""
    multi = daemon.channel.unary_stream(f"/sluice.v1.{service}/{method}")
    return list(multi(data, timeout=PATIENCE))


BAD_UTF8 = (b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\x80b", b"\xc0\x80")


@pytest.mark.parametrize("text", BAD_UTF8, ids=[t.hex() for t in BAD_UTF8])
def test_bad_utf8(daemon, text):
    """protobuf refuses it before our code runs."""
    before = daemon.stderr().count("\n")
    for field in (b"\x1a", b"\x0a", b"\x12"):  # text, request_id, model
        with pytest.raises(grpc.RpcError) as error:
            raw_call(daemon, "Generate", field + bytes([len(text)]) + text)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "libprotobuf" not in daemon.stderr()
    assert daemon.stderr().count("\n") - before <= 3


def test_random_bytes(daemon):
    """Whatever the wire carries, the answer is a status."""
    rng = random.Random(1)
    good = request("The sea", sampling={"temperature": 0.5, "logit_bias": {5: 1.0}},
                   stop={"strings": ["x"], "max_new_tokens": 2}, n=2).SerializeToString()
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            data = data[:rng.randrange(len(data))]
        method = rng.choice(["Generate", "Score"])
        stream = daemon.channel.unary_stream(f"/sluice.v1.InferenceService/{method}")(bytes(data), timeout=PATIENCE)
        try:
            for _, _message in zip(range(8), stream):
                pass
            stream.cancel()
        except grpc.RpcError as error:
            assert error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN), error.details()
    daemon.wait_idle()


def test_strings_of_any_kind_are_safe(daemon):
    for text in ("\x00", "a\x00b", "\n" * 1000, "\u202e", "\ufffd", "{}%s%n", "a" * 5_000, "\U0010ffff"):
        daemon.generate(text, stop={"max_new_tokens": 1, "strings": [text[:8]]})


def test_message_size_limit(daemon):
    limit = 4194304
    with rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED):
        daemon.tokenize("x" * (limit + 1))
    text = "x" * (limit - 64)
    answer = daemon.inference.Detokenize(tokens_pb2.DetokenizeRequest(token_ids=[300] * 1000))
    assert answer.text
    with rpc_error(grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
        daemon.generate(text, stop={"max_new_tokens": -1})


def test_prompt_token_limit(start_daemon):
    small = start_daemon("--max_prompt_tokens=100")
    small.generate([300] * 100, stop={"max_new_tokens": 1})
    for bad in ([300] * 101, "word " * 200):
        with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
            small.generate(bad, stop={"max_new_tokens": 1})
        assert violated_fields(caught) in (["tokens.ids"], ["text"])
    with rpc_error(grpc.StatusCode.INVALID_ARGUMENT):
        small.score(tokens={"ids": [300] * 101})


def test_metadata_limit(daemon):
    with pytest.raises(grpc.RpcError) as error:
        list(daemon.inference.Generate(request("a"), metadata=[("x-big", "y" * 20_000)], timeout=PATIENCE))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert daemon.generate("a").only


def test_unknown_fields_are_ignored(daemon):
    data = request("The", stop={"max_new_tokens": 1}).SerializeToString() + b"\xf8\x3f\x01"  # field 1023
    messages = [generate_pb2.GenerateResponse.FromString(m) for m in raw_call(daemon, "Generate", data)]
    assert messages[-1].WhichOneof("event") == "finished"


def test_both_prompts_last_one_counts(daemon):
    text = request("The", stop={"max_new_tokens": 1}).SerializeToString()
    ids = generate_pb2.GenerateRequest(tokens=tokens_pb2.TokenIds(ids=[1, 300])).SerializeToString()
    messages = [generate_pb2.GenerateResponse.FromString(m) for m in raw_call(daemon, "Generate", text + ids)]
    assert messages[0].started.prompt_tokens == 2


@pytest.mark.parametrize("method,data", [("Tokenize", "1202fffe"), ("Tokenize", "1203e4bd61"), ("Tokenize", "1202c328"),
                                         ("Tokenize", "12ff"), ("Generate", "1a02c328"), ("Generate", "0a"),
                                         ("Score", "ff"), ("Detokenize", "12"), ("GetModel", "0a02c328"),
                                         ("CreateSession", "ff"), ("GetSession", "0a02c328"), ("ListSessions", "ff"),
                                         ("UpdateSession", "ff"), ("ForkSession", "ff"), ("DeleteSession", "0a02c328"),
                                         ("ExportSession", "0a02c328")])
def test_what_cannot_be_parsed_is_an_invalid_argument(daemon, method, data):
    """A string that is not UTF-8, as a C++ client sends it, and bytes that are no message."""
    service = "SessionService" if "Session" in method else "InferenceService"
    counted = f"grpc_server_handled_total{{grpc_code=INVALID_ARGUMENT,grpc_method={method},grpc_service=sluice.v1.{service}}}"
    before = daemon.metrics().get(counted, 0)
    with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
        raw_call(daemon, method, bytes.fromhex(data), service)
    assert "cannot be parsed" in caught.error.details()
    assert daemon.metrics()[counted] == before + 1
    assert daemon.generate("a").only


def test_unknown_method(daemon):
    with pytest.raises(grpc.RpcError) as error:
        raw_call(daemon, "Guess", b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
