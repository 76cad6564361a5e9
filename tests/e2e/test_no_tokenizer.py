"""A model without a tokenizer: token ids in and out, text refused by name; and another directory's tokenizer."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request

import grpc
import pytest

from harness import (BIN, MODEL, PATIENCE, Daemon, check_message, clean_environment, rpc_error, score_pb2,
                     tokens_pb2, violated_fields)
from sessions import Sessions
from test_startup import refused

Code = grpc.StatusCode
IDS = [1, 300, 301, 302]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The bundled model's files without the tokenizer's."""
    directory = tmp_path_factory.mktemp("bare")
    for file in MODEL.iterdir():
        if not file.name.startswith("tokenizer"):
            shutil.copy(file, directory / file.name)
    return directory


@pytest.fixture(scope="module")
def ids_only(bare):
    daemon = Daemon("--tokenizer=none", "--http_listen=127.0.0.1:0", "--model_name=m", model=bare)
    try:
        yield daemon
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def post(daemon, path, **body):
    sent = urllib.request.Request(f"http://{daemon.http}/v1/{path}", data=json.dumps(body).encode(),
                                  headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_ids_are_those_of_a_daemon_with_text(ids_only, daemon):
    want = daemon.generate(IDS, output={"logprobs": 2})
    got = ids_only.generate(IDS, output={"token_ids": False, "logprobs": 2, "echo": True})
    assert got.only.text == "" and got.only.token_ids == IDS + want.only.token_ids
    assert [p.logprob for p in got.only.logprobs][-len(want.only.logprobs):] == [p.logprob for p in want.only.logprobs]
    assert ids_only.score(tokens={"ids": IDS}).logprobs == daemon.score(tokens={"ids": IDS}).logprobs


def test_text_is_refused_by_name(ids_only):
    for fields, names in (({"prompt": "The sea"}, ["text"]),
                          ({"prompt": IDS, "stop": {"strings": ["x"]}}, ["stop.strings"]),
                          ({"prompt": IDS, "output": {"text": True}}, ["output.text"])):
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            ids_only.generate(**fields)
        assert violated_fields(caught) == names
        assert "tokenizer" in caught.error.details()
    for call, message in ((ids_only.inference.Score, score_pb2.ScoreRequest(text="The sea")),
                          (ids_only.inference.Tokenize, tokens_pb2.TokenizeRequest(text="The sea"))):
        with rpc_error(Code.INVALID_ARGUMENT) as caught:
            answer = call(message, timeout=PATIENCE)
            list(answer) if call == ids_only.inference.Score else None
        assert violated_fields(caught) == ["text"]
    with rpc_error(Code.FAILED_PRECONDITION) as caught:
        ids_only.detokenize(IDS)
    assert caught.details["ErrorInfo"].reason == "NO_TOKENIZER"


def test_over_http(ids_only, daemon):
    want = daemon.generate(IDS, stop={"max_new_tokens": 8, "ignore_eos": True}).only.token_ids
    status, answer = post(ids_only, "completions", prompt=IDS, max_tokens=8, temperature=0, ignore_eos=True, logprobs=1)
    assert status == 200, answer
    (choice,) = answer["choices"]
    assert choice["text"] == "" and choice["token_ids"] == want
    assert choice["logprobs"]["tokens"] == [f"token_id:{id}" for id in want]
    for path, body, param in (("completions", {"prompt": "The sea"}, "prompt"),
                              ("completions", {"prompt": IDS, "stop": "x"}, "stop"),
                              ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "messages")):
        status, answer = post(ids_only, path, **body)
        assert status == 400 and answer["error"]["param"] == param, answer
        assert "tokenizer" in answer["error"]["message"]
        check_message(answer["error"]["message"])


def test_sessions_go_on(ids_only):
    sessions = Sessions(ids_only)
    sessions.create("a")
    first, _ = sessions.say("a", IDS, tokens=5)
    second, told = sessions.say("a", [], tokens=5)
    assert told.position == len(IDS) + 10
    whole = ids_only.generate(IDS, stop={"max_new_tokens": 10, "ignore_eos": True}).only.token_ids
    assert first.token_ids + second.token_ids == whole


def test_another_directory(bare, daemon):
    other = Daemon(f"--tokenizer={MODEL}", model=bare)
    try:
        assert other.generate("The sea").only.bits() == daemon.generate("The sea").only.bits()
        assert other.stop() == 0
    finally:
        other.kill()


def test_a_vocabulary_that_does_not_fit(bare, tmp_path, start_daemon):
    assert "--tokenizer=none" in refused(f"--model={bare}")
    assert "--tokenizer" in refused(f"--model={bare}", f"--tokenizer={tmp_path}")
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["beyond"] = 4096
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    larger = start_daemon(f"--tokenizer={tmp_path}", model=bare)
    (line,) = [line for line in larger.stderr().splitlines() if "left out" in line]
    assert "from 4096 on" in line and "vocab_size" in line
    assert larger.generate("The", stop={"max_new_tokens": 2}).sequences


def test_a_score_of_one_token(daemon):
    score = daemon.score(tokens={"ids": [300]}, top_logprobs=5)
    assert not score.logprobs and score.summary.tokens == 1 and score.summary.scored_tokens == 0
    following = daemon.generate([300], stop={"max_new_tokens": 1, "ignore_eos": True}, output={"logprobs": 5})
    assert [(a.token_id, a.logprob) for a in score.summary.next] == \
        [(a.token_id, a.logprob) for a in following.only.logprobs[0].alternatives]


def test_more_states_than_a_step_has_room_for(start_daemon):
    capped = start_daemon("--max_batch_tokens=100", "--device_state_bytes=1000000000")
    assert capped.slots()[1] == 36  # a chunk of a prompt is 64 tokens
    assert "slots_capped" in capped.stderr()
    assert capped.generate("The", n=36, stop={"max_new_tokens": 2}).sequences


def test_inspect(bare):
    def inspect(*flags):
        end = subprocess.run([str(BIN / "sluice"), "inspect", "--json", *flags, str(bare)], capture_output=True, text=True,
                             env=clean_environment(), timeout=PATIENCE)
        return end.returncode, json.loads(end.stdout)

    code, found = inspect()
    assert code == 2 and any("--tokenizer=none" in refusal for refusal in found["refusals"])
    code, found = inspect("--tokenizer=none")
    assert code == 0 and "ids only" in found["tokenizer"]["kind"]
    code, found = inspect(f"--tokenizer={MODEL}")
    assert code == 0 and found["tokenizer"]["pieces"] == 4096
