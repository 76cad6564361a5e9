"""The OpenAI-compatible port, driven by OpenAI's own client and, where it is too polite, by a bare socket."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import re
import signal
import socket
import urllib.error
import urllib.request

import openai
import pytest

from harness import Daemon, PATIENCE, ROOT, SCALE, check_message, proc_status, wait_until

PROMPT = "Once upon a time"
LENGTH = 12  # tokens, where it matters little
CANCELLED = "grpc_server_handled_total{grpc_code=CANCELLED,grpc_method=Completions,grpc_service=openai.v1}"
FOREVER = {"max_tokens": 1_000_000, "extra_body": {"ignore_eos": True}}


def client_of(daemon, **keywords):
    return openai.OpenAI(**{"base_url": f"http://{daemon.http}/v1", "api_key": "none", "max_retries": 0,
                            "timeout": PATIENCE, **keywords})


@pytest.fixture(scope="module")
def door():
    """A daemon with the port, which most tests here share."""
    daemon = Daemon("--http_listen=127.0.0.1:0")
    try:
        yield daemon
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def client(door):
    return client_of(door)


def complete(client, prompt=PROMPT, **fields):
    return client.completions.create(model="classics-12m", prompt=prompt, **{"max_tokens": LENGTH, "seed": 7, **fields})


def test_the_page_and_the_readme(door, capsys):
    """The Python of the API's page says what its comments say, and the README's answer is the daemon's."""
    page = (ROOT / "server/http/README.md").read_text()
    program, = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(program.replace("localhost:8080", door.http), {})
    said = re.findall(r"  # (.*)$", program, re.M)
    out = capsys.readouterr().out
    text, score = out[:len(said[0])], out[len(said[0]):]
    assert len(said) == 2 and text == said[0] and float(score) == pytest.approx(float(said[1]), rel=1e-5)
    body, shown = re.search(r"""-d '(\{"prompt": "Once.*?\})'\n(\{.*\})""", (ROOT / "README.md").read_text()).groups()
    got = post(door, "/v1/completions", body.encode())[2]
    assert got["choices"] == json.loads(shown)["choices"] and got.keys() == json.loads(shown).keys()


def post(daemon, path, body, **headers):
    """(status, headers, parsed body) of a bare request."""
    sent = urllib.request.Request(f"http://{daemon.http}{path}", data=body,
                                  headers={"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(sent, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


def error_of(answer, status):
    """The error object of a bare answer, which must be one of that status."""
    assert answer[0] == status, answer
    error = answer[2]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    check_message(error["message"])
    return error


def open_stream(daemon, **fields):
    """A socket that has asked for an endless stream and has read nothing."""
    body = json.dumps({"prompt": PROMPT, "max_tokens": 1_000_000, "ignore_eos": True, "stream": True, **fields}).encode()
    peer = socket.socket()
    peer.settimeout(PATIENCE)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = daemon.http.split(":")
    peer.connect((host, int(port)))
    peer.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    return peer


# ---- What it answers ----


def test_the_model(door, client):
    models = client.models.list().data
    assert [m.id for m in models] == ["classics-12m"]
    described = models[0].sluice
    assert described["state_bytes"] == 589_824
    assert described["context_length"] is None
    assert client.models.retrieve("classics-12m") == models[0]


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_completion_is_that_of_grpc(door, client, temperature):
    sampling = {"temperature": temperature, "seed": 7}
    expected = door.generate(PROMPT, sampling=sampling, stop={"max_new_tokens": LENGTH})
    answer = complete(client, temperature=temperature)
    assert answer.choices[0].text == expected.only.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == expected.started.prompt_tokens
    assert answer.usage.completion_tokens == LENGTH
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert answer.system_fingerprint.startswith("fp_")

    chunks = list(complete(client, temperature=temperature, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks[:-1]) == expected.only.text
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert len(chunks) > 3, "tokens are streamed, not gathered"
    assert chunks[-1].choices == [] and chunks[-1].usage == answer.usage
    assert {c.id for c in chunks} == {chunks[0].id}


def test_defaults_are_those_of_openai(door, client):
    answer = client.completions.create(model="classics-12m", prompt=PROMPT)
    assert answer.usage.completion_tokens <= 16


def test_n_sequences_are_those_of_grpc(door, client):
    expected = door.generate(PROMPT, n=2, sampling={"temperature": 1, "seed": 7}, stop={"max_new_tokens": LENGTH})
    texts = [expected.sequences[i].text for i in range(2)]
    answer = complete(client, n=2)
    assert [c.text for c in answer.choices] == texts and texts[0] != texts[1]
    assert answer.usage.completion_tokens == 2 * LENGTH
    streamed = ["", ""]
    for chunk in complete(client, n=2, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_prompts_in_one_call_are_answered_as_alone(client):
    prompts = [PROMPT, "The sea", "It was"]
    together = complete(client, prompt=prompts, n=2)
    assert [c.index for c in together.choices] == list(range(6))
    for i, prompt in enumerate(prompts):
        alone = complete(client, prompt=prompt, n=2)
        assert [c.text for c in together.choices[2 * i:2 * i + 2]] == [c.text for c in alone.choices]
    streamed = [""] * 6
    for chunk in complete(client, prompt=prompts, n=2, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [c.text for c in together.choices]


def test_tokens_are_a_prompt(door, client):
    ids = door.tokenize(PROMPT)
    assert complete(client, prompt=ids).choices[0].text == complete(client).choices[0].text
    assert [c.text for c in complete(client, prompt=[ids, ids]).choices] == [complete(client).choices[0].text] * 2


def test_logprobs_are_those_of_grpc(door, client):
    expected = door.generate(PROMPT, sampling={"temperature": 1, "seed": 7}, stop={"max_new_tokens": LENGTH},
                             output={"logprobs": 2}).only
    answer = complete(client, logprobs=2).choices[0]
    told = answer.logprobs
    assert told.token_logprobs == pytest.approx([p.logprob for p in expected.logprobs], abs=1e-6)
    assert "".join(told.tokens) == answer.text
    assert [answer.text[begin:].startswith(t) for begin, t in zip(told.text_offset, told.tokens)] == [True] * LENGTH
    for token, value, top in zip(told.tokens, told.token_logprobs, told.top_logprobs):
        assert top[token] == value and 2 <= len(top) <= 3
    gathered = [v for c in complete(client, logprobs=2, stream=True) for v in c.choices[0].logprobs.token_logprobs]
    assert gathered == told.token_logprobs


@pytest.mark.parametrize("stream", [False, True])
def test_echo_scores_a_text(door, client, stream):
    text = "The quick brown fox jumps over the lazy dog."
    expected = door.score(text=text)
    answer = complete(client, prompt=text, echo=True, logprobs=0, max_tokens=0, stream=stream)
    parts = [c.choices[0] for c in answer] if stream else [answer.choices[0]]
    assert "".join(p.text for p in parts) == text
    values = [v for p in parts for v in p.logprobs.token_logprobs]
    assert values[0] is None
    assert sum(values[1:]) == pytest.approx(expected.summary.total_logprob, abs=1e-3)
    assert len(values) == expected.summary.tokens
    assert parts[-1].finish_reason == "length"


def test_echo_goes_on(client):
    answer = complete(client, echo=True).choices[0]
    assert answer.text == PROMPT + complete(client).choices[0].text


def test_a_stop_string_ends_it(client):
    whole = complete(client, temperature=0, max_tokens=30).choices[0].text
    stop = whole.split()[5]
    answer = complete(client, temperature=0, max_tokens=30, stop=[stop, "never to be seen"]).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.text == whole[:whole.index(stop)]


def test_a_bias_forbids_a_token(door, client):
    first = door.generate(PROMPT, stop={"max_new_tokens": 1}).only.token_ids[0]
    plain = complete(client, temperature=0, max_tokens=1).choices[0].text
    assert complete(client, temperature=0, max_tokens=1, logit_bias={str(first): -100}).choices[0].text != plain


def test_a_chat_is_its_template(client):
    messages = [{"role": "system", "content": "Tell a story."}, {"role": "user", "content": "Begin."}]
    prompt = "system: Tell a story.\nuser: Begin.\nassistant:"
    plain = complete(client, prompt=prompt, stop="\nuser:").choices[0]
    answer = client.chat.completions.create(model="classics-12m", messages=messages, max_tokens=LENGTH, seed=7,
                                            logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == plain.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    content = answer.choices[0].logprobs.content
    assert bytes(b for t in content for b in t.bytes).decode() == plain.text
    assert all(len(t.top_logprobs) == 2 for t in content)
    chunks = list(client.chat.completions.create(model="classics-12m", messages=messages, max_tokens=LENGTH, seed=7,
                                                 stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == plain.text
    assert [c.choices[0].delta.role for c in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason


def test_a_chat_template_of_ones_own(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", r"--chat_template=<{role}>\n{content}</>")
    client = client_of(daemon)
    answer = client.chat.completions.create(model="", messages=[{"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], max_tokens=8, seed=1)
    plain = complete(client, prompt="<user>\nab</><assistant>\n", max_tokens=8, seed=1)
    assert answer.choices[0].message.content == plain.choices[0].text
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens


# ---- What it refuses ----


def test_bad_requests_say_what_is_wrong(door, client):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, temperature=200)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        client.chat.completions.create(model="", messages=[{"role": "user", "content": "a"}],
                                       tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    with pytest.raises(openai.BadRequestError, match="suffix is not supported"):
        complete(client, suffix="the end")
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-5", prompt="a")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    assert "JSON" in error_of(post(door, "/v1/completions", b"{"), 400)["message"]
    assert "JSON" in error_of(post(door, "/v1/completions", b'{"prompt":"\xff"}'), 400)["message"]
    assert "deep" in error_of(post(door, "/v1/completions", b"[" * 100_000), 400)["message"]
    error_of(post(door, "/v1/completions", b"{}", **{"Content-Type": "text/plain"}), 415)
    for coding in ("gzip", "br", "identity, gzip"):
        error = error_of(post(door, "/v1/completions", b"{}", **{"Content-Encoding": coding}), 415)
        assert coding in error["message"]
    assert post(door, "/v1/completions", b'{"prompt":"a","max_tokens":1}', **{"Content-Encoding": "Identity"})[0] == 200
    error_of(post(door, "/v1/embeddings", b"{}"), 404)
    error_of(post(door, "/v1/models", b"{}"), 405)
    door.wait_idle()


def test_a_model_is_named_exactly(door):
    for name in ("%00x", "%00", "classics-12m%00", "classics%2D12m%20", "a%0d%0ab"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://{door.http}/v1/models/{name}", timeout=PATIENCE)
        error = error_of((caught.value.code, None, json.loads(caught.value.read())), 404)
        assert error["code"] == "model_not_found"
    with urllib.request.urlopen(f"http://{door.http}/v1/models/classics%2D12m", timeout=PATIENCE) as answer:
        assert json.loads(answer.read())["id"] == "classics-12m"


def test_too_large_is_refused(door):
    limit = 4_194_304
    error = error_of(post(door, "/v1/completions", json.dumps({"prompt": "a" * limit}).encode()), 413)
    assert str(limit) in error["message"]
    headers = {"Content-Type": "application/json", "x-large": "a" * 30_000}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"http://{door.http}/v1/models", headers=headers), timeout=PATIENCE)
    assert caught.value.code in (413, 431)


def test_a_large_prompt_is_taken(client):
    """A body above what is parsed on the port's own thread."""
    answer = complete(client, max_tokens=2, user="u" * 100_000)
    assert answer.choices[0].text == complete(client, max_tokens=2).choices[0].text


def test_an_answer_has_a_bound(start_daemon):
    client = client_of(start_daemon("--http_listen=127.0.0.1:0", "--max_message_bytes=65536"))
    with pytest.raises(openai.BadRequestError, match="ask for a stream"):
        complete(client, max_tokens=1000, logprobs=20, extra_body={"ignore_eos": True})


def test_over_the_limit_is_429_with_when(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--max_streams=1")
    client = client_of(daemon)
    with complete(client, stream=True, **FOREVER) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            complete(client)
        assert caught.value.code == "rate_limit_exceeded"
        headers = caught.value.response.headers
        assert int(headers["retry-after"]) >= 1 and int(headers["retry-after-ms"]) >= 1
    daemon.wait_idle()
    with pytest.raises(openai.RateLimitError):
        complete(client, prompt=["a", "b"])  # the first is let in, and must give its place back
    daemon.wait_idle()
    complete(client)


def test_tenants_and_their_tokens(start_daemon, tmp_path):
    file = tmp_path / "tenants"
    digest = hashlib.sha256(b"s-token").hexdigest()
    file.write_text(f"tenant small max_streams=1\ntoken small sha256:{digest}\n")
    daemon = start_daemon("--http_listen=127.0.0.1:0", f"--auth_tokens_file={file}", "--auth_failures_per_minute=3")
    client = client_of(daemon, api_key="s-token")
    assert client.models.list().data
    with complete(client, stream=True, **FOREVER) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="of your streams"):
            complete(client)
    daemon.wait_idle()
    complete(client)
    for call in (lambda c: c.models.list(), complete):
        with pytest.raises(openai.AuthenticationError) as caught:
            call(client_of(daemon, api_key="wrong"))
        assert caught.value.code == "invalid_api_key"
    error_of(post(daemon, "/v1/completions", b'{"prompt":"a"}'), 401)
    with pytest.raises(openai.RateLimitError, match="too many calls from this address"):
        client_of(daemon, api_key="wrong").models.list()
    assert client.models.list().data, "a valid token works whatever else its address does"


def test_only_loopback_is_plain(start_daemon):
    with pytest.raises(AssertionError, match="--http_listen=0.0.0.0:0 is plain HTTP"):
        start_daemon("--http_listen=0.0.0.0:0")
    assert complete(client_of(start_daemon("--http_listen=0.0.0.0:0", "--allow_plaintext")))


# ---- Clients that leave, and many of them ----


def test_a_client_that_leaves_costs_nothing(door, client):
    before = door.metrics().get(CANCELLED, 0)
    with complete(client, stream=True, **FOREVER) as stream:  # while it is written to
        next(iter(stream))
    with pytest.raises(openai.APITimeoutError):  # while nothing is written, which takes a look at the socket
        complete(client_of(door, timeout=0.2), **FOREVER)
    with pytest.raises(openai.APITimeoutError):
        complete(client_of(door, timeout=0.2), prompt=["a", "b", "c"], n=2, **FOREVER)
    door.wait_idle()
    assert door.metrics()[CANCELLED] == before + 3
    assert complete(client).choices[0].text


def test_one_that_waits_in_the_queue_can_leave(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--device_state_bytes=589824")  # one slot
    client = client_of(daemon)
    with complete(client, stream=True, **FOREVER) as stream:
        next(iter(stream))
        with pytest.raises(openai.APITimeoutError):
            complete(client_of(daemon, timeout=0.2), stream=True)
        wait_until(lambda: daemon.metrics().get(CANCELLED) == 1, "it is cancelled")
        gauges = ("sluice_streams", "sluice_permits", "sluice_requests_waiting")
        wait_until(lambda: [daemon.metrics()[name] for name in gauges] == [1, 1, 0], "the waiting call is gone")
    daemon.wait_idle()


def test_a_hundred_streams_hold_no_thread_each(start_daemon):
    count = int(100 * SCALE)
    daemon = start_daemon("--http_listen=127.0.0.1:0", f"--device_state_bytes={count * 589_824}")
    complete(client_of(daemon))
    before = proc_status(daemon.process.pid, "Threads")

    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"http://{daemon.http}/v1", api_key="none", max_retries=0,
                                      timeout=PATIENCE) as client:
            streams = await asyncio.gather(*(
                client.completions.create(model="", prompt=f"{i}", stream=True, **FOREVER) for i in range(count)))
            readers = [stream.__aiter__() for stream in streams]
            for _ in range(3):
                chunks = await asyncio.gather(*(reader.__anext__() for reader in readers))
                assert len(chunks) == count
            assert daemon.metrics()["sluice_streams"] == count
            assert proc_status(daemon.process.pid, "Threads") == before
            await asyncio.gather(*(stream.close() for stream in streams))

    asyncio.run(all_at_once())
    daemon.wait_idle()
    wait_until(lambda: daemon.metrics()["sluice_connections"] <= 1, "connections are closed")


def test_a_reader_that_does_not_read_is_cut_off(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--write_stall=500ms", "--ring_events=16")
    with contextlib.closing(open_stream(daemon)) as peer:
        dropped = "sluice_streams_dropped_total{reason=slow_reader}"
        wait_until(lambda: daemon.metrics()[dropped] == 1, "the stream is dropped")
        daemon.wait_idle()
        with contextlib.suppress(ConnectionError):  # what was on its way, and the end
            while peer.recv(65536):
                pass


def test_half_a_request_leaves_nothing(door):
    """Also where the end comes together with the last bytes."""
    whole = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"prompt\""
    before = door.metrics()["sluice_connections"]
    host, port = door.http.split(":")
    for i in range(0, len(whole), 3):
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=PATIENCE)) as peer:
            peer.sendall(whole[:i])
    wait_until(lambda: door.metrics()["sluice_connections"] <= before, "connections are closed", timeout=20)
    error_of(post(door, "/v1/completions", b"{"), 400)


def test_connections_are_bounded(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--max_connections_per_peer=2")
    host, port = daemon.http.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            idle = stack.enter_context(contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=PATIENCE)))
            idle.request("GET", "/v1/models")
            assert idle.getresponse().read()
        third = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
        with contextlib.suppress(ConnectionError):
            assert third.recv(1) == b"", "closed at once"
    shed = "sluice_connections_shed_total{reason=max_connections_per_peer}"
    assert daemon.metrics()[shed] == 1


def test_one_connection_serves_many_requests(door):
    host, port = door.http.split(":")
    body = json.dumps({"prompt": PROMPT, "max_tokens": 2, "stream": True})
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=PATIENCE)) as connection:
        before = door.metrics()["sluice_connections_accepted_total"]
        for i in range(20):
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json", "X-Request-Id": f"r{i}"})
            answer = connection.getresponse()
            assert answer.headers["x-request-id"] == f"r{i}"
            assert answer.read().endswith(b"data: [DONE]\n\n")
        assert door.metrics()["sluice_connections_accepted_total"] == before + 1


def test_sigterm_lets_streams_finish(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0")
    client = client_of(daemon)
    length = int(600 * SCALE)
    expected = complete(client, max_tokens=length, extra_body={"ignore_eos": True}).choices[0].text
    stream = iter(complete(client, max_tokens=length, stream=True, extra_body={"ignore_eos": True}))
    text = next(stream).choices[0].text
    idle = contextlib.closing(http.client.HTTPConnection(*daemon.http.split(":"), timeout=PATIENCE))
    with idle as connection:
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        daemon.send(signal.SIGTERM)
        wait_until(lambda: daemon.get("/readyz")[0] == 503, "it drains")
        connection.request("POST", "/v1/completions", '{"prompt":"a"}', {"Content-Type": "application/json"})
        refused = connection.getresponse()
        assert refused.status == 503 and refused.headers["retry-after"] and refused.headers["connection"] == "close"
        assert "shutting down" in json.loads(refused.read())["error"]["message"]
    chunks = list(stream)
    assert text + "".join(c.choices[0].text for c in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "length"
    assert daemon.wait() == 0


def test_a_drain_that_takes_too_long_says_so(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--drain_timeout=100ms")
    stream = iter(complete(client_of(daemon), stream=True, **FOREVER))
    next(stream)
    daemon.send(signal.SIGTERM)
    with pytest.raises(openai.APIError, match="shutting down|going down|drain"):
        list(stream)
    assert daemon.wait() == 0


def test_the_page_needs_nothing_from_elsewhere(door):
    with urllib.request.urlopen(f"http://{door.http}/", timeout=PATIENCE) as answer:
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'(src|href)="(?!data:)|https?://|@import', page), "all of it is in the file"
