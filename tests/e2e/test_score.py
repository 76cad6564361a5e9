"""Score, Tokenize, Detokenize, GetModel, and the sessions that are not there."""

import math

import grpc
import pytest

from harness import GOLDENS, VOCAB, model_pb2, rpc_error, score_pb2, session_pb2, tokens_pb2

CASES = GOLDENS["cases"]
CASE_IDS = [case["text"][:16] for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_score_equals_golden(daemon, case):
    for result in (daemon.score(text=case["text"]), daemon.score(tokens={"ids": case["ids"]})):
        assert [p.token_id for p in result.logprobs] == case["ids"][1:]
        assert [p.logprob for p in result.logprobs] == pytest.approx(case["prompt_logprobs"], abs=daemon.logprob_error)
        assert result.summary.tokens == len(case["ids"])
        assert result.summary.scored_tokens == len(case["ids"]) - 1
        assert result.summary.total_logprob == pytest.approx(sum(p.logprob for p in result.logprobs), abs=1e-3)
        assert not result.summary.next


def test_next_tokens_equal_golden(daemon):
    for case in CASES:
        peak = max(case["logits"])
        total = peak + math.log(sum(math.exp(x - peak) for x in case["logits"]))
        best = sorted(range(VOCAB), key=lambda i: -case["logits"][i])[:5]
        result = daemon.score(text=case["text"], top_logprobs=5)
        if daemon.device == "cpu":
            assert [a.token_id for a in result.summary.next] == best
        assert [a.logprob for a in result.summary.next] == pytest.approx(
            [case["logits"][i] - total for i in best], abs=daemon.logprob_error)
        assert all(len(p.alternatives) == 5 for p in result.logprobs)


@pytest.mark.slow
def test_five_thousand_tokens_are_streamed(daemon):
    ids = [1] + [i for case in CASES for i in case["ids"][1:]] * 40
    ids = ids[:5000]
    assert len(ids) == 5000
    result = daemon.score(tokens={"ids": ids})
    assert [p.token_id for p in result.logprobs] == ids[1:]
    assert result.messages > 1
    assert result.summary.total_logprob == pytest.approx(sum(p.logprob for p in result.logprobs), rel=1e-6)
    only = daemon.score(tokens={"ids": ids}, summary_only=True)
    assert only.messages == 0
    assert only.summary.total_logprob == result.summary.total_logprob
    # The same computation as a prompt's log-probabilities, to the bit.
    prompt = daemon.generate(ids, stop={"max_new_tokens": 0}, output={"prompt_logprobs": True})
    assert [p.logprob for p in prompt.prompt_logprobs] == [p.logprob for p in result.logprobs]
    daemon.wait_idle()


def test_score_add_special_tokens(daemon):
    text = "The captain of the watch"
    plain = daemon.score(text=text, add_special_tokens=False)
    assert plain.summary.tokens == daemon.score(text=text).summary.tokens - 1
    assert plain.summary.scored_tokens == len(plain.logprobs) == plain.summary.tokens - 1


def test_a_likely_text_scores_higher(daemon):
    def mean(text):
        summary = daemon.score(text=text, summary_only=True).summary
        return summary.total_logprob / summary.scored_tokens

    assert mean("He looked at her with great surprise.") > mean("Surprise great with her at looked he.") + 0.5


def test_score_errors(daemon):
    for request, field in ((score_pb2.ScoreRequest(), "input"),
                           (score_pb2.ScoreRequest(text="a", top_logprobs=21), "top_logprobs"),
                           (score_pb2.ScoreRequest(text="a", top_logprobs=-1), "top_logprobs"),
                           (score_pb2.ScoreRequest(tokens={"ids": []}), "tokens"),
                           (score_pb2.ScoreRequest(tokens={"ids": [1, VOCAB]}), "tokens.ids[1]"),
                           (score_pb2.ScoreRequest(tokens={"ids": [-1, 1]}), "tokens.ids[0]")):
        with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
            list(daemon.inference.Score(request))
        fields = [v.field for v in caught.details["BadRequest"].field_violations]
        assert len(fields) == 1 and (fields[0].startswith(field) or field == "input"), fields


def test_tokenize_equals_golden(daemon):
    for case in CASES:
        answer = daemon.inference.Tokenize(tokens_pb2.TokenizeRequest(text=case["text"]))
        assert list(answer.token_ids) == case["ids"]
        assert len(answer.pieces) == len(case["ids"])
        assert answer.pieces[0] == "<s>"
        assert daemon.tokenize(case["text"], add_special_tokens=False) == case["ids"][1:]
        assert daemon.detokenize(case["ids"]) == case["text"]


def test_tokenize_edges(daemon):
    assert daemon.tokenize("") == [1]
    assert daemon.tokenize("", add_special_tokens=False) == []
    assert daemon.detokenize([]) == ""
    assert daemon.detokenize([1, 2]) == ""
    for text in ("\x00", "a\x00b", " ", "\n\n", "e\u0301", "\U0001f469\u200d\U0001f680", "\ufeffx", "x" * 100_000):
        assert daemon.detokenize(daemon.tokenize(text)) == text
    for ids in ([VOCAB], [-1], [2**31 - 1], [-(2**31)]):
        with rpc_error(grpc.StatusCode.INVALID_ARGUMENT) as caught:
            daemon.detokenize(ids)
        assert caught.details["BadRequest"].field_violations[0].field == "token_ids[0]"


def test_get_model(daemon):
    model = daemon.inference.GetModel(model_pb2.GetModelRequest())
    assert (model.name, model.architecture, model.device) == ("classics-12m", "gla", daemon.device)
    assert (model.vocab_size, model.layers, model.hidden_size) == (4096, 6, 384)
    assert 12_000_000 < model.parameters < 12_500_000
    assert model.state_bytes == 6 * 3 * 64 * 128 * 4
    assert (model.weight_dtype, model.state_dtype) == ("bf16", "fp32")
    assert model.bos_token_id == 1 and list(model.eos_token_ids) == [2]
    assert model.fingerprint and model.numerics_id
    limits = model.limits
    assert (limits.max_prompt_tokens, limits.max_new_tokens, limits.max_sequences) == (1048576, 1048576, 64)
    assert (limits.max_stop_strings, limits.max_logprobs, limits.max_message_bytes) == (16, 20, 4194304)
    assert daemon.inference.GetModel(model_pb2.GetModelRequest(model="classics-12m")) == model


def test_unknown_model_is_not_found(daemon):
    calls = (
        lambda: list(daemon.inference.Score(score_pb2.ScoreRequest(model="gpt", text="a b"))),
        lambda: daemon.generate("a", model="gpt"),
        lambda: daemon.tokenize("a", model="gpt"),
        lambda: daemon.inference.Detokenize(tokens_pb2.DetokenizeRequest(model="gpt")),
        lambda: daemon.inference.GetModel(model_pb2.GetModelRequest(model="gpt")),
    )
    for call in calls:
        with rpc_error(grpc.StatusCode.NOT_FOUND) as caught:
            call()
        assert caught.details["ErrorInfo"].domain == "sluice" and caught.details["ErrorInfo"].reason


def test_a_daemon_without_sessions(start_daemon):
    daemon = start_daemon("--max_sessions=0")
    with rpc_error(grpc.StatusCode.UNIMPLEMENTED):
        daemon.sessions.CreateSession(session_pb2.CreateSessionRequest())
    with rpc_error(grpc.StatusCode.UNIMPLEMENTED):
        daemon.generate("a", session_id="mine")
    with rpc_error(grpc.StatusCode.UNIMPLEMENTED):
        daemon.score(text="a b", session_id="mine")
