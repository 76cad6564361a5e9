"""The prefix cache: what is reused, by whom, and that nobody can tell from the answer."""

import random

from harness import PATIENCE, SCALE, VOCAB, in_threads, request, wait_until
from sessions import Sessions

GRID = 64  # of the CPU


def tokens(seed, count):
    rng = random.Random(seed)
    return [1, *(rng.randrange(3, VOCAB) for _ in range(count - 1))]


def reused(result):
    return result.only.finished.usage.reused_tokens


def grown(daemon, before, name):
    return daemon.metrics()[name] - before[name]


def test_a_prompt_again_is_reused_to_its_last_chunk(start_daemon):
    daemon = start_daemon()
    prompt = tokens(1, 1000)
    before = daemon.metrics()
    first, second = (daemon.generate(prompt, output={"logprobs": 2}) for _ in range(2))
    assert reused(first) == 0 and reused(second) == 999 // GRID * GRID
    assert second.only.finished.usage.prompt_tokens == 1000
    bypass = daemon.generate(prompt, output={"logprobs": 2}, bypass_prefix_cache=True)
    assert reused(bypass) == 0
    assert first.only.bits() == second.only.bits() == bypass.only.bits()
    # Another text after 700 of them: 512 tokens were kept, next time all that the two share.
    assert reused(daemon.generate(prompt[:700] + tokens(2, 100))) == 512
    assert reused(daemon.generate(prompt[:700] + tokens(3, 100))) == 700 // GRID * GRID
    wait_until(lambda: grown(daemon, before, "sluice_prefix_cache_calls_total{result=hit}") == 3, "three hits")
    for prefix, labels in (("sluice_", ""), ("vllm:", "{engine=0,model_name=classics-12m}")):
        assert grown(daemon, before, f"{prefix}prefix_cache_queries_total{labels}") == 2 * 1000 + 2 * 800
        assert grown(daemon, before, f"{prefix}prefix_cache_hits_total{labels}") == 960 + 512 + 640
    assert daemon.metrics()["sluice_prefix_cache_bytes"] > 589_824
    assert grown(daemon, before, "sluice_prompt_tokens_total") == 3 * 1000 + 2 * 800 - 960 - 512 - 640


def test_bypass_leaves_nothing(daemon):
    prompt = tokens(10, 300)
    daemon.generate(prompt, bypass_prefix_cache=True)
    assert reused(daemon.generate(prompt)) == 0
    assert reused(daemon.generate(prompt)) == 256


def test_prompt_logprobs_compute_every_token(daemon):
    prompt = tokens(11, 300)
    daemon.generate(prompt)
    result = daemon.generate(prompt, output={"prompt_logprobs": True, "logprobs": 0})
    assert reused(result) == 0 and len(result.prompt_logprobs) == 299


def test_echo_of_what_is_reused(daemon):
    prompt = tokens(12, 300)
    first, second = (daemon.generate(prompt, output={"echo": True}) for _ in range(2))
    assert reused(second) == 256
    assert first.only.bits() == second.only.bits() and second.only.token_ids[:300] == prompt


def test_short_prompts_are_not_looked_up(daemon):
    before = daemon.metrics()
    for _ in range(2):
        assert reused(daemon.generate(tokens(13, GRID))) == 0
    assert grown(daemon, before, "sluice_prefix_cache_queries_total") == 0


def test_calls_with_one_prefix_compute_it_once(start_daemon):
    daemon = start_daemon()
    length = int(4000 * SCALE)
    common = tokens(20, length)
    results = in_threads(8, lambda i: daemon.generate(common + tokens(21 + i, 50), stop={"max_new_tokens": 4}))
    computed = daemon.metrics()["sluice_prompt_tokens_total"]
    # Who comes when the first is past their common part goes on from an earlier cut, or from what the second kept.
    assert computed <= 2 * length + 8 * (50 + GRID)
    assert sum(map(reused, results)) == 8 * (length + 50) - computed
    assert reused(daemon.generate(common + tokens(30, 50))) == length // GRID * GRID


def test_a_call_that_waits_takes_over(start_daemon):
    daemon = start_daemon()
    prompt = tokens(40, int(8000 * SCALE))
    leader = daemon.inference.Generate(request(prompt), timeout=PATIENCE)
    next(leader)
    wait_until(lambda: daemon.metrics()["sluice_prompt_tokens_total"] > 0, "it computes")
    follower = daemon.inference.Generate(request(prompt, stop={"max_new_tokens": 2}), timeout=PATIENCE)
    next(follower)
    wait_until(lambda: daemon.metrics()["sluice_prefix_cache_waits_total"] == 1, "the second waits")
    leader.cancel()
    finished = [m.finished for m in follower if m.WhichOneof("event") == "finished"]
    assert len(finished) == 1 and finished[0].usage.new_tokens == 2
    daemon.wait_idle()


def test_switched_off(start_daemon):
    daemon = start_daemon("--prefix_cache_bytes=0")
    prompt = tokens(50, 300)
    assert [reused(daemon.generate(prompt)) for _ in range(2)] == [0, 0]
    assert daemon.metrics()["sluice_prefix_cache_bytes"] == 0


def test_a_sessions_first_call_reuses(daemon):
    prompt = tokens(60, 300)
    daemon.generate(prompt)
    sessions = Sessions(daemon)
    sessions.create("prefix-cached")
    result = daemon.generate(prompt, session_id="prefix-cached")
    assert reused(result) == 256 and result.only.finished.session.position == 300 + 32
    again = daemon.generate(prompt, session_id="prefix-cached")
    assert reused(again) == 0
    sessions.delete("prefix-cached")
