"""Every field of SamplingParams has an effect that can be seen from outside."""

import math

import pytest

from harness import VOCAB

PROMPT = "The captain of the"


def tokens(daemon, new=48, **sampling):
    result = daemon.generate(PROMPT, sampling=sampling, stop={"max_new_tokens": new, "ignore_eos": True})
    return result.only.token_ids


def with_logprobs(daemon, new=64, alternatives=20, **sampling):
    result = daemon.generate(PROMPT, sampling=sampling, stop={"max_new_tokens": new, "ignore_eos": True},
                             output={"logprobs": alternatives})
    return result.only.logprobs


def test_temperature_zero_is_greedy(daemon):
    picks = with_logprobs(daemon, temperature=0, seed=9)
    assert all(p.rank == 1 for p in picks)
    assert [p.token_id for p in picks] == tokens(daemon, 64, temperature=0, seed=10)


def test_temperature_changes_how_surprising_tokens_are(daemon):
    def mean(temperature):
        picks = [p for seed in range(4) for p in with_logprobs(daemon, 48, 0, temperature=temperature, seed=seed)]
        return sum(p.logprob for p in picks) / len(picks)

    assert mean(0.3) > mean(1.0) + 0.3 > mean(2.0) + 0.6


def test_default_temperature_is_one(daemon):
    assert tokens(daemon, seed=4) == tokens(daemon, seed=4, temperature=1.0) != tokens(daemon, temperature=0)


def test_top_k(daemon):
    assert tokens(daemon, top_k=1, seed=1) == tokens(daemon, temperature=0)
    ranks = [p.rank for seed in range(3) for p in with_logprobs(daemon, top_k=3, seed=seed, temperature=1.5)]
    assert max(ranks) == 3 and min(ranks) == 1
    assert tokens(daemon, top_k=0, seed=1) == tokens(daemon, seed=1) == tokens(daemon, top_k=VOCAB, seed=1)


def test_top_p(daemon):
    assert tokens(daemon, top_p=1e-6, seed=1) == tokens(daemon, temperature=0)
    picks = [p for seed in range(3) for p in with_logprobs(daemon, top_p=0.4, seed=seed)]
    assert any(p.rank > 1 for p in picks)
    for pick in picks:
        if pick.rank <= 20:  # what is more likely had not reached top_p yet
            before = sum(math.exp(a.logprob) for a in pick.alternatives[:pick.rank - 1])
            assert before < 0.4 + 1e-4
    assert tokens(daemon, top_p=1.0, seed=1) == tokens(daemon, seed=1)


def test_min_p(daemon):
    assert tokens(daemon, min_p=1.0, seed=1) == tokens(daemon, temperature=0)
    picks = [p for seed in range(3) for p in with_logprobs(daemon, min_p=0.2, seed=seed)]
    assert any(p.rank > 1 for p in picks)
    assert all(p.logprob >= p.alternatives[0].logprob + math.log(0.2) - 1e-4 for p in picks)
    assert tokens(daemon, min_p=0.0, seed=1) == tokens(daemon, seed=1)


def test_typical_p(daemon):
    # So small that one token is left: no seed matters any more, and it need not be the most likely one.
    only = tokens(daemon, typical_p=1e-6, seed=1)
    assert only == tokens(daemon, typical_p=1e-6, seed=2)
    assert only != tokens(daemon, temperature=0)
    assert tokens(daemon, typical_p=1.0, seed=1) == tokens(daemon, seed=1)


def test_repetition_penalty(daemon):
    plain = tokens(daemon, 96, temperature=0)
    penalized = tokens(daemon, 96, temperature=0, repetition_penalty=1.5)
    assert len(set(penalized)) > len(set(plain)) + 10
    assert tokens(daemon, 96, temperature=0, repetition_penalty=1.0) == plain

    # The prompt's tokens count too.
    first = plain[0]
    prompt = daemon.tokenize(PROMPT) + [first]
    base = daemon.generate(prompt, stop={"max_new_tokens": 1}, output={"logprobs": 1})
    word = base.only.token_ids[0]
    seen = daemon.generate([1, word] + prompt[1:], stop={"max_new_tokens": 1},
                           sampling={"temperature": 0, "repetition_penalty": 100.0})
    assert seen.only.token_ids[0] not in set([1, word] + prompt)


def test_presence_penalty(daemon):
    plain = tokens(daemon, 64, temperature=0)
    assert len(set(plain)) < 64
    apart = tokens(daemon, 64, temperature=0, presence_penalty=100.0)
    assert len(set(apart)) == 64
    assert apart[0] == plain[0], "what the prompt holds is not penalized"


def test_frequency_penalty(daemon):
    assert len(set(tokens(daemon, 64, temperature=0, frequency_penalty=100.0))) == 64
    # It grows with the count, presence does not: bias one token up, and see how often it can be taken in a row.
    favourite = {"temperature": 0, "logit_bias": {278: 100.0}}
    assert tokens(daemon, 20, **favourite) == [278] * 20
    assert tokens(daemon, 20, **favourite, presence_penalty=10.0) == [278] * 20
    falling = tokens(daemon, 20, **favourite, frequency_penalty=20.0)
    assert 1 <= falling.count(278) < 10


def test_negative_penalties_favour_what_was_said(daemon):
    assert len(set(tokens(daemon, 40, temperature=0, frequency_penalty=-100.0))) <= 2


def test_logit_bias(daemon):
    first = tokens(daemon, 1, temperature=0)[0]
    assert tokens(daemon, 1, temperature=0, logit_bias={first: -100.0})[0] != first
    assert tokens(daemon, 3, temperature=1.0, seed=1, logit_bias={777: 100.0}) == [777] * 3


def test_logprobs_are_the_models_own(daemon):
    """Before penalties, bias and temperature: they equal what Score says of the same tokens."""
    prompt = daemon.tokenize(PROMPT)
    result = daemon.generate(prompt, sampling={"temperature": 1.7, "seed": 3, "presence_penalty": 2.0,
                                               "logit_bias": {300: 3.0}},
                             stop={"max_new_tokens": 32, "ignore_eos": True}, output={"logprobs": 3})
    ids = result.only.token_ids
    assert [p.token_id for p in result.only.logprobs] == ids
    scored = daemon.score(tokens={"ids": prompt + ids}, top_logprobs=3).logprobs[len(prompt) - 1:]
    assert len(scored) == len(ids)
    for own, score in zip(result.only.logprobs, scored):
        assert own.token_id == score.token_id
        assert own.logprob == pytest.approx(score.logprob, abs=daemon.logprob_error)
        assert len(own.alternatives) == 3


def test_all_at_once(daemon):
    everything = dict(temperature=0.9, top_k=50, top_p=0.95, min_p=0.01, typical_p=0.97, repetition_penalty=1.05,
                      presence_penalty=0.1, frequency_penalty=0.1, logit_bias={5: -1.0}, seed=11)
    assert tokens(daemon, **everything) == tokens(daemon, **everything)
