"""Every family through the daemon, by token ids: greedy continuations are the oracle's, in one call, in a session of several
calls, and after a fork, an export and an import."""

import json

import pytest

from harness import ROOT, Daemon, model_pb2
from sessions import Sessions, key_file

MODELS = ["retnet/gqa_relu", "linear_attn/hedgehog", "hgrn2/conv", "lightnet/conv_tied", "transnormer/odd", "mamba2/groups",
          "mamba2/state_spaces", "delta_net/base", "gated_deltanet/gva", "kda/bounded", "simple_gla/gqa_bias",
          "gated_deltanet/hybrid", "gla/hybrid_window", "transformer/window", "transformer/base", "llama/rope_yarn",
          "mistral/window"]


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
        for part in (ids[:3], ids[3:40]):
            sessions.say(id, part, tokens=0)
        first, _ = sessions.say(id, ids[40:], tokens=4)
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
