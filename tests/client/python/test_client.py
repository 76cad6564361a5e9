"""The blocking client against the real daemon."""

import datetime
import gc
import threading

import pytest

import harness
import sluice
from harness import wait_until
from sluice.v1 import generate_pb2

ENDLESS = {"max_tokens": 1_000_000, "ignore_eos": True}


def test_generate_is_what_the_api_gives(client, daemon):
    """The same call through bare stubs gives the same text."""
    bare = daemon.generate("Once upon a time", sampling={"temperature": 0.8, "seed": 7}, stop={"max_new_tokens": 40})
    story = client.generate("Once upon a time", temperature=0.8, seed=7, max_tokens=40, token_ids=True)
    pieces = list(story)
    assert len(pieces) > 1 and "".join(pieces) == story.result.text == bare.only.text
    result = story.result
    assert result.token_ids == bare.only.token_ids and result.seed == 7
    assert (result.finish_reason, result.usage.new_tokens, result.prompt_tokens) == ("max_tokens", 40, 5)
    assert result.session is None and result.etag is None and result.timings.decode.ToNanoseconds() > 0
    tokens = client.tokenize("Once upon a time").ids
    assert client.complete(tokens, temperature=0.8, seed=7, max_tokens=40).text == result.text


def test_options_arrive(client):
    greedy = {"temperature": 0, "max_tokens": 12}
    plain = client.complete("The sea", **greedy)
    token = client.complete("The sea", token_ids=True, **greedy).token_ids[0]
    assert client.complete("The sea", logit_bias={token: -100}, **greedy).text != plain.text
    assert client.complete("The sea", echo=True, **greedy).text == "The sea" + plain.text
    ended = client.complete("The sea", stop_token_ids=[token], **greedy)
    assert (ended.finish_reason, ended.text, ended.usage.new_tokens) == ("stop_token", "", 1)
    word = plain.text.split()[1]
    ended = client.complete("The sea", stop=word, include_stop=True, **greedy)
    assert (ended.finish_reason, ended.matched_stop) == ("stop_string", word) and ended.text.endswith(word)
    likely = client.complete("The sea", logprobs=2, prompt_logprobs=True, request_id="mine", **greedy)
    assert likely.request_id == "mine" and len(likely.logprobs) == 12
    assert all(p.rank == 1 and len(p.alternatives) == 2 for p in likely.logprobs)
    assert len(likely.prompt_logprobs) == likely.prompt_tokens - 1
    silent = client.complete("The sea", text=False, token_ids=True, **greedy)
    assert silent.text == "" and len(silent.token_ids) == 12
    late = client.complete("The sea", time_limit=datetime.timedelta(milliseconds=300), **ENDLESS)
    assert late.finish_reason == "time_limit"


def test_several_sequences(client):
    many = client.generate("The sea", n=3, seed=1, max_tokens=8)
    texts = ["", "", ""]
    for index, text in many.pieces():
        texts[index] += text
    assert texts == [c.text for c in many.result.completions] and len(set(texts)) == 3
    with pytest.raises(TypeError, match="pieces"):
        next(client.generate("The sea", n=2))


def test_events_and_reading_on(client):
    story = client.generate("The sea", seed=1, max_tokens=16)
    kinds = [message.WhichOneof("event") for message in story.events()]
    assert kinds[0] == "started" and kinds[-1] == "finished" and set(kinds[1:-1]) == {"delta"}
    other = client.generate("The sea", seed=1, max_tokens=16)
    first = next(other)
    assert other.partial.text == first
    with pytest.raises(RuntimeError, match="not ended"):
        other.result  # noqa: B018
    assert other.read().text == story.result.text


def test_keywords_are_the_fields_of_the_api():
    """A field that is new in proto/ has no keyword until it is written down."""
    fields = {field.name for message in (generate_pb2.SamplingParams, generate_pb2.StopConditions,
                                         generate_pb2.OutputOptions, generate_pb2.GenerateRequest)
              for field in message.DESCRIPTOR.fields}
    # The prompt is an argument; two names differ, as "token_ids" is in two messages.
    fields -= {"tokens", "sampling", "output", "session_id", "strings"}
    ours = set(sluice.GenerateOptions.__annotations__)
    assert ours - fields == {"max_tokens", "session", "stop_token_ids", "timeout"}
    assert fields <= ours


def test_wrong_keywords(client):
    with pytest.raises(TypeError, match="no option temprature"):
        client.generate("a", temprature=1)
    with pytest.raises(TypeError, match="not bytes"):
        client.score(b"The sea")
    with pytest.raises(TypeError, match="the same"):
        client.generate("a", max_tokens=1, max_new_tokens=1)
    with pytest.raises(ValueError, match="on_conflict is 'wiat', must be one of fail, wait, cancel_running"):
        client.generate("a", on_conflict="wiat")


def test_score_and_tokens(client, daemon):
    for case in harness.GOLDENS["cases"][:2]:
        result = client.score(case["text"])
        assert [p.logprob for p in result.logprobs] == pytest.approx(case["prompt_logprobs"], abs=daemon.logprob_error)
        assert result.scored_tokens == result.tokens - 1 == len(result.logprobs)
        only = client.score(case["ids"], summary_only=True, top_logprobs=3)
        assert only.logprobs == [] and len(only.next) == 3 and only.perplexity == result.perplexity > 1
        tokens = client.tokenize(case["text"])
        assert tokens.ids == case["ids"] and len(tokens.pieces) == len(tokens.ids)
        assert client.detokenize(tokens.ids) == case["text"]
    assert client.tokenize("a", add_special_tokens=False).ids == client.tokenize("a").ids[1:]


def test_model_and_health(client):
    assert client.model().name == client.model("classics-12m").name == "classics-12m"
    assert client.health() == client.health("sluice.v1.InferenceService") == "SERVING"
    with pytest.raises(sluice.NotFoundError):
        client.health("nobody")


# ---- Sessions ----

def test_a_session_goes_on(client):
    story = client.sessions.create("story", labels={"user": "42"}, ttl=3600)
    assert (story.id, story.position, story.labels) == ("story", 0, {"user": "42"})
    assert story.expire_time > datetime.datetime.now(datetime.timezone.utc)
    before = story.etag
    first = story.complete("Once upon a time", seed=3, max_tokens=10)
    assert first.etag == story.etag == client.sessions.get("story").etag != before and story.position > 10
    fork = story.fork("other")
    assert (fork.position, fork.affinity) == (story.position, "story")
    score = story.score(" there")
    ends = [s.complete(" there", seed=4, max_tokens=10).text for s in (story, fork)]
    assert ends[0] == ends[1]
    unchanged = client.complete(" there", session="other", commit_policy="never", seed=1, max_tokens=3)
    assert unchanged.session is None and client.sessions.get("other").etag == fork.etag
    assert score.scored_tokens == score.tokens  # all, after a history
    assert fork.update(labels={"a": "b"}).labels == {"a": "b"} == fork.refresh().labels
    assert [s.id for s in client.sessions.list(page_size=1)] == ["other", "story"]
    assert [s.id for s in client.sessions.list(labels={"user": "42"})] == ["story"]
    fork.delete(etag=fork.etag)
    with pytest.raises(sluice.NotFoundError) as caught:
        fork.refresh()
    assert caught.value.reason == "SESSION_NOT_FOUND"


def test_conflicts(client):
    story = client.sessions.create()
    old = story.etag
    story.complete("The", max_tokens=2, etag=old)
    with pytest.raises(sluice.AbortedError) as caught:
        story.complete("The", max_tokens=2, etag=old)
    assert caught.value.reason == "ETAG_MISMATCH"
    running = story.generate("The", **ENDLESS)
    next(running)
    with pytest.raises(sluice.AbortedError) as caught:
        story.complete("The", max_tokens=2)
    assert caught.value.reason == "SESSION_BUSY"
    assert story.complete("The", max_tokens=2, on_conflict="cancel_running").etag == story.etag
    with pytest.raises(sluice.CancelledError):
        running.read()
    running = story.generate("The", **ENDLESS)
    next(running)
    waiting = []
    thread = threading.Thread(
        target=lambda: waiting.append(story.complete("The", max_tokens=2, on_conflict="wait").etag))
    thread.start()
    running.close()
    thread.join(60)
    assert waiting == [client.sessions.get(story).etag]


def test_export_and_import(start_daemon, tmp_path):
    from sessions import key_file
    ours = start_daemon(f"--state_key_file={key_file(tmp_path)}", "--max_sessions=3")
    theirs = start_daemon(f"--state_key_file={key_file(tmp_path, 'other.key', ('b' * 64,))}")
    with sluice.Client(ours.address) as client, sluice.Client(theirs.address) as other:
        story = client.sessions.create("story")
        story.complete("Once upon a time", seed=1, max_tokens=5)
        data = b"".join(story.export())
        copy = client.sessions.import_(data, "copy", labels={"from": "story"})
        again = client.sessions.import_([data[:1000], data[1000:]])
        assert copy.position == again.position == story.position and copy.labels == {"from": "story"}
        texts = {s.complete(" there", seed=2, max_tokens=8).text for s in (story, copy, again)}
        assert len(texts) == 1
        with pytest.raises(sluice.ResourceExhaustedError):
            sluice.Client(ours.address, retry=sluice.NO_RETRY).sessions.create()
        again.delete()
        with pytest.raises(sluice.DataLossError):
            client.sessions.import_(data[:-100])
        with pytest.raises(sluice.PermissionDeniedError):
            other.sessions.import_(data)


# ---- The end of a call ----

def test_closing_ends_the_call(client, daemon):
    with client.generate("The", **ENDLESS) as story:
        assert next(story) and daemon.live()
    daemon.wait_idle()
    assert list(story) == []
    story = client.generate("The", **ENDLESS)
    for _ in story:
        break
    assert daemon.live()
    del story  # and no reference
    gc.collect()
    daemon.wait_idle()


def test_cancel_from_another_thread(client, daemon):
    story = client.generate("The", **ENDLESS)
    next(story)
    thread = threading.Timer(0, story.cancel)
    thread.start()
    with pytest.raises(sluice.CancelledError):
        story.read()
    thread.join()
    daemon.wait_idle()
    unread = client.generate("The")
    unread.cancel()
    with pytest.raises(sluice.CancelledError):
        next(unread)


def test_closing_the_client_ends_its_calls(daemon):
    client = sluice.Client(daemon.address)
    story = client.generate("The", **ENDLESS)
    next(story)
    client.close()
    daemon.wait_idle()


# ---- Errors: every code that the daemon gives, but those met above ----

def test_errors(client, daemon, start_daemon):
    with pytest.raises(sluice.InvalidArgumentError) as caught:
        client.complete("a", top_p=2, temperature=-1)
    error = caught.value
    assert [v.field for v in error.field_violations] == ["sampling.temperature", "sampling.top_p"]
    assert str(error).startswith("INVALID_ARGUMENT: sampling.temperature: is -1, must be in ")
    client.sessions.create("a")
    nobody = sluice.Client("127.0.0.1:1", retry=sluice.NO_RETRY)
    bare = sluice.Client(start_daemon("--max_sessions=0").address)
    for kind, call in ((sluice.AlreadyExistsError, lambda: client.sessions.create("a")),
                       (sluice.NotFoundError, lambda: client.model("gpt")),
                       (sluice.NotFoundError, lambda: client.score("a b", session="b")),
                       (sluice.FailedPreconditionError, lambda: client.complete("The", session="a", durable=True)),
                       (sluice.DeadlineExceededError, lambda: client.complete("The", timeout=0.05, **ENDLESS)),
                       (sluice.UnimplementedError, bare.sessions.create),
                       (sluice.UnavailableError, nobody.model)):
        with pytest.raises(kind) as caught:
            call()
        assert isinstance(caught.value, sluice.SluiceError) and type(caught.value) is kind
        assert str(caught.value).startswith(caught.value.code.name + ": ")
        harness.check_message(caught.value.message)
    assert caught.value.message.endswith("is sluiced running at 127.0.0.1:1?")
    daemon.wait_idle()


def test_a_drain_is_seen(start_daemon):
    daemon = start_daemon("--drain_timeout=0s")
    with sluice.Client(daemon.address, retry=sluice.NO_RETRY) as client:
        story = client.generate("The", **ENDLESS)
        next(story)
        daemon.send(15)
        with pytest.raises(sluice.UnavailableError):
            story.read()
    wait_until(lambda: daemon.process.poll() is not None, "it ends")
