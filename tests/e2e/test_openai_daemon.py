"""What the HTTP port tells of the daemon and its tokens, the checkpoint's own sampling, and when there is no port."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

import certificates
from harness import BIN, MODEL, PATIENCE, Daemon, clean_environment, wait_until
from test_openai import PROMPT, client_of, complete, error_of, post
from test_openai_letter import ask


@pytest.fixture(scope="module")
def door():
    daemon = Daemon("--http_listen=127.0.0.1:0", "--http_metrics")
    try:
        yield daemon
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def get(daemon, path, **headers):
    """(status, content type, body)."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{daemon.http}{path}", headers=headers),
                                    timeout=PATIENCE) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def test_health_and_version(door):
    assert get(door, "/health")[0] == 200
    version = json.loads(get(door, "/version")[2])["version"]
    assert subprocess.run([BIN / "sluiced", "--version"], capture_output=True, text=True, check=True).stdout.strip().endswith(version)
    model = json.loads(get(door, "/v1/models")[2])["data"][0]
    assert model["context_length"] is None, "states of one size have no bound"


def test_metrics_by_flag_alone(door, start_daemon):
    status, kind, text = get(door, "/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4") and "\nsluice_streams " in text
    assert get(start_daemon("--http_listen=127.0.0.1:0"), "/metrics")[0] == 404


@pytest.mark.parametrize("text", ["Once upon a time", "", "\u2603 é\n"])
def test_tokens_there_and_back(door, text):
    told = ask(door, {"prompt": text, "return_token_strs": True}, "/tokenize")
    assert told["tokens"] == door.tokenize(text) and told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] is None
    bare = ask(door, {"prompt": text, "add_special_tokens": False, "model": "classics-12m"}, "/tokenize")
    assert bare["tokens"] == told["tokens"][1:] and bare["token_strs"] is None
    assert ask(door, {"tokens": told["tokens"]}, "/detokenize") == {"prompt": text}
    chat = ask(door, {"messages": [{"role": "user", "content": "Hi"}]}, "/tokenize")
    assert chat["tokens"] == door.tokenize("user: Hi\nassistant:")


def test_tokens_that_are_none(door):
    for path, body, param in (("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 1}, "prompt"),
                              ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": [1, 5000]}, "tokens[1]"),
                              ("/detokenize", {"tokens": [1, 2**40]}, "tokens[1]"), ("/detokenize", {"tokens": "1"}, "tokens")):
        assert error_of(post(door, path, json.dumps(body).encode()), 400)["param"] == param
    error_of(post(door, "/tokenize", b'{"prompt":"a","model":"other"}'), 404)


def test_the_tokenizer(door):
    told = json.loads(get(door, "/tokenizer_info")[2])
    assert (told["bos_token"], told["bos_token_id"], told["eos_token"], told["eos_token_id"]) == ("<s>", 1, "</s>", 2)
    assert told["vocab_size"] == 4096 and told["model_max_length"] is None and told["pad_token"] is None


def test_strangers_get_health_alone(start_daemon, tmp_path):
    file = tmp_path / "tenants"
    file.write_text(f"tenant a\ntoken a sha256:{hashlib.sha256(b'secret').hexdigest()}\n")
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--http_metrics", f"--auth_tokens_file={file}",
                          "--auth_failures_per_minute=0")
    for path, status in (("/health", 200), ("/version", 200), ("/metrics", 401), ("/tokenizer_info", 401)):
        assert get(daemon, path)[0] == status
        assert get(daemon, path, Authorization="Bearer secret")[0] == 200
    error_of(post(daemon, "/tokenize", b'{"prompt":"a"}'), 401)


def test_a_daemon_that_drains_is_not_healthy(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--drain_timeout=10m")
    stream = complete(client_of(daemon), stream=True, max_tokens=1_000_000, extra_body={"ignore_eos": True})
    next(iter(stream))
    daemon.send(signal.SIGTERM)
    wait_until(lambda: get(daemon, "/health")[0] == 503, "it says that it drains")
    stream.close()
    assert daemon.wait() == 0


def test_the_checkpoints_own_sampling(start_daemon, tmp_path):
    """Over HTTP, where the request is silent. gRPC's defaults stay."""
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    (model / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "top_k": 5, "repetition_penalty": 1.3}))
    named = {"temperature": 0.7, "top_k": 5, "repetition_penalty": 1.3}
    daemon = start_daemon("--http_listen=127.0.0.1:0", model=model)
    plain = {"prompt": PROMPT, "max_tokens": 12, "seed": 7}
    silent = ask(daemon, plain)["choices"][0]["text"]
    assert silent == ask(daemon, {**plain, **named})["choices"][0]["text"]
    openai = {**plain, "temperature": 1, "top_k": 0, "repetition_penalty": 1}
    assert ask(daemon, {**openai, "top_k": -1})["choices"][0]["text"] == ask(daemon, openai)["choices"][0]["text"] != silent
    grpc = daemon.generate(PROMPT, sampling={"seed": 7, "temperature": 1}, stop={"max_new_tokens": 12}).only.text
    assert grpc == ask(daemon, openai)["choices"][0]["text"]
    off = start_daemon("--http_listen=127.0.0.1:0", "--generation_config=false", model=model)
    assert ask(off, plain)["choices"][0]["text"] == grpc
    (model / "generation_config.json").write_text('{"temperature": -1}')
    with pytest.raises(AssertionError, match="generation_config.json: temperature is -1"):
        start_daemon("--http_listen=127.0.0.1:0", model=model)


def test_no_port_where_nobody_could_show_who_he_is(tmp_path):
    """Client certificates and no tokens: the port that is there by default is off. One that is asked for ends the start."""
    authority = certificates.Authority(tmp_path / "pki")
    cert, key = authority.issue("server", "/CN=localhost")
    flags = [str(BIN / "sluiced"), f"--model={MODEL}", "--listen=127.0.0.1:0", "--admin_listen=", f"--tls_cert={cert}",
             f"--tls_key={key}", f"--tls_client_ca={authority.cert}"]
    process = subprocess.Popen(flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment())
    line = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0 and re.fullmatch(r"serving \S+ on \S+ at \S+, admin at none\n", line), line
    assert "--tls_client_ca" in log
    end = subprocess.run([*flags, "--http_listen=127.0.0.1:0"], capture_output=True, text=True, timeout=PATIENCE,
                         env=clean_environment())
    assert end.returncode == 2 and "needs --auth_tokens_file" in end.stderr
