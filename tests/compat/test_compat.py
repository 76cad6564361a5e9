"""Nothing that others build on goes or changes its meaning unnoticed.

surface.json and proto.binpb were recorded before (surface.py says how); accepted.json has values that flags took then, and
only grows. Each build is compared with them. What is gone or changed fails, unless permitted.json has it and CHANGELOG.md
names it:

  "flag --max_streams: default": {}                      a change of meaning: a line of CHANGELOG.md names the flag
  "flag --max_streams": {"alias_in": "0.2.0"}            gone: the section of 0.2.0, in which the old name still worked, names
                                                         it, and so does a line of a later section

What is new is no difference."""

import itertools
import json
import pathlib
import re
import subprocess
import sys

import grpc
import pytest

import surface
from harness import BIN, MODEL, PATIENCE, ROOT, clean_environment, request, rpc_error
from sessions import Sessions

HERE = pathlib.Path(__file__).resolve().parent
RECORDED = json.loads((HERE / "surface.json").read_text())
ACCEPTED = json.loads((HERE / "accepted.json").read_text())
PERMITTED = json.loads((HERE / "permitted.json").read_text())


@pytest.fixture(scope="module")
def now():
    return surface.surface()


# ---- What may differ ----

def sections(changelog):
    """[(version or "Unreleased", text)], the newest first, as the file has them."""
    parts = re.split(r"^## (.+)$", changelog, flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


def allows(permitted, changelog, difference):
    """True if `difference` ("flag --x", "metric y: labels", ...) was announced as it must be."""
    if difference not in permitted:
        return False
    name = re.match(r"\w+ ([^\s:{]+)", difference)[1]
    found = sections(changelog)
    named = [version for version, text in found if f"`{name}" in text]
    if ":" in difference.replace(name, ""):
        return bool(named)
    versions = [version for version, _ in found]
    alias = permitted[difference].get("alias_in")
    return alias in named and alias != "Unreleased" and any(versions.index(version) < versions.index(alias) for version in named)


def check(differences):
    changelog = (ROOT / "CHANGELOG.md").read_text()
    refused = [difference for difference in differences if not allows(PERMITTED, changelog, difference)]
    assert not refused, "gone or changed without an alias and a line in CHANGELOG.md (see test_compat.py):\n" + "\n".join(refused)


def test_what_is_allowed():
    """The rule itself: it must refuse what was not announced."""
    unreleased = "# Changes\n\n## Unreleased\n\n- `--old` is gone.\n"
    released = unreleased + "\n## 0.2.0\n\n- `--old` is now `--new`; the old name works for this release.\n\n## 0.1.0\n\n- First.\n"
    gone, changed = "flag --old", "flag --old: default"
    assert not allows({}, released, gone)
    assert not allows({gone: {}}, released, gone), "there must have been an alias"
    assert not allows({gone: {"alias_in": "0.2.0"}}, unreleased, gone), "for one release"
    assert not allows({gone: {"alias_in": "Unreleased"}}, unreleased, gone)
    assert not allows({gone: {"alias_in": "0.1.0"}}, released, gone), "that named it"
    assert not allows({gone: {"alias_in": "0.2.0"}}, released.replace("- `--old` is gone.", "-"), gone)
    assert allows({gone: {"alias_in": "0.2.0"}}, released, gone)
    assert not allows({}, unreleased, changed)
    assert not allows({changed: {}}, unreleased.replace("--old", "--older"[::-1]), changed)
    assert allows({changed: {}}, unreleased, changed)


def test_nothing_is_permitted_that_is_no_difference(now):
    """An entry that is not needed would let the next mistake through."""
    needed = set(flag_differences(now)) | set(metric_differences(now)) | set(http_differences(now))
    assert set(PERMITTED) <= needed, set(PERMITTED) - needed


# ---- Flags ----

def accepts(*arguments, environment=None):
    """None, or what the daemon says against these flags: all of them are read before --help is answered."""
    end = subprocess.run([str(BIN / "sluiced"), *arguments, "--help"], capture_output=True, text=True, timeout=PATIENCE,
                         env={**clean_environment(), **(environment or {})})
    return None if end.returncode == 0 else end.stderr.strip()


def flag_differences(now):
    for name, flag in RECORDED["flags"].items():
        current = now["flags"].get(name)
        # An alias need not be in --help.
        if current is None and accepts(f"--{name}={flag['default']}") is not None:
            yield f"flag --{name}"
        elif current is not None:
            for what in ("value", "default"):
                if current[what] != flag[what]:
                    yield f"flag --{name}: {what}"
    for round in itertools.zip_longest(*([f"--{name}={value}" for value in values] for name, values in ACCEPTED.items())):
        given = [flag for flag in round if flag is not None]
        if accepts(*given) is None:
            continue
        for flag in given:
            if accepts(flag) is not None:
                yield f"flag {flag.replace('=', ': ', 1)}"


def test_flags(now):
    assert len(RECORDED["flags"]) > 50 and set(RECORDED["flags"]) <= set(ACCEPTED)
    check(flag_differences(now))


def test_flags_as_variables_and_in_files(tmp_path):
    values = {name: some[0] for name, some in ACCEPTED.items()}
    assert accepts(environment={f"SLUICE_{name.upper()}": value for name, value in values.items()}) is None
    file = tmp_path / "flags"
    file.write_text("# recorded\n" + "".join(f"--{name}={value}\n" for name, value in values.items()))
    assert accepts(f"--flagfile={file}") is None
    booleans = [name for name, some in ACCEPTED.items() if some == ["true", "false"]]
    assert booleans and accepts(*(f"--{name}" for name in booleans), *(f"--no{name}" for name in booleans)) is None
    assert "unknown flag" in accepts("--no_such_flag=1"), "the question can be answered with no"


# ---- Metrics ----

def metric_differences(now):
    for name, metric in RECORDED["metrics"].items():
        current = now["metrics"].get(name)
        if current is None:
            yield f"metric {name}"
            continue
        for what in ("type", "labels"):
            if current[what] != metric[what]:
                yield f"metric {name}: {what}"
        for series in set(metric["series"]) - set(current["series"]):
            yield f"metric {name}: {{{series}}}"


def test_metrics(now):
    assert len(RECORDED["metrics"]) > 100
    check(metric_differences(now))


# ---- HTTP ----

def http_differences(now):
    answers = now["http"]["answers"]
    for name, recorded in RECORDED["http"]["answers"].items():
        for what in ("status", "type"):
            if answers[name][what] != recorded[what]:
                yield f"answer {name.replace(' ', '_')}: {what}"
        for field in set(recorded["fields"]) - set(answers[name]["fields"]):
            yield f"answer {name.replace(' ', '_')}: {field}"
    for path, fields in RECORDED["http"]["requests"].items():
        for field in set(fields) - set(now["http"]["requests"][path]):
            yield f"request {path}: {field}"


def test_http(now):
    assert len(RECORDED["http"]["answers"]) == len(surface.CALLS)
    check(http_differences(now))


# ---- Exit codes ----

def test_help_lists_the_exit_codes(now):
    assert RECORDED["exit_codes"] == [0, 2, 3, 70, 74]
    assert set(RECORDED["exit_codes"]) <= set(now["exit_codes"])


def ends_with(*arguments, wrapper=()):
    command = [*wrapper, str(BIN / "sluiced"), "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=", *arguments]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, env=clean_environment()).returncode


def test_0_a_drain(start_daemon):
    assert start_daemon().stop() == 0


def test_2_what_is_wrong_with_the_input(tmp_path):
    assert ends_with("--no_such_flag") == 2
    assert ends_with(f"--model={tmp_path}") == 2
    assert ends_with(f"--model={MODEL}", "--auth_tokens_file=/no/such/file") == 2


@pytest.mark.slow
def test_3_not_enough_memory():
    # A sanitizer needs terabytes of addresses: in such a build this means nothing.
    assert ends_with(f"--model={MODEL}", "--device=cpu", "--device_state_bytes=100000000000", "--max_batch_tokens=1048576",
                     wrapper=("prlimit", "--as=4000000000")) == 3


def test_70_a_device_that_hangs(start_daemon):
    daemon = start_daemon("--step_timeout=1ms", "--max_batch_tokens=4096")
    with rpc_error(grpc.StatusCode.UNAVAILABLE):
        list(daemon.inference.Generate(request([1] + [300] * 200_000), timeout=PATIENCE))
    assert daemon.wait() == 70


@pytest.mark.slow
def test_74_sessions_that_were_not_written(start_daemon, tmp_path):
    library, marker = tmp_path / "hung_disk.so", tmp_path / "hangs"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests/fault/hung_disk.c", "-ldl"], check=True)
    daemon = start_daemon(f"--session_dir={tmp_path / 'sessions'}", "--flush_timeout=100ms",
                          environment={"LD_PRELOAD": str(library), "HUNG_DISK": str(marker)})
    sessions = Sessions(daemon)
    sessions.create("a")
    marker.touch()
    sessions.say("a", "The")
    assert daemon.stop() == 74


# ---- gRPC ----

def buf(*arguments):
    return subprocess.run([str(pathlib.Path(sys.executable).parent / "buf"), *arguments], cwd=ROOT / "proto", capture_output=True,
                          text=True, timeout=PATIENCE)


def test_proto():
    end = buf("breaking", "--against", str(HERE / "proto.binpb"))
    assert end.returncode == 0, end.stdout + end.stderr


def test_buf_finds_what_breaks(tmp_path):
    """The check can fail: a field that is gone, and one of another type."""
    copy = tmp_path / "proto"
    (copy / "sluice/v1").mkdir(parents=True)
    for file in (ROOT / "proto").rglob("*"):
        if file.suffix in (".proto", ".yaml"):
            target = copy / file.relative_to(ROOT / "proto")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text()
            if file.name == "tokens.proto":
                text, count = re.subn(r"^  string text = \d+;\n", "", text, count=1, flags=re.M)
                assert count == 1
            target.write_text(text)
    end = subprocess.run([str(pathlib.Path(sys.executable).parent / "buf"), "breaking", "--against", str(HERE / "proto.binpb")],
                         cwd=copy, capture_output=True, text=True, timeout=PATIENCE)
    assert end.returncode != 0 and "tokens.proto" in end.stdout, end.stdout + end.stderr
