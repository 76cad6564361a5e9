"""sluice inspect against the daemon that would serve the model: the same verdict, the same words, the same numbers."""

import json
import re
import shutil
import struct
import subprocess

import pytest

from harness import BIN, MODEL, PATIENCE, ROOT, clean_environment, model_pb2

VARIANTS = sorted(path.name for path in (ROOT / "tests/goldens/variants").iterdir())
# Ids below the variants' vocabularies.
TOKENIZER = {"model": {"type": "BPE", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5},
                       "merges": [["a", "b"]]},
             "added_tokens": [{"id": 1, "content": "<s>", "special": True}], "normalizer": None, "pre_tokenizer": None,
             "post_processor": None, "decoder": {"type": "Fuse"}}


def run(program, *arguments):
    return subprocess.run([str(BIN / program), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=PATIENCE, env=clean_environment())


def inspect(*arguments):
    """(exit code, JSON)."""
    end = run("sluice", "inspect", "--json", *arguments)
    assert end.stderr == ""
    return end.returncode, json.loads(end.stdout)


@pytest.fixture
def model(tmp_path):
    """A small synthetic model to break: a variant's weights and a tokenizer of its own."""
    copy = tmp_path / "model"
    shutil.copytree(ROOT / "tests/goldens/variants/base", copy)
    (copy / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return copy


def edit_config(model, **changes):
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_daemons_numbers(daemon):
    code, seen = inspect("--check-values", MODEL)
    served = daemon.inference.GetModel(model_pb2.GetModelRequest())
    assert code == 0 and seen["served"] and seen["refusals"] == []
    assert seen["fingerprint"] == served.fingerprint
    assert seen["files"]["parameters"] == served.parameters
    assert seen["state_bytes"] == served.state_bytes
    config = seen["config"]
    assert (config["layers"], config["hidden_size"], config["vocab_size"]) == \
        (served.layers, served.hidden_size, served.vocab_size)
    assert config["bos_token_id"] == served.bos_token_id and config["eos_token_ids"] == list(served.eos_token_ids)
    assert seen["devices"][0]["device"] == "cpu" and seen["devices"][0]["served"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_served(tmp_path, variant):
    copy = tmp_path / variant
    shutil.copytree(ROOT / "tests/goldens/variants" / variant, copy)
    (copy / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    code, seen = inspect("--check-values", copy)
    assert code == 0 and seen["served"], seen["refusals"]
    shape = seen["config"]
    cuda = seen["devices"][1]
    assert cuda["served"] == (shape["dk"] % 8 == 0 and shape["dv"] % 8 == 0), cuda["refusal"]


def test_heads_of_models_that_share_keys():
    """mamba2 has a state for each head and keys for each group; a field that changes nothing is told of."""
    end = run("sluice", "inspect", "--tokenizer=none", ROOT / "tests/goldens/mamba2/groups")
    assert end.returncode == 0, end.stdout + end.stderr
    assert re.search(r"^heads +4 of dk 16 and dv 16, 2 groups of keys$", end.stdout, re.MULTILINE), end.stdout
    end = run("sluice", "inspect", "--tokenizer=none", ROOT / "tests/goldens/mamba2/state_spaces")
    assert "vocabulary 48, of which 43 are sampled" in end.stdout
    end = run("sluice", "inspect", "--tokenizer=none", ROOT / "tests/goldens/retnet/odd")
    assert re.search(r"^note +use_short_conv is true and changes nothing", end.stdout, re.MULTILINE), end.stdout


def test_a_synthetic_model_starts(model, start_daemon):
    code, seen = inspect("--check-values", model)
    assert code == 0
    daemon = start_daemon(model=model)
    assert daemon.inference.GetModel(model_pb2.GetModelRequest()).fingerprint == seen["fingerprint"]


def cut(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_finite(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2] + b"\xc0\x7f")


def other_dtype(model):
    """One tensor in a dtype that is not read."""
    path = model / "model.safetensors"
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = re.sub(rb'"BF16"', b'"I16"', data[8:8 + size], count=1)
    header += b" " * (size - len(header))
    path.write_bytes(data[:8] + header + data[8 + size:])


BREAKS = {
    "another architecture": lambda m: edit_config(m, model_type="gpt2"),
    "softmax layers without heads": lambda m: edit_config(m, attn={"layers": [1]}),
    "use_gv": lambda m: edit_config(m, use_gv=True),
    "quantized": lambda m: edit_config(m, quantization_config={"bits": 4}),
    "more layers than tensors": lambda m: edit_config(m, num_hidden_layers=9),
    "fewer layers than tensors": lambda m: edit_config(m, num_hidden_layers=1),
    "another width": lambda m: edit_config(m, hidden_size=128),
    "heads that do not divide": lambda m: edit_config(m, num_heads=7),
    "no config": lambda m: (m / "config.json").unlink(),
    "broken config": lambda m: (m / "config.json").write_text("{"),
    "no weights": lambda m: (m / "model.safetensors").unlink(),
    "cut weights": cut,
    "other dtype": other_dtype,
    "a NaN": not_finite,
    "no tokenizer": lambda m: (m / "tokenizer.json").unlink(),
    "broken tokenizer": lambda m: (m / "tokenizer.json").write_text("{}"),
    "tokenizer of another model": lambda m: shutil.copy(MODEL / "tokenizer.json", m / "tokenizer.json"),
    "an unknown tokenizer": lambda m: (m / "tokenizer.json").write_text(
        json.dumps({**TOKENIZER, "model": {"type": "WordPiece", "vocab": {}}})),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_the_daemon_refuses(model, name):
    BREAKS[name](model)
    code, seen = inspect("--check-values", model)
    assert code == 2 and not seen["served"]
    end = run("sluiced", f"--model={model}", "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=")
    assert end.returncode == 2
    # The daemon stops at the first reason; inspect goes on to the other files.
    assert seen["refusals"][0] in end.stderr, (seen["refusals"], end.stderr)


def test_no_directory(tmp_path):
    for directory in (tmp_path, tmp_path / "none", MODEL / "config.json"):
        end = run("sluice", "inspect", directory)
        assert end.returncode == 2 and "served          no\n" in end.stdout and end.stderr == ""
