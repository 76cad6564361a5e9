"""The client for asyncio against the real daemon: what it gives is what the blocking one gives."""

import asyncio
import inspect

import pytest

import sluice

ENDLESS = {"max_tokens": 1_000_000, "ignore_eos": True}


def run(daemon, body, **options):
    async def main():
        async with sluice.AsyncClient(daemon.address, timeout=60, **options) as client:
            return await asyncio.wait_for(body(client), 60)

    return asyncio.run(main())


async def fails(kind, awaitable):
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value


def test_same_calls_as_the_blocking_client():
    for ours, theirs in ((sluice.AsyncClient, sluice.Client), (sluice.AsyncSession, sluice.Session),
                         (sluice.AsyncSessions, sluice.Sessions), (sluice.AsyncGeneration, sluice.Generation)):
        names = {name: member for name, member in vars(theirs).items() if not name.startswith("_")}
        names.pop("close", None)
        for name, member in names.items():
            assert (inspect.signature(getattr(ours, name)).parameters.keys()
                    == inspect.signature(member).parameters.keys()), name


def test_generate_equals_the_blocking_one(daemon, client):
    options = {"temperature": 0.8, "seed": 7, "max_tokens": 40, "token_ids": True, "logprobs": 1}

    async def body(a):
        story = a.generate("Once upon a time", **options)
        pieces = [text async for text in story]
        assert "".join(pieces) == story.result.text
        many = a.generate("The sea", n=2, seed=1, max_tokens=8)
        texts = ["", ""]
        async for index, text in many.pieces():
            texts[index] += text
        kinds = [e.WhichOneof("event") async for e in a.generate("The", max_tokens=4).events()]
        assert kinds[0] == "started" and kinds[-1] == "finished"
        return story.result, texts

    result, texts = run(daemon, body)
    same = client.complete("Once upon a time", **options)
    assert (result.text, result.token_ids, result.usage) == (same.text, same.token_ids, same.usage)
    assert [p.logprob for p in result.logprobs] == [p.logprob for p in same.logprobs]
    assert texts == [c.text for c in client.complete("The sea", n=2, seed=1, max_tokens=8).completions]


def test_many_at_once(daemon, client):
    async def body(a):
        return await asyncio.gather(*(a.complete("The sea", seed=i, max_tokens=8) for i in range(30)))

    texts = [result.text for result in run(daemon, body)]
    assert texts == [client.complete("The sea", seed=i, max_tokens=8).text for i in range(30)]


def test_score_tokens_model_health(daemon, client):
    async def body(a):
        score = await a.score("The sea and the ships")
        assert (await a.detokenize((await a.tokenize("The sea")).ids)) == "The sea"
        assert (await a.model()).name == "classics-12m" and await a.health() == "SERVING"
        return score

    score, same = run(daemon, body), client.score("The sea and the ships")
    assert score.perplexity == same.perplexity and score.logprobs == same.logprobs


def test_sessions(start_daemon, tmp_path):
    from sessions import key_file
    daemon = start_daemon(f"--state_key_file={key_file(tmp_path)}")

    async def body(a):
        story = await a.sessions.create("story", ttl=60)
        first = await story.complete("Once upon a time", seed=3, max_tokens=8)
        assert first.etag == story.etag and story.position > 8
        fork = await story.fork("other", labels={"a": "b"})
        assert (await story.score(" there")).scored_tokens > 0
        data = b"".join([piece async for piece in story.export()])
        copy = await a.sessions.import_(data, "copy")
        texts = {(await s.complete(" there", seed=4, max_tokens=8)).text for s in (story, fork, copy)}
        assert len(texts) == 1
        assert (await fork.update(labels={})).labels == {} == (await fork.refresh()).labels
        assert [s.id async for s in a.sessions.list(page_size=2)] == ["copy", "other", "story"]
        await fork.delete()
        error = await fails(sluice.NotFoundError, a.sessions.get("other"))
        assert error.reason == "SESSION_NOT_FOUND"
        await fails(sluice.AbortedError, story.complete("a", etag="old"))

    run(daemon, body)


def test_errors(daemon):
    async def body(a):
        error = await fails(sluice.InvalidArgumentError, a.complete("a", top_p=2))
        assert error.field_violations[0].field == "sampling.top_p" and "must be in" in error.message
        await fails(sluice.DeadlineExceededError, a.complete("The", timeout=0.05, **ENDLESS))
        async with sluice.AsyncClient("127.0.0.1:1", retry=sluice.NO_RETRY) as nobody:
            error = await fails(sluice.UnavailableError, nobody.model())
        assert error.message.endswith("is sluiced running at 127.0.0.1:1?")

    run(daemon, body)


def test_every_way_to_end_a_call(daemon):
    async def idle():
        await asyncio.to_thread(daemon.wait_idle)

    async def body(a):
        async with a.generate("The", **ENDLESS) as story:
            assert await anext(story) and daemon.live()
        await idle()

        story = a.generate("The", **ENDLESS)
        await anext(story)
        reader = asyncio.create_task(story.read())
        await asyncio.sleep(0)
        story.cancel()
        await fails(sluice.CancelledError, reader)
        await idle()

        started = asyncio.Event()

        async def read():
            async for _ in a.generate("The", **ENDLESS):
                started.set()

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        await fails(asyncio.CancelledError, task)
        await idle()

    run(daemon, body)
