"""deploy/package.sh: each package streams text where nothing but it and what it depends on is installed.

The root is bare: what debootstrap makes, which test_image.py keeps for its base image. Sizes and seconds are printed (pytest -s)."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time

import pytest

import test_image
from harness import BIN, PATIENCE, ROOT, clean_environment
from test_image import buildah, run

pytestmark = [pytest.mark.slow, test_image.needs_root]
STORY = ("run", "Once upon a time", "--seed=1", "--max-tokens=24")


class Root:
    """A bare Debian 12, in which commands run with /proc."""

    def __init__(self):
        test_image.STORE.mkdir(parents=True, exist_ok=True)
        test_image.make_base()
        self.container = buildah("from", "--pull-never", test_image.BASE)
        self.path = pathlib.Path(buildah("mount", self.container))

    def close(self):
        buildah("rm", self.container)

    def __call__(self, *command):
        script = f"mount -t proc proc {self.path}/proc && exec chroot {self.path} env -i PATH=$PATH \"$@\""
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *command],
                              capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                              env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """kind -> file."""
    out = tmp_path_factory.mktemp("packages")
    started = time.monotonic()
    print(run(str(ROOT / "deploy/package.sh"), f"--build={BIN.parent}", f"--out={out}"))
    print(f"three packages in {time.monotonic() - started:.1f} s")
    found = {path.suffix: path for path in out.iterdir() if path.name != "SHA256SUMS"}
    assert set(found) == {".deb", ".gz", ".whl"}
    sums = dict(reversed(line.split()) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found.values()}
    return found


@pytest.fixture(scope="module")
def root():
    made = Root()
    yield made
    made.close()


def check_story(text):
    assert len(text.split()) > 8, text
    return text


def check_list(folder, prefix):
    """The list of what a package carries names each library with its sum, and each has its licence."""
    document = json.loads((folder / "share/doc/sluice/sluice.spdx.json").read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    carried = {path.name for path in (folder / "lib/sluice").iterdir()}
    listed = {pathlib.Path(file["fileName"]).name: file["checksums"][0]["checksumValue"] for file in document["files"]}
    assert carried <= set(listed) and len(carried) > 20
    for name in carried:
        assert listed[name] == hashlib.sha256((folder / "lib/sluice" / name).read_bytes()).hexdigest()
    licences = {path.name for path in (folder / "share/doc/sluice/licences").iterdir()}
    assert licences == {package["name"] for package in document["packages"]} - {"sluice"}
    return carried


def test_tarball(packages, root):
    """Before anything else is installed: it needs glibc alone, and works wherever it lies."""
    with tarfile.open(packages[".gz"]) as archive:
        archive.extractall(root.path / "opt")
    (name,) = os.listdir(root.path / "opt")
    carried = check_list(root.path / "opt" / name, f"/{name}")
    assert {"libssl.so.3", "libstdc++.so.6"} <= carried
    assert not any(library.startswith(("libc.so", "libcublas")) for library in carried)
    story = check_story(root(f"/opt/{name}/bin/sluice", *STORY))
    shutil.move(root.path / "opt" / name, root.path / "moved")
    assert root("/moved/bin/sluice", *STORY) == story
    assert "libgrpc.so.29" in root("/moved/bin/sluiced", "--version", "--verbose")


def test_deb(packages, root, tmp_path):
    run("apt-get", "download", "libssl3", cwd=tmp_path)
    (ssl,) = tmp_path.glob("libssl3_*.deb")
    for deb in (ssl, packages[".deb"]):
        shutil.copy(deb, root.path / "tmp")
    depends = run("dpkg-deb", "--field", str(packages[".deb"]), "Depends")
    assert {re.match(r"[\w+.-]+", name.strip())[0] for name in re.split(r"[,|]", depends)} == {"libc6", "libstdc++6", "libssl3",
                                                                                            "libssl3t64"}
    started = time.monotonic()
    root("dpkg", "--install", f"/tmp/{ssl.name}", f"/tmp/{packages['.deb'].name}")
    check_story(root("sluice", *STORY))
    print(f"from the package to a streamed story in {time.monotonic() - started:.1f} s")
    carried = check_list(root.path / "usr", "/usr")
    assert not any(re.match(r"lib(c|m|stdc\+\+|gcc_s|ssl|crypto|cublas\w*)\.so", library) for library in carried)
    libraries = root("sluiced", "--version", "--verbose")
    assert re.search(r"libgrpc\.so\.29 +bundled +/usr/lib/sluice/", libraries) and re.search(r"libssl\.so\.3 +system ", libraries)

    # What the unit, the flags and the pages name is there.
    unit = (root.path / "lib/systemd/system/sluiced.service").read_text()
    named = set(re.findall(r"(?:file://|=)(/(?:usr|etc)[^\s]*)", unit + (root.path / "etc/sluice/sluiced.flags").read_text()))
    assert {"/usr/bin/sluiced", "/etc/sluice/sluiced.flags", "/usr/share/sluice/models/classics-12m"} <= named
    for path in named | {"/usr/share/man/man1/sluice.1.gz", "/usr/share/bash-completion/completions/sluiced",
                         "/usr/share/zsh/vendor-completions/_sluice", "/usr/share/doc/sluice/server/README.md"}:
        assert (root.path / path.lstrip("/")).exists(), path

    # An upgrade and a removal keep the operator's flags and the sessions.
    flags, sessions = root.path / "etc/sluice/sluiced.flags", root.path / "var/lib/sluice"
    flags.write_text(flags.read_text() + "--max_streams=7\n")
    sessions.mkdir(parents=True)
    (sessions / "session").write_text("state")
    root("dpkg", "--install", f"/tmp/{packages['.deb'].name}")
    root("dpkg", "--remove", "sluice")
    assert "--max_streams=7" in flags.read_text() and (sessions / "session").exists()
    assert not (root.path / "usr/bin/sluiced").exists() and not (root.path / "usr/lib/sluice").exists()


def test_wheel(packages, tmp_path):
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", "--target", str(tmp_path),
        str(packages[".whl"]))
    environment = {**clean_environment(), "PYTHONPATH": str(tmp_path)}
    story = subprocess.run([str(tmp_path / "bin/sluice"), *STORY], capture_output=True, text=True, timeout=PATIENCE, env=environment,
                           stdin=subprocess.DEVNULL)
    check_story(story.stdout)
    script = ("import sluice_server as s\n"
              "with s.start(threads=1, http_listen='127.0.0.1:0') as daemon:\n"
              "    print(daemon.model, daemon.device, daemon.address, daemon.http)\n"
              "print(daemon.process.returncode)\n"
              "try: s.start(threads=-1)\n"
              "except RuntimeError as error: print(error)\n")
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, env=environment).stdout
    assert re.fullmatch(r"classics-12m cpu 127.0.0.1:\d+ 127.0.0.1:\d+\n0\nsluiced ended with exit code 2 before it served.*\n", out), out
