"""When a call is made again, how often, and after how long: by a server that fails as it is told to, without waiting."""

import asyncio

import pytest
from grpc import StatusCode

import sluice
import sluice._async
import sluice._retry
import sluice._sync
from fake_daemon import END, SESSION, SUMMARY, TOKENS, FakeDaemon, failure, text

FULL = failure(StatusCode.RESOURCE_EXHAUSTED, "the queue is full", retry_ms=1234)
STARTING = failure(StatusCode.UNAVAILABLE, "not ready", retry_ms=250)
REFUSED = failure(StatusCode.RESOURCE_EXHAUSTED, "the message is too large")
BROKEN = StatusCode.UNAVAILABLE  # no details: the connection, not the daemon


@pytest.fixture
def fake():
    server = FakeDaemon()
    yield server
    server.server.stop(None).wait()


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that calls would have waited."""
    seconds = []

    async def pause(s):
        seconds.append(s)

    monkeypatch.setattr(sluice._sync, "_pause", lambda s, stop: seconds.append(s))
    monkeypatch.setattr(sluice._async, "_pause", pause)
    return seconds


@pytest.fixture(params=["sync", "async"])
def call(request, fake):
    """call(method, ...) on a client of either kind; what fails is raised."""

    def blocking(method, *arguments, **options):
        with sluice.Client(fake.address, **options.pop("client", {})) as client:
            return method(client)(*arguments, **options)

    def in_a_loop(method, *arguments, **options):
        async def body():
            async with sluice.AsyncClient(fake.address, **options.pop("client", {})) as client:
                return await method(client)(*arguments, **options)

        return asyncio.run(body())

    return blocking if request.param == "sync" else in_a_loop


def complete(client):
    return client.complete


def create(client):
    return client.sessions.create


@pytest.mark.parametrize("refusal, seconds", [(FULL, 1.234), (STARTING, 0.25)], ids=["full", "starting"])
def test_the_daemon_says_when(fake, call, pauses, refusal, seconds):
    for method, answer, arguments, options in ((complete, [text("a"), END], ["The"], {}),
                                               (complete, [text("a"), END], ["The"], {"session": "s"}),
                                               (lambda c: c.score, [SUMMARY], ["a b"], {}),
                                               (lambda c: c.tokenize, [TOKENS], ["a b"], {}),
                                               (create, [SESSION], [], {})):
        fake.script = [[refusal], [refusal], answer]
        pauses.clear()
        assert call(method, *arguments, **options)
        assert pauses == [seconds, seconds] and fake.script == []


def test_backoff_where_it_does_not(fake, call, pauses):
    policy = sluice.RetryPolicy(max_attempts=7, initial_backoff=0.1, max_backoff=1.0)
    fake.script = [[BROKEN]] * 6 + [[text("a"), END]]
    assert call(complete, "The", client={"retry": policy}).text == "a"
    for seconds, most in zip(pauses, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
        assert most / 2 <= seconds <= most
    assert len({seconds / most for seconds, most in zip(pauses[-2:], (1.0, 1.0))}) == 2, "some of it is random"


def test_it_gives_up(fake, call, pauses):
    fake.script = [[FULL]] * 9
    with pytest.raises(sluice.ResourceExhaustedError) as caught:
        call(complete, "The", client={"retry": sluice.RetryPolicy(max_attempts=3)})
    assert (len(fake.calls), len(pauses), caught.value.retry_after) == (3, 2, 1.234)
    assert str(caught.value) == "RESOURCE_EXHAUSTED: the queue is full; retry in 1234 ms"
    with pytest.raises(sluice.ResourceExhaustedError):
        call(complete, "The", client={"retry": sluice.NO_RETRY})
    assert len(fake.calls) == 4


@pytest.mark.parametrize("script, method, options", [
    ([text("a"), STARTING], complete, {}),  # it has produced something
    ([BROKEN], complete, {"session": "s"}),  # it may have committed
    ([BROKEN], create, {}),
    ([REFUSED], complete, {}),  # waiting does not help
    ([failure(StatusCode.ABORTED, retry_ms=5)], complete, {}),
    ([failure(StatusCode.INTERNAL, "numeric fault")], complete, {}),
    ([FULL], complete, {"timeout": 1.0}),  # no time is left after the pause
], ids=["produced", "commits", "creates", "refused", "aborted", "internal", "late"])
def test_no_other_try(fake, call, pauses, script, method, options):
    fake.script = [script, [text("b"), END]]
    with pytest.raises(sluice.SluiceError):
        call(method, *(["The"] if method is complete else []), **options)
    assert len(fake.calls) == 1 and pauses == []


def test_what_only_reads_a_session_is_tried_again(fake, call, pauses):
    fake.script = [[BROKEN], [text("a"), END]]
    assert call(complete, "The", session="s", commit_policy="never").text == "a"


def test_all_tries_share_the_timeout(fake, call, monkeypatch):
    clock = [100.0]

    def pause(*_):
        clock[0] += 5

    async def pause_in_loop(_):
        pause()

    monkeypatch.setattr(sluice._retry, "_now", lambda: clock[0])
    monkeypatch.setattr(sluice._sync, "_pause", pause)
    monkeypatch.setattr(sluice._async, "_pause", pause_in_loop)
    fake.script = [[STARTING], [STARTING], [text("a"), END]]
    call(complete, "The", timeout=60)
    for (_, _, left), least in zip(fake.calls, (55, 50, 45), strict=True):
        assert least < left <= least + 5.1


def test_what_goes_with_a_call(fake, call):
    fake.script = [[SESSION], [text("a"), END], [text("a"), END]]
    story = call(create, "a", affinity="shelf", client={"token": "secret"})
    call(complete, "The", session=story)
    call(complete, "The")
    sent = [(metadata.get("authorization"), metadata.get("x-sluice-affinity")) for _, metadata, _ in fake.calls]
    assert sent == [("Bearer secret", "shelf"), (None, "shelf"), (None, None)]


def test_traceparent(fake, call):
    """Asked before each try; what is none is not sent."""
    given = iter([f"00-{i:032x}-{i:016x}-01" for i in (1, 2)] + [None, "no trace\n"])
    fake.script = [[STARTING], [text("a"), END], [text("a"), END], [text("a"), END], [text("a"), END]]
    traced = {"client": {"traceparent": lambda: next(given)}}
    for _ in range(3):
        call(complete, "The", **traced)
    call(complete, "The", client={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-00"})
    sent = [metadata.get("traceparent") for _, metadata, _ in fake.calls]
    assert sent == ["00-" + "0" * 31 + "1-" + "0" * 15 + "1-01", "00-" + "0" * 31 + "2-" + "0" * 15 + "2-01", None, None,
                    "00-" + "a" * 32 + "-" + "b" * 16 + "-00"]


def test_an_error_of_one_sequence(fake, call):
    from sluice.v1 import generate_pb2
    failed = generate_pb2.GenerateResponse(finished=generate_pb2.Finished(
        reason=generate_pb2.FINISH_REASON_ERROR, status={"code": 13, "message": "numeric fault"}))
    fake.script = [[text("a"), failed], [failed, generate_pb2.GenerateResponse(
        finished=generate_pb2.Finished(index=1, reason=generate_pb2.FINISH_REASON_EOS))]]
    with pytest.raises(sluice.InternalError, match="numeric fault"):
        call(complete, "The")
    both = call(complete, "The", n=2).completions
    assert isinstance(both[0].error, sluice.InternalError) and both[1].finish_reason == "eos" and not both[1].error


def test_a_full_daemon_is_asked_again(start_daemon, tmp_path, monkeypatch):
    """The real one's word, of a tenant that may have one stream."""
    from test_access import write_tenants
    daemon = start_daemon(f"--auth_tokens_file={write_tenants(tmp_path / 'tenants')}")
    with sluice.Client(daemon.address, token="s-token") as client:
        held = [client.generate("The", max_tokens=1_000_000, ignore_eos=True) for _ in range(2)]
        for story in held:
            next(story)
        waits = []

        def pause(seconds, stop):
            waits.append(seconds)
            for story in held:
                story.close()
            daemon.wait_idle()

        monkeypatch.setattr(sluice._sync, "_pause", pause)
        assert client.complete("The", max_tokens=2).finish_reason == "max_tokens"
        assert len(waits) == 1 and 0.025 <= waits[0] <= 7.5
