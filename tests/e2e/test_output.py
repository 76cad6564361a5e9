"""Every field of OutputOptions, and text that is not ASCII."""

import pytest

from harness import GOLDENS

PROMPT = "The captain of the"


def test_token_ids_only_when_asked_for(daemon):
    result = daemon.generate(PROMPT, output={"token_ids": False})
    assert result.only.token_ids == [] and result.only.text
    assert daemon.generate(PROMPT).only.token_ids


def test_text_off(daemon):
    result = daemon.generate(PROMPT, output={"text": False})
    assert result.only.text == "" and len(result.only.token_ids) == 32


def test_no_logprobs_by_default(daemon):
    result = daemon.generate(PROMPT)
    assert result.only.logprobs == [] and result.prompt_logprobs == []


@pytest.mark.parametrize("alternatives", [0, 1, 20])
def test_logprobs(daemon, alternatives):
    picks = daemon.generate(PROMPT, sampling={"seed": 2}, output={"logprobs": alternatives}).only.logprobs
    assert len(picks) == 32
    for pick in picks:
        assert pick.logprob <= 0 and pick.rank >= 1
        assert len(pick.alternatives) == alternatives
        values = [a.logprob for a in pick.alternatives]
        assert values == sorted(values, reverse=True)
        if pick.rank <= alternatives:
            chosen = pick.alternatives[pick.rank - 1]
            assert (chosen.token_id, chosen.logprob) == (pick.token_id, pick.logprob)
    assert any(pick.rank > 1 for pick in picks)


@pytest.mark.parametrize("case", GOLDENS["cases"], ids=[c["text"][:16] for c in GOLDENS["cases"]])
def test_prompt_logprobs_equal_golden(daemon, case):
    result = daemon.generate(case["text"], stop={"max_new_tokens": 1}, output={"prompt_logprobs": True})
    assert [p.token_id for p in result.prompt_logprobs] == case["ids"][1:]
    assert [p.logprob for p in result.prompt_logprobs] == pytest.approx(case["prompt_logprobs"], abs=daemon.logprob_error)
    assert all(not p.alternatives for p in result.prompt_logprobs)


def test_prompt_logprobs_with_alternatives(daemon):
    result = daemon.generate(PROMPT, stop={"max_new_tokens": 2}, output={"prompt_logprobs": True, "logprobs": 3})
    assert len(result.prompt_logprobs) == result.started.prompt_tokens - 1
    assert all(len(p.alternatives) == 3 for p in result.prompt_logprobs)


def test_prompt_logprobs_come_in_pieces(daemon):
    result = daemon.generate([1] + [300, 301, 302] * 1000, stop={"max_new_tokens": 1},
                             output={"prompt_logprobs": True})
    assert [p.token_id for p in result.prompt_logprobs] == [300, 301, 302] * 1000
    assert result.prompt_logprob_messages > 1


def test_echo(daemon):
    plain = daemon.generate(PROMPT, n=2, sampling={"seed": 1})
    echoed = daemon.generate(PROMPT, n=2, sampling={"seed": 1}, output={"echo": True})
    prompt_ids = daemon.tokenize(PROMPT)
    for i in range(2):
        assert echoed.sequences[i].text == PROMPT + plain.sequences[i].text
        assert echoed.sequences[i].token_ids == prompt_ids + plain.sequences[i].token_ids


def test_echo_of_characters_of_several_tokens(daemon):
    wanted = "日本 🙂 é"
    ids = daemon.tokenize(wanted, add_special_tokens=False)
    assert len(ids) > len(wanted) and daemon.detokenize(ids) == wanted
    result = daemon.generate(ids, stop={"max_new_tokens": 1}, output={"echo": True})
    assert result.only.text.startswith(wanted)


BYTE = {value: 3 + value for value in range(256)}  # <0x00> is the fourth piece


def test_invalid_bytes_become_replacement_characters(daemon):
    """One for each byte, as SentencePiece has it."""
    bias = {"temperature": 0, "logit_bias": {BYTE[0xF0]: 100.0}}
    result = daemon.generate(PROMPT, sampling=bias, stop={"max_new_tokens": 3})
    assert result.only.token_ids == [BYTE[0xF0]] * 3
    assert result.only.text == "\ufffd" * 3
    assert daemon.detokenize([BYTE[0xE6], BYTE[0x97]]) == "\ufffd" * 2


def test_bytes_of_a_character_are_held_back(daemon):
    """é is two byte tokens: the first one alone gives no text."""
    first, second = BYTE[0xC3], BYTE[0xA9]
    result = daemon.generate(PROMPT, sampling={"temperature": 0, "logit_bias": {first: 100.0}},
                             stop={"max_new_tokens": 1})
    assert result.only.token_ids == [first]
    assert result.only.text == "\ufffd", "the end of a sequence lets go of what was held back"
    continued = daemon.generate(daemon.tokenize(PROMPT) + [first],
                                sampling={"temperature": 0, "logit_bias": {second: 100.0}},
                                stop={"max_new_tokens": 1}, output={"echo": True})
    assert continued.only.text == PROMPT + "é"
