"""How sluiced starts, or says in one line why it does not."""

import json
import pathlib
import re
import shutil
import struct
import subprocess

import pytest

from harness import BIN, MODEL, PATIENCE, ROOT, clean_environment


def run(*arguments, environment=None):
    return subprocess.run([str(BIN / "sluiced"), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, env={**clean_environment(), **(environment or {})})


def refused(*arguments, code=2, environment=None):
    """Runs a daemon that must not start; the one line it says."""
    end = run("--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=", *arguments, environment=environment)
    assert end.returncode == code, (end.returncode, end.stderr)
    assert end.stdout == ""
    lines = [line for line in end.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def model(tmp_path):
    """A copy of the bundled model to break."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in MODEL.iterdir():
        if file.is_file():
            shutil.copy(file, copy / file.name)
    return copy


def edit_config(model, **changes):
    path = model / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


def test_help():
    end = run("--help")
    assert end.returncode == 0 and end.stderr == ""
    for flag in ("--model", "--listen", "--admin_listen", "--device", "--max_batch_tokens", "--drain_timeout",
                 "--log_format", "--flagfile"):
        assert flag in end.stdout
    assert run("--version").stdout.startswith("sluiced ")


def test_the_page_has_the_same_table_of_flags():
    table = run("--help=markdown").stdout.strip()
    assert table in (ROOT / "server/README.md").read_text()


def test_the_page_has_every_exit_code():
    codes = re.findall(r"^  (\d+) +\S", run("--help").stdout, re.M)
    assert len(codes) >= 5
    assert re.findall(r"^\| (\d+) \|", (ROOT / "server/README.md").read_text(), re.M) == codes


@pytest.mark.parametrize("arguments,says", [
    (("--no_such_flag=1",), "no_such_flag"),
    (("--listen",), "listen"),
    (("--max_streams=0",), "max_streams"),
    (("--max_streams=many",), "max_streams"),
    (("--max_streams=99999999999999999999",), "max_streams"),
    (("--drain_timeout=-1s",), "drain_timeout"),
    (("--log_format=xml",), "log_format"),
    (("--device=abacus",), "device"),
    (("extra",), "extra"),
    (("--flagfile=/no/such/file",), "flagfile"),
])
def test_bad_flags(arguments, says):
    assert says in refused(f"--model={MODEL}", *arguments)


def test_model_is_required():
    assert "--model" in refused()


def test_bad_addresses():
    for value in ("nonsense", "127.0.0.1", "127.0.0.1:99999", "256.1.1.1:0"):
        end = run(f"--model={MODEL}", f"--listen={value}", "--admin_listen=127.0.0.1:0", "--http_listen=")
        assert end.returncode == 2, end
        assert value in end.stderr and len(end.stderr.strip().splitlines()) == 1


def test_flags_from_environment_and_file(start_daemon, tmp_path):
    flagfile = tmp_path / "flags"
    flagfile.write_text("# a comment\n--model_name=from-file\n--log_format=json\n")
    daemon = start_daemon(f"--flagfile={flagfile}", environment={"SLUICE_MAX_SEQUENCES": "3"})
    assert daemon.model_name == "from-file"
    from harness import model_pb2
    assert daemon.inference.GetModel(model_pb2.GetModelRequest()).limits.max_sequences == 3
    assert "SLUICE_MAX_STREAMS" in refused(f"--model={MODEL}", environment={"SLUICE_MAX_STREAMS": "none"})


def test_no_such_model(tmp_path):
    assert "no-such-model" in refused("--model=no-such-model")
    assert "config.json" in refused(f"--model={tmp_path}")
    assert refused(f"--model={MODEL / 'config.json'}")


def test_broken_weights(model):
    path = model / "model.safetensors"
    whole = path.read_bytes()
    header_size = struct.unpack("<Q", whole[:8])[0]
    breaks = {
        "empty": b"",
        "short header": whole[:5],
        "cut in the header": whole[:100],
        "cut in the data": whole[:-1000],
        "trailing bytes": whole + b"\0",
        "header length too large": struct.pack("<Q", 2**63) + whole[8:],
        "header of zeros": whole[:8] + b"\0" * header_size + whole[8 + header_size:],
        "not JSON": whole[:8] + b"[" * header_size + whole[8 + header_size:],
    }
    for name, data in breaks.items():
        path.write_bytes(data)
        assert "model.safetensors" in refused(f"--model={model}"), name
    path.unlink()
    assert "safetensors" in refused(f"--model={model}")


def test_weights_that_are_not_finite(model):
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2:] = b"\xc0\x7f"  # a bf16 NaN
    path.write_bytes(data)
    line = refused(f"--model={model}")
    assert "model.safetensors" in line or "weight" in line


@pytest.mark.parametrize("change", [
    {"model_type": "gpt2"}, {"num_heads": 0}, {"num_heads": -3}, {"num_heads": 2**31}, {"num_heads": 5},
    {"hidden_size": 10**9}, {"num_hidden_layers": 10**9}, {"vocab_size": 0}, {"vocab_size": "many"},
    {"hidden_size": None}, {"use_gv": True}, {"attn": {"layers": [1]}}, {"expand_k": 1e30},
    {"hidden_act": "tanh"}, {"num_hidden_layers": 7}, {"norm_eps": "small"},
], ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items())[:40])
def test_configs_that_are_refused(model, change):
    edit_config(model, **change)
    line = refused(f"--model={model}")
    field = next(iter(change))
    # More layers than there are tensors for is found in the weights.
    assert field in line or "model.layers." in line or "model.safetensors" in line, line


def test_config_that_is_not_json(model):
    for text in ("", "{", "[]", "null", "{\"hidden_size\": }", "[" * 100_000):
        (model / "config.json").write_text(text)
        assert "config.json" in refused(f"--model={model}")


def test_broken_tokenizer(model):
    for file in ("tokenizer.json", "tokenizer.model"):
        if not (model / file).exists():
            continue
        whole = (model / file).read_bytes()
        others = {p.name: p.read_bytes() for p in model.glob("tokenizer*") if p.name != file}
        for name in others:
            (model / name).unlink()
        for data in (b"", b"{}", whole[: len(whole) // 2], b"\xff" * 1000):
            (model / file).write_bytes(data)
            assert file in refused(f"--model={model}"), file
        (model / file).write_bytes(whole)
        for name, data in others.items():
            (model / name).write_bytes(data)
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused(f"--model={model}")


def test_port_in_use(daemon):
    for flags in ((f"--listen={daemon.address}", "--admin_listen=127.0.0.1:0"),
                  ("--listen=127.0.0.1:0", f"--admin_listen={daemon.admin}")):
        end = run(f"--model={MODEL}", *flags)
        assert end.returncode not in (0, 70) and end.returncode > 0, end
        lines = end.stderr.strip().splitlines()
        port = (daemon.address if daemon.address in flags[0] else daemon.admin).rsplit(":", 1)[1]
        assert port in lines[-1], lines
        assert end.stdout == ""


def test_no_admin_port(tmp_path):
    """--admin_listen= : none; the line says so, and the daemon serves."""
    import signal
    with open(tmp_path / "out", "w+") as out:
        process = subprocess.Popen([str(BIN / "sluiced"), f"--model={MODEL}", "--listen=127.0.0.1:0",
                                    "--admin_listen=", "--http_listen="], stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=subprocess.DEVNULL, env=clean_environment())
        from harness import wait_until
        try:
            wait_until(lambda: pathlib.Path(out.name).read_text().startswith("serving "), "it serves")
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()


def test_starts_in_a_place_without_write_access(start_daemon):
    """It writes no file anywhere."""
    daemon = start_daemon(environment={"HOME": "/nonexistent", "TMPDIR": "/nonexistent"})
    assert daemon.generate("The").only.text
    opened = [path.resolve() for path in pathlib.Path(f"/proc/{daemon.process.pid}/fd").iterdir()]
    kinds = {str(path) for path in opened if path.is_file()}
    assert kinds <= {str(daemon.stdout_path.resolve()), str(daemon.stderr_path.resolve()),
                     *(str(p.resolve()) for p in MODEL.iterdir())}, kinds
