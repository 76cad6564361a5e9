"""The port to the letter: names and offsets of log-probabilities, ends, seeds, escapes, fields of other servers, odd paths."""

import contextlib
import http.client
import json
import socket

import pytest

from harness import BOS, Daemon, PATIENCE, ROOT
from test_openai import PROMPT, client_of, complete, error_of, post

BYTE_A = 100  # the token of the byte "a"
UNKNOWN = "x-sluice-ignored-fields"


@pytest.fixture(scope="module")
def door():
    daemon = Daemon("--http_listen=127.0.0.1:0")
    try:
        yield daemon
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def ask(daemon, body, path="/v1/completions"):
    """The answer to a body, which must be one."""
    status, _, answer = post(daemon, path, json.dumps(body).encode())
    assert status == 200, answer
    return answer


def choice(daemon, body, path="/v1/completions"):
    return ask(daemon, body, path)["choices"][0]


# ---- Log-probabilities ----


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["", [BOS]])
def test_names_and_offsets_describe_the_text(door, prompt, stream):
    """Also where the text drops its first space."""
    body = {"prompt": prompt, "max_tokens": 3, "temperature": 0, "logprobs": 5, "stream": stream}
    if stream:
        told = [c["choices"][0] for c in events(door, body)]
        tokens, offsets, tops = ([x for c in told for x in c["logprobs"][key]] for key in
                                 ("tokens", "text_offset", "top_logprobs"))
        text = "".join(c["text"] for c in told)
    else:
        told = choice(door, body)
        text, tokens, offsets, tops = (told["text"], *(told["logprobs"][k] for k in
                                                       ("tokens", "text_offset", "top_logprobs")))
    assert (text, tokens, offsets) == ("Title", ["T", "it", "le"], [0, 1, 3])
    assert not any(name.startswith(" ") for name in tops[0])


def test_offsets_go_on_after_half_a_character(door):
    """The prompt ends inside a character, which the answer's first token does not complete."""
    half = door.tokenize("\u2603")[:-1]
    body = {"prompt": half, "max_tokens": 6, "temperature": 0, "logprobs": 0, "echo": True}
    told = choice(door, body)
    text, logprobs = told["text"], told["logprobs"]
    for name, offset in zip(logprobs["tokens"], logprobs["text_offset"]):
        if name.startswith("bytes:"):
            assert text[offset] == "\ufffd"
        elif name != "<s>":
            assert text.startswith(name, offset), (name, offset, text)
    alone = choice(door, {**body, "echo": False})
    for name, offset in zip(alone["logprobs"]["tokens"], alone["logprobs"]["text_offset"]):
        assert name.startswith("bytes:") or alone["text"].startswith(name, offset), (name, offset, alone["text"])


@pytest.mark.parametrize("prompt,token,value", [("The", "The", -12.616992), ("He was", "He", -13.003104),
                                                ("I am", "I", -11.572428), ([BOS, 68], "A", -22.556253)])
def test_each_name_once_and_the_tokens_own_value_stays(door, prompt, token, value):
    body = json.dumps({"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 20}).encode()
    host, port = door.http.split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=PATIENCE)) as connection:
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read(), object_pairs_hook=once)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"][1] == token
    assert logprobs["token_logprobs"][1] == pytest.approx(value, abs=door.logprob_error)
    assert logprobs["top_logprobs"][1][token] == logprobs["token_logprobs"][1]


def once(pairs):
    assert len({key for key, _ in pairs}) == len(pairs), f"a key twice: {pairs}"
    return dict(pairs)


# ---- Ends ----


@pytest.mark.parametrize("bound,stops", [(4, 3), (4, 4), (16, 16), (0, 0)])
def test_a_chat_keeps_its_own_end(start_daemon, bound, stops):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--chat_template={content}a", f"--max_stop_strings={bound}")
    assert daemon.detokenize([BYTE_A]) == "a"
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "logit_bias": {str(BYTE_A): 100},
            "stop": [f"z{i}" for i in range(stops)]}
    told = choice(daemon, body, "/v1/chat/completions")
    assert (told["message"]["content"], told["finish_reason"], told["stop_reason"]) == ("", "stop", None)
    body["stop"].append("one more")
    if stops == bound:
        error = error_of(post(daemon, "/v1/chat/completions", json.dumps(body).encode()), 400)
        assert error["param"] == "stop" and f"at most {bound} are allowed" in error["message"]


def test_stop_reason_says_what_ended_it(door):
    whole = choice(door, {"prompt": PROMPT, "max_tokens": 30, "temperature": 0, "return_token_ids": True})
    assert whole["stop_reason"] is None and whole["finish_reason"] == "length"
    word, token = whole["text"].split()[5], whole["token_ids"][4]
    base = {"prompt": PROMPT, "max_tokens": 30, "temperature": 0}
    assert choice(door, {**base, "stop": ["unseen", word]})["stop_reason"] == word
    assert choice(door, {**base, "stop_token_ids": [token]})["stop_reason"] == token
    last = events(door, {**base, "stop_token_ids": [token], "stream": True})[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", token)


def test_min_tokens_needs_a_token_to_be_left(start_daemon):
    daemon = start_daemon("--tokenizer=none", "--http_listen=127.0.0.1:0", model=ROOT / "tests/goldens/variants/wide_head")
    body = {"prompt": [1, 5], "max_tokens": 3, "min_tokens": 2, "stop_token_ids": list(range(64))}
    assert error_of(post(daemon, "/v1/completions", json.dumps(body).encode()), 400)["param"] == "min_tokens"
    body["stop_token_ids"].pop()
    assert ask(daemon, body)["usage"]["completion_tokens"] >= 2


def test_a_seed_of_minus_one_is_none(door):
    body = {"prompt": PROMPT, "max_tokens": 10}
    for seed, answers in ((-1, 4), (None, 4), (7, 1), (2**64 - 1, 1)):
        assert len({choice(door, {**body, "seed": seed})["text"] for _ in range(4)}) == answers, seed


# ---- Events and bodies ----


def events(daemon, body):
    """The JSON of each event, as a reader that cuts lines by str.splitlines sees it."""
    host, port = daemon.http.split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=PATIENCE)) as connection:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        text = connection.getresponse().read().decode()
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("prompt", ["a\u2028b", "a\u2029b", "a\x85b", "axb"])
def test_no_line_end_of_unicode_tears_an_event(door, prompt):
    told = events(door, {"prompt": prompt, "max_tokens": 1, "echo": True, "stream": True})
    assert "".join(c["choices"][0]["text"] for c in told).startswith(prompt)


def test_bytes_behind_a_nul_are_an_error(door):
    error = error_of(post(door, "/v1/completions", b'{"prompt":"a","max_tokens":1}\0garbage'), 400)
    assert "JSON" in error["message"] and "byte 30" in error["message"]
    error_of(post(door, "/v1/completions", b'{"prompt":"a","max_tokens":1}\0'), 400)


@pytest.mark.parametrize("field,param,told", [
    ('"max_tokens":2147483648', "max_tokens", "2147483648"), ('"top_p":1e999', "top_p", "1e999"),
    ('"seed":18446744073709551616', "seed", "1.84"), ('"stop_token_ids":[1,4294967296]', "stop_token_ids[1]", "4294967296"),
    ('"temperature":1e39', "temperature", "1e+39"), ('"logit_bias":{"5":1e39}', "logit_bias[5]", "1e+39"),
    ('"n_predict":-1', "n_predict", "-1"), ('"logit_bias":{"5":101}', "logit_bias[5]", "101")])
def test_numbers_out_of_range_are_named(door, field, param, told):
    error = error_of(post(door, "/v1/completions", b'{"prompt":"a",%s}' % field.encode()), 400)
    assert error["param"] == param and told in error["message"], error
    bad = error_of(post(door, "/v1/completions", b'{"prompt":[1,99999999999]}'), 400)
    assert bad["param"] == "prompt[1]" and "99999999999" in bad["message"]


def test_messages_without_text_and_of_tools(door):
    ask(door, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None},
                            {"role": "tool", "tool_call_id": "1", "content": "b"}], "max_tokens": 1},
        "/v1/chat/completions")


# ---- Fields of other servers ----

BASE = {"prompt": "Once upon a time", "max_tokens": 4, "seed": 1, "temperature": 0}
BASE_TEXT = ", when the old"


@pytest.mark.parametrize("field", [
    {"grammar": 'root ::= "x"'}, {"regex": "x+"}, {"guided_decoding": {"choice": ["x"]}}, {"allowed_token_ids": [300, 301]},
    {"skip_special_tokens": False}, {"truncate": 2}, {"dry_multiplier": 1.0}, {"prompt_logprobs": 1},
    {"bad_words": ["when"]}, {"json_schema": {"type": "object"}}, {"ebnf": 'root ::= "x"'}, {"mirostat": 2},
    {"structured_outputs": {"regex": "x"}}, {"xtc_probability": 0.5}, {"logits_processors": ["x"]}])
def test_fields_that_cannot_be_honoured_are_refused_by_name(door, field):
    error = error_of(post(door, "/v1/completions", json.dumps({**BASE, **field}).encode()), 400)
    assert error["param"] == next(iter(field))


@pytest.mark.parametrize("field", [{"add_generation_prompt": False}, {"chat_template_kwargs": {"enable_thinking": False}}])
def test_fields_of_chats_are_refused_by_name(door, field):
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, **field}
    error = error_of(post(door, "/v1/chat/completions", json.dumps(body).encode()), 400)
    assert error["param"] == next(iter(field))


@pytest.mark.parametrize("field", ["max_new_tokens", "max_completion_tokens", "n_predict"])
def test_every_name_of_the_bound_holds(door, field):
    answer = ask(door, {**BASE, field: 2})
    assert answer["usage"]["completion_tokens"] == 2 and BASE_TEXT.startswith(answer["choices"][0]["text"])
    alone = {key: value for key, value in BASE.items() if key != "max_tokens"}
    assert ask(door, {**alone, field: 3})["usage"]["completion_tokens"] == 3


def test_fields_that_are_honoured(door):
    assert choice(door, BASE)["text"] == BASE_TEXT
    ids = door.tokenize(BASE["prompt"], add_special_tokens=False)
    bare = ask(door, {**BASE, "add_special_tokens": False})
    assert bare["usage"]["prompt_tokens"] == len(ids)
    assert bare["choices"][0]["text"] == choice(door, {**BASE, "prompt": ids})["text"]
    assert choice(door, {**BASE, "temperature": 1, "do_sample": False})["text"] == BASE_TEXT
    plain, penalized = ask(door, {**BASE, "repetition_penalty": 5}), ask(door, {**BASE, "repeat_penalty": 5})
    assert plain["choices"] == penalized["choices"]


def test_values_that_change_nothing_are_taken(door):
    neutral = {"grammar": None, "skip_special_tokens": True, "dry_multiplier": 0, "mirostat": 0, "tfs_z": 1.0,
               "bad_words": [], "length_penalty": 1.0, "use_beam_search": False, "response_format": {"type": "text"},
               "dry_base": 1.75, "user": "u", "metadata": {}}
    status, headers, answer = post(door, "/v1/completions", json.dumps({**BASE, **neutral}).encode())
    assert status == 200 and answer["choices"][0]["text"] == BASE_TEXT
    assert headers[UNKNOWN] is None, "all of these are known"


def test_unknown_fields_are_told(door):
    body = {**BASE, "temprature": 0, "zwei\r\nx: y": 1, **{f"x{i}": 1 for i in range(100)}}
    status, headers, _ = post(door, "/v1/completions", json.dumps(body).encode())
    told = headers[UNKNOWN].split(", ")
    assert status == 200 and "temprature" in told and len(told) == 16 and headers["x"] is None
    assert post(door, "/v1/completions", json.dumps(BASE).encode())[1][UNKNOWN] is None


# ---- Methods and paths ----


def bare(daemon, line, *fields, body=b""):
    """(status, headers, body) of a request whose first line is given."""
    host, port = daemon.http.split(":")
    head = "\r\n".join([line, *fields, "Connection: close", f"Content-Length: {len(body)}", "", ""])
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=PATIENCE)) as peer:
        peer.sendall(head.encode() + body)
        answer = http.client.HTTPResponse(peer, method=line.split()[0])
        answer.begin()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("path", ["/v1/models", "//v1/models", "/v1//models", "/v1/models/", "///v1/models//",
                                  "http://localhost/v1/models", "/v1/models/classics-12m/", "/"])
def test_a_path_has_many_spellings(door, path):
    status, headers, body = bare(door, f"GET {path} HTTP/1.1", "Host: localhost")
    assert status == 200
    status, head, nothing = bare(door, f"HEAD {path} HTTP/1.1", "Host: localhost")
    assert (status, nothing, head["content-length"]) == (200, b"", str(len(body)))
    assert head["content-type"] == headers["content-type"]


@pytest.mark.parametrize("path", ["/v1/completions/", "//v1/completions", "http://localhost/v1/completions"])
def test_calls_have_too(door, path):
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    assert bare(door, f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", body=body)[0] == 200


def test_a_call_is_no_get(door):
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        status, headers, body = bare(door, f"{method} /v1/completions HTTP/1.1", "Host: localhost")
        assert status == 405 and headers["allow"] == "POST" and (method == "HEAD") == (body == b"")
    status, headers, _ = bare(door, "DELETE /v1/models HTTP/1.1", "Host: localhost")
    assert status == 405 and headers["allow"] == "GET, HEAD"
