"""deploy/Dockerfile, without a Docker engine: buildah builds its cpu target on a base that debootstrap made, and the image runs
as its own configuration says: its user, its environment, its entrypoint, on a root file system that is read-only.

The binaries are those of SLUICE_BIN_DIR, put in place of the build stage. `python tests/deploy/test_image.py` compiles them in
that stage instead, as `docker build` does."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

from harness import BIN, MODEL, ROOT, wait_until

BASE = "docker.io/library/debian:bookworm-slim"
MAX_BYTES_ABOVE_BASE = 150_000_000
# Storage of its own, so that images of whoever runs the test are neither used nor touched.
STORE = ROOT / "build" / "image-test"
BUILDAH = ("buildah", f"--root={STORE}/root", f"--runroot={STORE}/run", "--storage-driver=vfs")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and buildah need root here")


def run(*command, **keywords):
    done = subprocess.run(command, capture_output=True, text=True, **keywords)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def buildah(*arguments):
    return run(*BUILDAH, *arguments)


def make_base():
    if buildah("images", "--filter", f"reference={BASE}", "-q"):
        return
    rootfs = STORE / "base"
    shutil.rmtree(rootfs, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "bookworm", str(rootfs))
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        for path in (rootfs / folder).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, f"{rootfs}/", "/")
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)
    shutil.rmtree(rootfs)


def build(context, tag, dockerfile, *arguments):
    buildah("bud", "--isolation=chroot", "--pull-never", "--format=docker", "--target=cpu", f"--tag={tag}",
            f"--file={dockerfile}", *arguments, str(context))


def prebuilt_context(directory):
    """A build context whose prebuilt/ is what `cmake --install` and runtime-packages.sh make in the build stage."""
    binaries = directory / "prebuilt/usr/local/bin"
    binaries.mkdir(parents=True)
    for name in ("sluiced", "sluice"):
        run("strip", "-o", str(binaries / name), str(BIN / name))
    packages = run(str(ROOT / "deploy/runtime-packages.sh"), str(BIN / "sluiced"), str(BIN / "sluice"))
    (directory / "prebuilt/runtime-packages.txt").write_text(packages + "\n")
    shutil.copytree(MODEL, directory / "deploy/models/classics-12m")
    text, stages = re.subn(r"^FROM \S+ AS build-cpu\n.*?(?=^FROM )", "FROM scratch AS build-cpu\nCOPY prebuilt/ /out/\n",
                           (ROOT / "deploy/Dockerfile").read_text(), flags=re.M | re.S)
    assert stages == 1
    (directory / "Dockerfile").write_text(text)
    return directory


class Image:
    def __init__(self, tag):
        self.config = json.loads(buildah("inspect", "--type=image", tag))["Docker"]["config"]
        self.container = buildah("from", "--pull-never", tag)
        self.root = pathlib.Path(buildah("mount", self.container))
        base = buildah("from", "--pull-never", BASE)
        below = files_of(pathlib.Path(buildah("mount", base)))
        buildah("rm", base)
        # Uncompressed: the files that are not the base's own.
        self.bytes_above_base = sum(size for _, size, _ in files_of(self.root) - below)

    def close(self):
        buildah("rm", self.container)

    def command(self, arguments):
        """`docker run --read-only` of the image, in words of util-linux."""
        script = (f"mount --bind {self.root} {self.root} && mount -o remount,bind,ro {self.root} && "
                  f"mount -t proc proc {self.root}/proc && "
                  f"exec chroot --userspec={self.config['User']} {self.root} env -i \"$@\"")
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *self.config["Env"],
                *arguments]


def files_of(root):
    """(path, size, time of change) of every file."""
    stats = ((p, p.lstat()) for p in root.rglob("*"))
    return {(str(p.relative_to(root)), s.st_size, int(s.st_mtime)) for p, s in stats if not stat.S_ISDIR(s.st_mode)}


@pytest.fixture(scope="module")
def image():
    if os.geteuid() != 0:
        pytest.skip("debootstrap and buildah need root here")
    STORE.mkdir(parents=True, exist_ok=True)
    make_base()
    with tempfile.TemporaryDirectory(prefix="sluice-image-") as directory:
        context = prebuilt_context(pathlib.Path(directory))
        build(context, "sluice-test:cpu", context / "Dockerfile")
    made = Image("sluice-test:cpu")
    yield made
    made.close()


@contextlib.contextmanager
def running(image, *flags):
    """sluiced from the image's entrypoint; yields (address, admin address, process)."""
    process = subprocess.Popen(image.command([*image.config["Entrypoint"], *flags]), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"serving (\S+) on (\S+) at (\S+:\d+), admin at (\S+:\d+), http at (\S+:\d+)\n", line)
        assert match, line + process.stderr.read()
        yield match.group(3), match.group(4), process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


LOOPBACK = ("--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=127.0.0.1:0")


def daemon_pid(process):
    """The host's id of sluiced, which is process 1 of its own namespace."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(wait_until(lambda: children.read_text().split(), "unshare has a child")[0])


@pytest.mark.slow
@needs_root
def test_streams_from_a_read_only_container(image):
    sluice = "/usr/local/bin/sluice"
    with running(image, *LOOPBACK) as (address, _, process):
        pid = daemon_pid(process)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        assert "Name:\tsluiced" in status and re.search(r"^Uid:\t10001\t10001", status, re.M), status
        assert re.search(r"^CapEff:\t0+$", status, re.M), status
        # The client of the host streams from the daemon in the container.
        story = subprocess.Popen([BIN / "sluice", f"--address={address}", "generate", "Once upon a time", "--json",
                                  "--max-new-tokens=64", "--temperature=0"], stdout=subprocess.PIPE, text=True)
        lines = [line for line in story.stdout if line.strip()]
        assert story.wait() == 0 and len(lines) > 10, lines
        # The health check of the image, inside the container, says what the orchestrator will see.
        check = image.config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        test = [argument.replace("127.0.0.1:50051", address) for argument in check[1:]]
        assert test != check[1:]
        healthy = subprocess.run(image.command(test), capture_output=True, text=True, timeout=30)
        assert (healthy.returncode, healthy.stdout) == (0, "SERVING\n"), healthy
        os.kill(pid, signal.SIGTERM)
        assert process.wait(30) == 0
        dead = subprocess.run(image.command(test), capture_output=True, text=True, timeout=30)
        assert dead.returncode != 0
    readonly = subprocess.run(image.command(["/bin/sh", "-c", f"{sluice} --help > /var/lib/sluice/x"]), capture_output=True,
                              text=True)
    assert "Read-only file system" in readonly.stderr


@pytest.mark.slow
@needs_root
def test_what_the_image_holds(image):
    print(f"cpu image: {image.bytes_above_base / 1e6:.0f} MB above its base")
    assert (image.root / "models/classics-12m/model.safetensors").stat().st_size < image.bytes_above_base
    assert image.bytes_above_base < MAX_BYTES_ABOVE_BASE
    for name in ("gcc", "g++", "cc", "clang", "ld", "as", "cmake", "ninja", "make", "protoc"):
        found = [folder for folder in ("bin", "usr/bin", "usr/local/bin") if (image.root / folder / name).exists()]
        assert not found, (name, found)
    assert image.config["User"] == "10001:10001"
    assert set(image.config["ExposedPorts"]) == {"50051/tcp", "8080/tcp", "9464/tcp"}
    assert (image.root / "models/classics-12m/model.safetensors").stat().st_size == (MODEL / "model.safetensors").stat().st_size
    assert not list((image.root / "var/lib/apt/lists").iterdir())


def test_hadolint():
    hadolint = pathlib.Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "deploy/Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_both_targets_end_alike():
    """The final stages of cpu and cuda differ in where their files come from, and in nothing else."""
    stages = re.split(r"^FROM ", (ROOT / "deploy/Dockerfile").read_text(), flags=re.M)
    final = {stage.split()[2]: stage.splitlines()[1:] for stage in stages if stage.split()[2:3] in (["cpu"], ["cuda"])}
    plain = {name: [re.sub(r"--from=\S+", "", line) for line in lines if line.strip() and not line.startswith("#")]
             for name, lines in final.items()}
    assert plain["cpu"] == plain["cuda"]


def full_build():
    """The whole Dockerfile, from source; prints how long it took and how large the image is."""
    STORE.mkdir(parents=True, exist_ok=True)
    make_base()
    started = time.monotonic()
    build(ROOT, "sluice:cpu", ROOT / "deploy/Dockerfile", f"--ignorefile={ROOT}/.dockerignore")
    took = time.monotonic() - started
    image = Image("sluice:cpu")
    try:
        print(f"cpu image, from source: built in {took:.0f} s")
        test_what_the_image_holds(image)
        test_streams_from_a_read_only_container(image)
        print("streams, is healthy, drains")
    finally:
        image.close()


if __name__ == "__main__":
    full_build()
