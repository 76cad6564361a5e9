"""What is packed, and that it installs where nothing of ours is."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "client/python"
STUBS = sorted(path.stem for path in (ROOT / "proto/sluice/v1").glob("*.proto"))


def test_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        metadata = next(opened.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    sources = {f"sluice/{path.name}" for path in (PACKAGE / "sluice").iterdir() if path.is_file()}
    assert sources <= names and "sluice/py.typed" in names
    for stub in STUBS:
        assert {f"sluice/v1/{stub}_pb2.py", f"sluice/v1/{stub}_pb2.pyi"} <= names
    assert {name for name in names if name.endswith("_pb2_grpc.py")} == {
        "sluice/v1/inference_pb2_grpc.py", "sluice/v1/session_pb2_grpc.py"}
    assert {name.partition("/")[0] for name in names} == {"sluice", "sluice_client-0.1.0.dist-info"}
    assert "License-Expression: Apache-2.0" in metadata and "Provides-Extra: lm-eval" in metadata
    assert "sluice/LICENSE" in names


def test_bounds_are_those_of_the_stubs(site):
    """Stubs run with the grpcio and protobuf of the tools that made them, or later: the wheel must ask for those."""
    project = (PACKAGE / "pyproject.toml").read_text()
    tools = re.search(r"^GRPC_GENERATED_VERSION = '(.+)'$", (site / "sluice/v1/inference_pb2_grpc.py").read_text(), re.M)[1]
    protobuf = re.search(r"^# Protobuf Python Version: (.+)$", (site / "sluice/v1/model_pb2.py").read_text(), re.M)[1]
    for wanted in (f'"grpcio-tools=={tools}"', f'"grpcio>={tools}"', f'"protobuf>={protobuf},'):
        assert wanted in project


def test_stubs_are_not_committed():
    if shutil.which("git") is None:
        pytest.skip("no git")
    tracked = subprocess.run(["git", "ls-files", "client/python"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    assert "pyproject.toml" in tracked.stdout and "_pb2" not in tracked.stdout


@pytest.mark.slow
def test_the_source_distribution_installs(daemon, tmp_path):
    """Its wheel is built by PyPI's tools in an environment of pip's making, from the protos that it carries."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=PACKAGE, check=True,
                   capture_output=True)
    archive = next(tmp_path.glob("sluice_client-*.tar.gz"))
    with tarfile.open(archive) as opened:
        names = [name.partition("/")[2] for name in opened.getnames()]
    assert {f"proto/sluice/v1/{stub}.proto" for stub in STUBS} < set(names)
    assert {"LICENSE", "README.md", "proto/google/rpc/status.proto"} < set(names)
    assert not [name for name in names if "_pb2" in name]
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-compile",
                    "--disable-pip-version-check", archive], check=True)
    code = f"import sluice; print(sluice.Client('{daemon.address}').complete('The sea', seed=1, max_tokens=5).text)"
    end = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert end.stdout.strip() and not end.stderr
