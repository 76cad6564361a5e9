"""The daemon of Sluice, carried by this package, and its command line.

    import sluice_server

    with sluice_server.start() as daemon:          # the bundled model; start("models/gla-1.3B", device="cuda") serves another
        print(daemon.address)                      # for sluice.Client(daemon.address), grpcurl or `sluice --address=...`

`sluiced` and `sluice` are also commands: `sluice run` is a chat."""

import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent / "dist"
MODEL = HERE / "share/sluice/models/classics-12m"
_SERVING = re.compile(r"serving (\S+) on (\S+) at (\S+), admin at (\S+?)(?:, http at (\S+))?\n")


def program(name="sluiced"):
    """The path of `sluiced` or `sluice`."""
    return HERE / "bin" / name


def environment():
    """os.environ, with cuBLAS of PyPI's nvidia-cublas (`pip install sluice-server[cuda]`) where the daemon looks for it."""
    found = dict(os.environ)
    spec = importlib.util.find_spec("nvidia")
    folders = [str(path) for place in (spec.submodule_search_locations if spec else ())
               for path in sorted(pathlib.Path(place).glob("*/lib")) if (path / "libcublasLt.so.13").exists()]
    if folders:
        found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [found.get("LD_LIBRARY_PATH", ""), *folders]))
    return found


class Daemon:
    """A running sluiced; start() makes one. `address` is that of gRPC, `http` that of the HTTP API or None."""

    def __init__(self, arguments):
        self.process = subprocess.Popen([str(program()), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                        env=environment())
        match = _SERVING.fullmatch(self.process.stdout.readline())
        if match is None:
            self.stop()
            raise RuntimeError(f"sluiced ended with exit code {self.process.returncode} before it served; stderr says why")
        self.model, self.device, self.address, self.admin, self.http = match.groups()

    def stop(self):
        """Has it drain, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.stdout.close()
        return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def start(model=MODEL, **flags):
    """Starts sluiced and waits until it serves. Flags are those of `sluiced --help`: start(device="cpu", http_listen="127.0.0.1:0").
    Ports are free ones of the loopback interface where no flag says otherwise. RuntimeError if it ends before it serves."""
    flags = {"model": model, "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", **flags}
    written = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in flags.items()}
    return Daemon([f"--{name}={value}" for name, value in written.items()])


def _run(name):
    os.execve(program(name), [name, *sys.argv[1:]], environment())


def run_sluiced():
    _run("sluiced")


def run_sluice():
    _run("sluice")
