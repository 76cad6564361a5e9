"""What lm-eval is told: the arithmetic over Score and Generate. lm_eval_check.sh has lm-eval itself ask."""

import math

import pytest

import harness
import sluice
from sluice._evaluation import Evaluation

TEXT = " ".join(case["text"] for case in harness.GOLDENS["cases"])


@pytest.fixture
def evaluation(client):
    return Evaluation(client)


def test_rolling_is_the_score_of_the_whole_text(client, evaluation):
    whole = client.score(TEXT)
    assert evaluation.prefix_token_id == harness.BOS and evaluation.eot_token_id == harness.EOS
    assert evaluation.max_length == 1_048_575
    assert evaluation.loglikelihood_rolling(TEXT) == pytest.approx(whole.total_logprob, rel=1e-12)
    assert evaluation.loglikelihood_rolling("") == 0


def test_rolling_in_windows_scores_each_token_once(client):
    """The same windows as lm-eval's own: disjoint, and the last one with as much before it as fits."""
    tokens = client.tokenize(TEXT, add_special_tokens=False).ids
    size = len(tokens) // 3 + 5
    assert 2 * size < len(tokens) < 3 * size
    windows = [([1], tokens[:size]), (tokens[size - 1:size], tokens[size:2 * size]),
               (tokens[len(tokens) - size - 1:2 * size], tokens[2 * size:])]
    expected = 0.0
    for context, piece in windows:
        assert len(context) + len(piece) <= size + 1
        expected += sum(p.logprob for p in client.score([*context, *piece]).logprobs[-len(piece):])
    windowed = Evaluation(client, max_length=size).loglikelihood_rolling(TEXT)
    assert windowed == pytest.approx(expected, rel=1e-6)
    assert windowed < Evaluation(client).loglikelihood_rolling(TEXT), "less context, less likely"


def test_a_continuation(client, evaluation):
    context = client.tokenize("The sea").ids
    greedy = client.complete(context, temperature=0, max_tokens=6, token_ids=True, logprobs=0)
    total, is_greedy = evaluation.loglikelihood(context, greedy.token_ids)
    assert is_greedy and total == pytest.approx(sum(p.logprob for p in greedy.logprobs), abs=1e-4)
    other = [*greedy.token_ids[:-1], greedy.token_ids[-1] + 1]
    assert not evaluation.loglikelihood(context, other)[1]
    assert evaluation.loglikelihood(context, []) == (0.0, True)
    short = Evaluation(client, max_length=4)
    assert short.loglikelihood(context, greedy.token_ids[:4])[0] == pytest.approx(
        evaluation.loglikelihood(context[-1:], greedy.token_ids[:4])[0])
    with pytest.raises(ValueError, match="longer than max_length, 4"):
        short.loglikelihood(context, greedy.token_ids)


def test_generate_until(client, evaluation):
    greedy = client.complete("The sea", temperature=0, max_tokens=30).text
    assert evaluation.generate_until("The sea", {"max_gen_toks": 30}) == greedy
    assert evaluation.generate_until("The sea", {"max_gen_toks": 30, "do_sample": False, "temperature": 1}) == greedy
    word = greedy.split()[2]
    assert evaluation.generate_until("The sea", {"until": [word, ""]}) == greedy[:greedy.index(word)]
    sampled = evaluation.generate_until("The sea", {"max_gen_toks": 30, "do_sample": True, "temperature": 0.9, "seed": 3})
    assert sampled == client.complete("The sea", temperature=0.9, seed=3, max_tokens=30).text != greedy
    with pytest.raises(TypeError, match="no option num_beams"):
        evaluation.generate_until("The sea", {"num_beams": 2})


def test_perplexity_by_word_and_byte(client, evaluation):
    """lm-eval's word_perplexity is exp(-log-likelihood / words), and so on: of tokens it is ScoreResult's."""
    score = client.score(TEXT)
    total = evaluation.loglikelihood_rolling(TEXT)
    assert math.exp(-total / score.scored_tokens) == pytest.approx(score.perplexity, rel=1e-9)


def test_a_daemon_of_other_limits(start_daemon):
    with sluice.Client(start_daemon("--max_prompt_tokens=64").address) as client:
        windowed = Evaluation(client)
        assert windowed.max_length == 63
        assert windowed.loglikelihood_rolling(TEXT) == pytest.approx(
            Evaluation(client, max_length=63).loglikelihood_rolling(TEXT))
