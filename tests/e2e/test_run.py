"""sluice run and check: a daemon for one command, which never outlives it; and sluice ps, which lists daemons."""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess

import pytest

from harness import BIN, GOLDENS, MODEL, PATIENCE, clean_environment, run_sluice, wait_until

LONG = ("--max-tokens=1000000", "--ignore-eos")


def command(*arguments):
    return [str(BIN / "sluice"), "run", *arguments]


def run(*arguments, environment=None, **keywords):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE,
                          env={**clean_environment(), **(environment or {})}, **keywords)


def child_of(process):
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(wait_until(lambda: children.read_text().split(), "sluice run has a daemon")[0])


def is_gone(pid):
    try:
        return "Z" == pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True


def wait_gone(pid):
    wait_until(lambda: is_gone(pid), "the daemon ends")


def test_a_prompt_as_argument_and_from_a_pipe():
    told = run(str(MODEL), "Once upon a time", "--seed=1", "--max-tokens=20", stdin=subprocess.DEVNULL)
    assert told.returncode == 0 and told.stderr == "", told.stderr
    assert len(told.stdout.split()) > 5
    # Variables that a daemon for others reads do not make this one unusable.
    others = {"SLUICE_AUTH_TOKENS_FILE": "/nowhere", "SLUICE_LISTEN": "0.0.0.0:1", "SLUICE_MODEL": str(MODEL)}
    piped = run("--seed=1", "--max-tokens=20", input="Once upon a time", environment=others)
    assert piped.stdout == told.stdout, piped.stderr


def test_the_bundled_model_is_found():
    """The tests' binaries are in build/bin, beside a source tree that has it."""
    if not (BIN / "../../deploy/models/classics-12m").exists():
        pytest.skip("these binaries are not in a source tree")
    told = run("It was a dark night", "--max-tokens=5", stdin=subprocess.DEVNULL)
    assert told.returncode == 0 and told.stdout.strip(), told.stderr


def test_errors_of_the_start_are_shown_as_they_are(tmp_path):
    end = run(str(tmp_path), "Once", stdin=subprocess.DEVNULL)
    alone = subprocess.run([str(BIN / "sluiced"), f"--model={tmp_path}"], capture_output=True, text=True, timeout=PATIENCE,
                           env=clean_environment())
    assert alone.returncode == 2 and end.returncode == 1
    first, second = end.stderr.splitlines()
    assert first + "\n" == alone.stderr
    assert re.fullmatch(r"sluice: \S+/sluiced ended with exit code 2 before it served \(FAILED_PRECONDITION\)", second)
    assert "did you mean --threads?" in run("x", "--daemon-flag=--treads=2", stdin=subprocess.DEVNULL).stderr


def test_the_daemon_is_found_in_path(tmp_path):
    """A copy of the client that has no daemon beside it."""
    os.link(BIN / "sluice", tmp_path / "sluice") if os.stat(BIN).st_dev == os.stat(tmp_path).st_dev else \
        (tmp_path / "sluice").write_bytes((BIN / "sluice").read_bytes())
    (tmp_path / "sluice").chmod(0o755)
    ask = [str(tmp_path / "sluice"), "run", str(MODEL), "The", "--max-tokens=3"]
    lost = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                          env={**clean_environment(), "PATH": "/nowhere"})
    assert lost.returncode == 2 and "sluiced is neither in" in lost.stderr
    found = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                           env={**clean_environment(), "PATH": f"/nowhere:{BIN.resolve()}"})
    assert found.returncode == 0 and found.stdout.strip(), found.stderr


def test_a_chat_in_a_terminal():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(str(MODEL), "--max-tokens=8", "--temperature=0"), stdin=theirs, stdout=theirs,
                               stderr=subprocess.PIPE, text=True, env=clean_environment())
    os.close(theirs)
    daemon = child_of(process)
    os.write(ours, b"The sea\n/show\n/quit\n")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "classics-12m on" in err and "1 turns to undo" in err
    shown = os.read(ours, 65536).decode()
    assert "> " in shown and len(shown.replace("The sea", "")) > 40, shown
    os.close(ours)
    wait_gone(daemon)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_daemon_ends_with_its_client(number):
    process = subprocess.Popen(command(str(MODEL), "The", *LONG), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=clean_environment())
    daemon = child_of(process)
    assert process.stdout.read(20), "it streams as it comes"
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert process.returncode == expected, err
    wait_gone(daemon)


def test_ps_lists_daemons(daemon):
    rows = [json.loads(line) for line in run_sluice(daemon, "ps", "--json").stdout.splitlines()]
    row = next(row for row in rows if row["pid"] == daemon.process.pid)
    assert row["address"] == daemon.address and row["model"] == daemon.model_name and row["device"] == daemon.device
    assert set(row["listens"]) == {daemon.address, daemon.admin} and row["resident_bytes"] > 1 << 20
    assert f"{daemon.process.pid}  {daemon.address}" in run_sluice(daemon, "ps").stdout


def test_an_http_port_is_told_of(daemon):
    end = run_sluice(daemon, "health", address=daemon.admin)
    assert end.returncode == 1 and f"{daemon.admin} speaks HTTP/1" in end.stderr, end.stderr


def test_check_against_logits(tmp_path):
    """The goldens' logits are float64's, after the last token of each case."""
    def check(ids, logits, *flags):
        file = tmp_path / "logits.json"
        file.write_text(json.dumps({"ids": ids, "logits": logits}))
        return subprocess.run([str(BIN / "sluice"), "check", str(MODEL), f"--against={file}", *flags], capture_output=True, text=True,
                              timeout=PATIENCE, env=clean_environment())

    case = GOLDENS["cases"][1]
    good = check(case["ids"], [case["logits"]])
    assert good.returncode == 0, good.stdout + good.stderr
    assert "compared      20 log-probabilities after 1 tokens" in good.stdout and "verdict       agrees" in good.stdout
    assert float(re.search(r"greatest +([\d.]+) nats", good.stdout)[1]) < 1e-3
    # A constant in all logits changes no probability; another first choice does.
    assert check(case["ids"], [[x + 7 for x in case["logits"]]]).returncode == 0
    best = max(range(4096), key=case["logits"].__getitem__)
    wrong = check(case["ids"], [[x - 9 * (i == best) for i, x in enumerate(case["logits"])]])
    assert wrong.returncode == 1 and "DIFFERS" in wrong.stdout and f"token {best} after position {len(case['ids']) - 1}" in wrong.stdout
    assert "first choice  another one in 1 places" in wrong.stdout
    for ids, logits, says in [(case["ids"], [case["logits"][:9]], "logits of 9 tokens, the model has 4096"), ([], [], "a row for each"),
                              ([1], [["x"]], "no number"), ([1, 2], [[1.0], [1.0, 2.0]], "differ in length")]:
        refused = check(ids, logits)
        assert refused.returncode in (1, 2) and says in refused.stderr, refused.stderr
