"""Every family through the daemon, by token ids: greedy continuations are the oracle's, in one call, in a session of several
calls, and after a fork, an export and an import."""

import json
import shutil
import urllib.request

import pytest

from harness import ROOT, Daemon, model_pb2
from sessions import Sessions, key_file

MODELS = ["retnet/gqa_relu", "linear_attn/hedgehog", "hgrn2/conv", "lightnet/conv_tied", "transnormer/odd", "mamba2/groups",
          "mamba2/base", "delta_net/base", "gated_deltanet/gva", "kda/bounded", "simple_gla/gqa_bias",
          "gated_deltanet/hybrid", "gla/hybrid_window", "transformer/window", "transformer/base", "llama/rope_yarn",
          "mistral/window", "qwen3_5/wrapped", "granitemoehybrid/dense_h", "lfm2/odd", "olmo_hybrid/base", "nemotron_h/dense",
          "falcon_h1/norm", "bamba/base"]


@pytest.mark.parametrize("model", MODELS)
def test_the_oracles_continuation(model, tmp_path):
    directory = ROOT / "tests/goldens" / model
    cases = json.loads((directory / "golden.json").read_text())["cases"]
    golden = max((c for c in cases if "greedy" in c), key=lambda c: len(c["ids"]))
    ids, greedy = golden["ids"], golden["greedy"]
    # Beyond the first close call another token would be as good.
    sure = next((i for i, margin in enumerate(golden["margin"]) if margin <= 1e-3), len(greedy))
    assert sure >= 8
    daemon = Daemon("--tokenizer=none", f"--state_key_file={key_file(tmp_path)}", model=directory)
    try:
        assert daemon.inference.GetModel(model_pb2.GetModelRequest()).architecture == model.split("/")[0]
        stop = {"max_new_tokens": sure, "ignore_eos": True}
        assert daemon.generate(ids, stop=stop).only.token_ids == greedy[:sure]
        # The prompt in three calls, the continuation in two: positions go on.
        sessions = Sessions(daemon)
        id = sessions.create().id
        last = min(40, len(ids) - 1)
        for part in (ids[:3], ids[3:last]):
            sessions.say(id, part, tokens=0)
        first, _ = sessions.say(id, ids[last:], tokens=4)
        assert first.token_ids == greedy[:4]
        assert sessions.get(id).position == len(ids) + 4
        copies = [sessions.fork(id).id, sessions.import_(sessions.export(id)).id, id]
        for copy in copies:
            only, _ = sessions.say(copy, greedy[4:5], tokens=sure - 5)
            assert only.token_ids == greedy[5:sure]
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def test_rows_that_pad_the_vocabulary_are_never_sampled():
    """43 tokens in 48 rows: not even a bias gets one of the others, and log-probabilities stay the model's."""
    daemon = Daemon("--tokenizer=none", model=ROOT / "tests/goldens/mamba2/state_spaces")
    try:
        plain = daemon.generate([5, 6, 7], sampling={"temperature": 0}, stop={"max_new_tokens": 8, "ignore_eos": True})
        pushed = {"logit_bias": {47: 100.0}}
        for temperature in (0, 1):
            got = daemon.generate([5, 6, 7], sampling={"temperature": temperature, "seed": 3, **pushed},
                                  stop={"max_new_tokens": 8, "ignore_eos": True}, output={"logprobs": 20})
            assert max(got.only.token_ids) < 43
            if temperature == 0:
                assert got.only.token_ids == plain.only.token_ids
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def test_both_doors_end_at_any_of_generation_configs_tokens(tmp_path):
    """config.json's own end token is another: transformers' generation_config.json replaces it with a list."""
    source = ROOT / "tests/goldens/bamba/base"
    directory = shutil.copytree(source, tmp_path / "model")
    golden = next(c for c in json.loads((source / "golden.json").read_text())["cases"] if "greedy" in c)
    ids, greedy = golden["ids"], golden["greedy"]
    assert json.loads((source / "config.json").read_text())["eos_token_id"] == greedy[0], "what would end it at once"
    for end in greedy[3], greedy[7]:
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [35, end]}))
        want = greedy[:greedy.index(end)]
        daemon = Daemon("--tokenizer=none", "--http_listen=127.0.0.1:0", "--model_name=m", model=directory)
        try:
            assert list(daemon.inference.GetModel(model_pb2.GetModelRequest()).eos_token_ids) == [35, end]
            only = daemon.generate(ids, sampling={"temperature": 0}, stop={"max_new_tokens": 20}).only
            assert only.reason == "EOS" and only.token_ids[:len(want)] == want and len(only.token_ids) <= len(want) + 1
            body = {"model": "m", "prompt": ids, "max_tokens": 20, "temperature": 0}
            sent = urllib.request.Request(f"http://{daemon.http}/v1/completions", data=json.dumps(body).encode(),
                                          headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(sent, timeout=60) as answer:
                choice = json.loads(answer.read())["choices"][0]
            assert choice["finish_reason"] == "stop" and choice["token_ids"][:len(want)] == want
            assert len(choice["token_ids"]) <= len(want) + 1
            assert daemon.stop() == 0, daemon.stderr()
        finally:
            daemon.kill()
