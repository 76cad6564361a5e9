"""Generate: the goldens, the order of a stream, reproducibility."""

import pytest

from harness import BOS, GOLDENS, PATIENCE, Result, collect, in_threads, request, wait_until

CASES = GOLDENS["cases"]
CASE_IDS = [case["text"][:16] for case in CASES]


def agreed(daemon, case):
    """How many greedy tokens the golden is sure of."""
    for i, margin in enumerate(case["margin"]):
        if margin <= daemon.margin:
            return i
    return len(case["greedy"])


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_greedy_equals_golden(daemon, case):
    new = len(case["greedy"])
    for prompt in (case["text"], case["ids"]):
        result = daemon.generate(prompt, stop={"max_new_tokens": new, "ignore_eos": True})
        sure = agreed(daemon, case)
        assert result.only.token_ids[:sure] == case["greedy"][:sure]
        assert result.only.finished.usage.prompt_tokens == len(case["ids"]) == result.started.prompt_tokens
        assert result.only.finished.usage.new_tokens == len(result.only.token_ids) == new
        assert result.only.reason == "MAX_TOKENS"
        if sure == new:
            assert result.only.text.strip() == case["greedy_text"].strip()


def test_deltas_arrive_while_it_runs(daemon):
    call = daemon.inference.Generate(request("The", stop={"max_new_tokens": 100000, "ignore_eos": True}),
                                     timeout=PATIENCE)
    kinds = [next(call).WhichOneof("event") for _ in range(20)]
    call.cancel()
    assert kinds[0] == "started" and set(kinds[1:]) == {"delta"}
    daemon.wait_idle()


def test_request_id_is_echoed_or_made_up(daemon):
    assert daemon.generate("The", request_id="my call 7").started.request_id == "my call 7"
    made_up = {daemon.generate("The", stop={"max_new_tokens": 1}).started.request_id for _ in range(3)}
    assert len(made_up) == 3 and "" not in made_up


def test_add_special_tokens(daemon):
    plain = daemon.tokenize("The sea", add_special_tokens=False)
    assert [BOS, *plain] == daemon.tokenize("The sea")
    with_bos = daemon.generate("The sea", add_special_tokens=True)
    without = daemon.generate("The sea", add_special_tokens=False)
    assert with_bos.started.prompt_tokens == without.started.prompt_tokens + 1
    assert with_bos.only.bits() == daemon.generate("The sea").only.bits()
    assert without.only.bits() == daemon.generate(plain).only.bits()


def test_model_name_is_accepted(daemon):
    assert daemon.model_name == "classics-12m"
    assert daemon.generate("The", model="classics-12m").only.text


def test_zero_new_tokens(daemon):
    result = daemon.generate("The old man", stop={"max_new_tokens": 0})
    assert result.only.token_ids == [] and result.only.text == ""
    assert result.only.reason == "MAX_TOKENS"
    assert result.only.finished.usage.new_tokens == 0


def test_seed_reproduces_and_is_returned(daemon):
    free = {"temperature": 1.0}
    first = daemon.generate("The night", sampling=free)
    again = daemon.generate("The night", sampling={**free, "seed": first.started.seed})
    assert first.only.bits() == again.only.bits()
    seeds = {daemon.generate("The night", sampling=free, stop={"max_new_tokens": 1}).started.seed for _ in range(4)}
    assert len(seeds) == 4
    assert daemon.generate("The night", sampling={**free, "seed": 1}).only.bits() != again.only.bits()
    largest = daemon.generate("The night", sampling={**free, "seed": 2**64 - 1})
    assert largest.started.seed == 2**64 - 1


def test_n_sequences(daemon):
    free = {"temperature": 1.0, "seed": 42}
    result = daemon.generate("The night", sampling=free, n=4, output={"logprobs": 2})
    assert sorted(result.sequences) == [0, 1, 2, 3]
    assert len({s.bits() for s in result.sequences.values()}) == 4
    # Sequence i draws from (seed, i), so fewer of them changes none.
    two = daemon.generate("The night", sampling=free, n=2, output={"logprobs": 2})
    alone = daemon.generate("The night", sampling=free, output={"logprobs": 2})
    assert two.sequences[0].bits() == result.sequences[0].bits() == alone.only.bits()
    assert two.sequences[1].bits() == result.sequences[1].bits()
    greedy = daemon.generate("The night", n=3)
    assert len({s.bits() for s in greedy.sequences.values()}) == 1


def test_same_bits_alone_and_in_company(daemon):
    """A request's tokens and log-probabilities do not depend on who else is served."""

    def mine():
        return daemon.generate("Title: The Lost Island\nAuthor: Jules Verne\n" * 9,
                               sampling={"temperature": 0.9, "seed": 5, "repetition_penalty": 1.1},
                               stop={"max_new_tokens": 64},
                               output={"logprobs": 5, "prompt_logprobs": True})

    def bits(result):
        prompt = tuple((p.token_id, p.logprob, p.rank) for p in result.prompt_logprobs)
        return prompt, result.only.bits()

    alone = bits(mine())
    assert len(alone[0]) > 128, "the prompt spans several chunks"
    others = [
        daemon.inference.Generate(
            request("A story of the sea. " * (3 * i + 1), sampling={"temperature": 1, "seed": i},
                    stop={"max_new_tokens": 100000, "ignore_eos": True}), timeout=PATIENCE)
        for i in range(16)
    ]
    for other in others:  # each is running
        assert next(other).WhichOneof("event") == "started"
        assert next(other).WhichOneof("event") == "delta"
    try:
        company = in_threads(4, lambda _: bits(mine()))
    finally:
        for other in others:
            other.cancel()
    assert all(one == alone for one in company)
    daemon.wait_idle()


def test_two_hundred_parallel_streams(daemon):
    """More than there are slots; every one is answered, and nothing is left behind."""
    tokens = {}

    def one(i):
        kind = i % 10
        result = daemon.generate(f"Chapter {kind}.", sampling={"temperature": 1.0, "seed": kind},
                                 stop={"max_new_tokens": 24, "ignore_eos": True})
        tokens.setdefault(kind, []).append(tuple(result.only.token_ids))

    in_threads(200, one)
    assert sum(len(runs) for runs in tokens.values()) == 200
    assert all(len(set(runs)) == 1 and len(runs[0]) == 24 for runs in tokens.values())
    daemon.wait_idle()


def test_priority_leaves_the_queue_first(start_daemon):
    daemon = start_daemon("--device_state_bytes=600000")
    assert daemon.slots() == (0, 1)
    holder = daemon.inference.Generate(request("The", stop={"max_new_tokens": 1000000, "ignore_eos": True}),
                                       timeout=PATIENCE)
    next(holder)
    queued = {}
    for priority in (-1, 0, 5):  # the least urgent comes first
        call = daemon.inference.Generate(request("The", priority=priority, stop={"max_new_tokens": 16}),
                                         timeout=PATIENCE)
        queued[priority] = Result()
        queued[priority].add(next(call))
        queued[priority].call = call
    wait_until(lambda: daemon.metrics()["sluice_requests_waiting"] == 3, "three wait")
    holder.cancel()
    waited = {p: collect(r.call, into=r).only.finished.timings.queue.ToNanoseconds() for p, r in queued.items()}
    assert waited[5] < waited[0] < waited[-1]


def test_bypass_prefix_cache_changes_nothing(daemon):
    bits = [daemon.generate("The old man", bypass_prefix_cache=bypass).only.bits() for bypass in (False, True)]
    assert bits[0] == bits[1]


def test_ends_at_eos(daemon):
    """EOS made likely ends a sequence; ignore_eos goes on."""
    bias = {"temperature": 0, "logit_bias": {2: 100.0}}
    result = daemon.generate("The", sampling=bias)
    assert result.only.reason == "EOS" and result.only.token_ids == [2] and result.only.text == ""
    on = daemon.generate("The", sampling=bias, stop={"max_new_tokens": 5, "ignore_eos": True})
    assert on.only.reason == "MAX_TOKENS" and on.only.token_ids == [2] * 5


def test_usage_and_timings(daemon):
    finished = daemon.generate("The old man and the sea").only.finished
    assert finished.usage.reused_tokens == 0
    timings = finished.timings

    def seconds(duration):
        return duration.seconds + duration.nanos / 1e9

    assert seconds(timings.prefill) > 0 and seconds(timings.decode) > 0
    assert seconds(timings.queue) >= 0
    assert abs(seconds(timings.time_to_first_token) - seconds(timings.queue) - seconds(timings.prefill)) < 1e-3
    assert not finished.HasField("session") and not finished.HasField("status")


def test_long_stream_is_whole(daemon):
    """2,000 tokens: text equals the text of the ids, however the deltas were cut."""
    result = collect(daemon.inference.Generate(
        request("It was", sampling={"temperature": 1, "seed": 3}, stop={"max_new_tokens": 2000, "ignore_eos": True}),
        timeout=PATIENCE))
    assert len(result.only.token_ids) == 2000
    prompt_text = "It was"
    text = daemon.detokenize(daemon.tokenize(prompt_text) + result.only.token_ids)
    assert text == prompt_text + result.only.text
