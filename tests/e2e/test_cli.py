"""The sluice command line, as a person and as a script use it."""

import json
import os
import pty
import signal
import subprocess

import pytest

from harness import BIN, GOLDENS, PATIENCE, ROOT, clean_environment, run_sluice

CASE = GOLDENS["cases"][1]


def good(daemon, *arguments, **keywords):
    end = run_sluice(daemon, *arguments, **keywords)
    assert end.returncode == 0, end.stderr
    return end.stdout


def bad(daemon, *arguments, **keywords):
    """Fails with one helpful line; (exit code, line)."""
    end = run_sluice(daemon, *arguments, **keywords)
    assert end.returncode != 0
    lines = end.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return end.returncode, lines[0]


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def test_generate_from_argument(daemon):
    out = good(daemon, "generate", CASE["text"], "--temperature=0", "--max_new_tokens=48", "--ignore_eos")
    assert CASE["greedy_text"].strip() in out


def test_generate_from_stdin(daemon):
    out = good(daemon, "generate", "--temperature=0", "--max_new_tokens=48", "--ignore_eos", stdin=CASE["text"])
    assert CASE["greedy_text"].strip() in out


def test_generate_json(daemon):
    lines = events(good(daemon, "generate", "--json", CASE["text"], "--temperature=0", "--max_new_tokens=8"))
    assert [int(line.get("sequence_number", 0)) for line in lines] == list(range(len(lines)))
    assert "started" in lines[0] and int(lines[0]["started"]["prompt_tokens"]) == len(CASE["ids"])
    assert lines[-1]["finished"]["reason"] == "FINISH_REASON_MAX_TOKENS"
    text = "".join(line.get("delta", {}).get("text", "") for line in lines)
    assert CASE["greedy_text"].strip().startswith(text.strip()) and text


def test_seed_reproduces(daemon):
    arguments = ("generate", "The", "--seed=9", "--max_new_tokens=20")
    assert good(daemon, *arguments) == good(daemon, *arguments) != good(daemon, "generate", "The", "--seed=10",
                                                                        "--max_new_tokens=20")


def test_stop_string(daemon):
    out = good(daemon, "generate", CASE["text"], "--temperature=0", "--stop=blowing")
    assert "blowing" not in out and "wind was" in out


def test_score(daemon):
    out = good(daemon, "score", CASE["text"])
    assert out.strip()
    lines = events(good(daemon, "score", "--json", CASE["text"]))
    total = lines[-1]["summary"]["total_logprob"]
    assert total == pytest.approx(sum(CASE["prompt_logprobs"]), abs=0.02)


def test_tokenize_and_detokenize(daemon):
    out = good(daemon, "tokenize", CASE["text"])
    assert all(str(i) in out for i in CASE["ids"])
    answer = events(good(daemon, "tokenize", "--json", CASE["text"]))[0]
    assert answer["token_ids"] == CASE["ids"]
    assert good(daemon, "detokenize", *[str(i) for i in CASE["ids"]]).rstrip("\n") == CASE["text"]


def test_tokenize_takes_any_size(daemon, tmp_path):
    """In parts that fit into messages; the ids are those of the whole text, also where it repeats itself."""
    licence = (ROOT / "LICENSE").read_text()
    texts = [licence * 60, "aé漢 " * 90000, "".join(chr(97 + i * i % 7) for i in range(300000))]
    for text in texts:
        assert len(text.encode()) > 256 << 10
        ids = [int(word) for word in good(daemon, "tokenize", stdin=text).split()]
        assert ids == daemon.tokenize(text)
    out = good(daemon, "tokenize", "--pieces", stdin=texts[0]).splitlines()
    assert out[0] == "1\t<s>" and len(out) == len(daemon.tokenize(texts[0]))
    parts = events(good(daemon, "tokenize", "--json", stdin=texts[0]))
    assert len(parts) > 2 and sum((part["token_ids"] for part in parts), []) == daemon.tokenize(texts[0])
    (tmp_path / "broken").write_bytes(licence.encode() * 60 + b"\x80")
    code, line = bad(daemon, "tokenize", f"--file={tmp_path / 'broken'}")
    assert code == 2 and f"not UTF-8 at byte {len(licence.encode()) * 60}" in line


def test_model(daemon):
    out = good(daemon, "model")
    assert "classics-12m" in out and "gla" in out
    answer = events(good(daemon, "model", "--json"))[0]
    assert answer["name"] == "classics-12m" and answer["vocab_size"] == 4096


def test_health(daemon):
    assert "SERVING" in good(daemon, "health").upper()


def test_bench(daemon):
    end = run_sluice(daemon, "bench", "--concurrency=4", "--requests=12", "--max-new-tokens=16")
    assert end.returncode == 0, end.stderr
    for word in ("tok", "p50", "p99"):
        assert word in end.stdout.lower()
    daemon.wait_idle()


@pytest.mark.parametrize("arguments,says", [
    (("frobnicate",), "frobnicate"),
    (("generate", "a", "--no_such_flag"), "no_such_flag"),
    (("generate", "a", "--temperature=hot"), "temperature"),
    (("detokenize", "one"), "one"),
])
def test_usage_errors(daemon, arguments, says):
    code, line = bad(daemon, *arguments)
    assert code == 2 and says in line


def test_no_command(daemon):
    assert run_sluice(daemon).returncode == 2


def test_server_errors(daemon):
    code, line = bad(daemon, "generate", "a", "--temperature=-1")
    assert "temperature" in line and code not in (0, 2, 130)
    _, line = bad(daemon, "generate", "a", "--model=other")
    assert "other" in line


def test_nobody_listens(daemon):
    code, line = bad(daemon, "health", address="127.0.0.1:1")
    assert "127.0.0.1:1" in line and code not in (0, 2)


def test_help():
    for arguments in (["--help"], ["generate", "--help"], ["bench", "--help"]):
        end = subprocess.run([str(BIN / "sluice"), *arguments], capture_output=True, text=True, timeout=PATIENCE,
                             env=clean_environment())
        assert end.returncode == 0 and "sluice" in end.stdout
    assert "generate" in end.stdout or "bench" in end.stdout


def test_ctrl_c(daemon):
    """130, what came so far stays on the terminal, and the daemon forgets the call."""
    process = subprocess.Popen([str(BIN / "sluice"), f"--address={daemon.address}", "generate", "The",
                                "--max_new_tokens=1000000", "--ignore_eos"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=clean_environment())
    assert process.stdout.read(20), "it streams as it comes"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "terminate" not in err
    daemon.wait_idle()


def test_a_long_call_says_how_far_it_is(daemon, tmp_path):
    """On stderr, if that is a terminal, and nothing of it stays."""
    file = tmp_path / "long.txt"
    file.write_text((ROOT / "LICENSE").read_text() * 12)
    for flags, says in ((("--summary",), b"(computing, "), (("--json",), b" tokens scored, ")):
        ours, theirs = pty.openpty()
        process = subprocess.Popen([str(BIN / "sluice"), f"--address={daemon.address}", "score", f"--file={file}", *flags],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=clean_environment())
        os.close(theirs)
        shown = b""
        while says not in shown:
            shown += os.read(ours, 4096)  # OSError when the client has ended
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        shown += os.read(ours, 65536)
        os.close(ours)
        assert shown.endswith(b"\r\033[Ksluice: interrupted\r\n"), shown[-200:]
    daemon.wait_idle()


def test_closed_pipe(daemon):
    """sluice generate | head -c 10 ends."""
    end = subprocess.run(f"{BIN / 'sluice'} --address={daemon.address} generate The --max_new_tokens=1000000 "
                         "--ignore_eos | head -c 10", shell=True, capture_output=True, text=True, timeout=PATIENCE,
                         env=clean_environment())
    assert len(end.stdout) == 10
    daemon.wait_idle()
