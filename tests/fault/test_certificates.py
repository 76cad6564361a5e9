"""Certificates that change while the daemon serves: in every order, and damaged in every way (row 30)."""

import itertools
import os
import pathlib
import shutil
import socket
import ssl
import threading
import time

import grpc
import pytest

from certificates import Authority
from harness import PATIENCE, in_threads, inference_pb2_grpc, request, wait_until
from load import ENDLESS

FLAGS = ("tls_cert", "tls_key", "tls_client_ca")
BOUND = 5.0  # seconds until a good set serves


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Two authorities, and of each a pair for the server; the client's certificate is the first one's."""
    folder = tmp_path_factory.mktemp("pki")
    ours, next_one = Authority(folder / "ours"), Authority(folder / "next", "next authority")
    both = folder / "both.pem"
    both.write_bytes(ours.cert.read_bytes() + next_one.cert.read_bytes())
    return {"client": ours.issue("client", "/CN=client"), "authorities": both,
            "old": (*ours.issue("old", "/CN=old"), ours.cert), "new": (*next_one.issue("new", "/CN=new"), both)}


class Files:
    """The three files of one daemon."""

    def __init__(self, folder, good):
        self.paths = [folder / name for name in FLAGS]
        for path, source in zip(self.paths, good):
            shutil.copy(source, path)

    def flags(self):
        return [f"--{flag}={path}" for flag, path in zip(FLAGS, self.paths)]

    def put(self, which, source):
        """A whole file takes the place of another at once."""
        fresh = self.paths[which].with_suffix(".fresh")
        shutil.copy(source, fresh)
        os.replace(fresh, self.paths[which])


class Client:
    """Streams that run, and handshakes without a pause: each must end in an HTTP/2 connection."""

    def __init__(self, daemon, pki):
        self.daemon, self.pki = daemon, pki
        self.seen, self.failures = [], []  # (when a handshake ended, common name); what was said of failed ones
        self._stop = threading.Event()
        credentials = grpc.ssl_channel_credentials(pki["authorities"].read_bytes(), pki["client"][1].read_bytes(),
                                                   pki["client"][0].read_bytes())
        self._channel = grpc.secure_channel(daemon.address, credentials)
        stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        # Their reader takes a token now and then; in between the sequences pause, and cost nothing.
        self.streams = [stub.Generate(request("The", stop=ENDLESS), timeout=PATIENCE) for _ in range(2)]
        self.read()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def handshake(self):
        """The common name that the server shows."""
        context = ssl.create_default_context(cafile=str(self.pki["authorities"]))
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(*map(str, self.pki["client"]))
        host, port = self.daemon.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as connection:
                # A server that refuses the client's certificate says so only now.
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
                assert connection.recv(9)[3] == 4, "SETTINGS"
                return dict(pair[0] for pair in connection.getpeercert()["subject"])["commonName"]

    def _run(self):
        while not self._stop.wait(0.1):
            try:
                self.seen.append((time.monotonic(), self.handshake()))
            except (OSError, AssertionError, IndexError) as error:
                self.failures.append(repr(error))

    def read(self):
        for stream in self.streams:
            next(stream)

    def served_within(self, name, since):
        """Seconds from `since` until a handshake saw `name`."""
        return wait_until(lambda: [when for when, seen in self.seen if seen == name and when > since], name)[0] - since

    def close(self):
        """Handshakes made. None may have failed, and the daemon must still have the streams."""
        self._stop.set()
        self._thread.join()
        assert not self.failures, self.failures[:3]
        assert self.daemon.metrics()["sluice_streams"] == len(self.streams)
        self.read()
        for stream in self.streams:
            stream.cancel()
        self._channel.close()
        return len(self.seen)


def reloads(daemon):
    samples = daemon.metrics()
    return tuple(int(samples[f"sluice_tls_reloads_total{{result={result}}}"]) for result in ("ok", "error"))


def complaints(daemon):
    return [line for line in daemon.stderr().splitlines() if "tls_reload" in line and "kept" in line]


def start(start_daemon, tmp_path, pki, name):
    folder = tmp_path / name
    folder.mkdir()
    files = Files(folder, pki["old"])
    daemon = start_daemon(*files.flags(), "--write_stall=10m")
    return files, daemon, Client(daemon, pki)


def truncate(path, good):
    data = good.read_bytes()
    path.write_bytes(data[:len(data) // 2])


def garble(path, good):
    path.write_text("-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")


# Name -> what it does to the file at `path`, whose good content is in `good`; and what the log says for each of the three.
DAMAGES = {
    "empty": (lambda path, good: open(path, "w").close(), ["the file is empty"] * 3),
    "truncated": (truncate, ["bad end line", "a part of one alone", "bad end line"]),
    "missing": (lambda path, good: path.unlink(), ["No such file or directory"] * 3),
    "garbage": (garble, [""] * 3),
}


def test_a_damaged_file_leaves_the_set_before(start_daemon, tmp_path, pki):
    started = [start(start_daemon, tmp_path, pki, name) for name in DAMAGES]

    def damage(i):
        files, daemon, client = started[i]
        harm, reasons = list(DAMAGES.values())[i]
        for which, flag in enumerate(FLAGS):
            harm(files.paths[which], pki["old"][which])
            wait_until(lambda: reloads(daemon)[1] == which + 1, f"{flag} is refused")
            line = complaints(daemon)[-1]
            assert f"--{flag}={files.paths[which]}" in line and reasons[which] in line, line
            client.read()
            if which < 2:
                files.put(which, pki["old"][which])  # the next one is damaged at the same time
        time.sleep(2.5)  # two more looks at the same damage
        assert reloads(daemon)[1] == len(complaints(daemon)) == 3, "one line for each change"
        since = time.monotonic()
        for which in (2, 1, 0):
            files.put(which, pki["new"][which])
        took = client.served_within("new", since)
        assert {name for when, name in client.seen if when < since} == {"old"}
        return took, client.close()

    took, handshakes = zip(*in_threads(len(DAMAGES), damage))
    print(f"damaged: {3 * len(DAMAGES)} changes refused, 0 of {sum(handshakes)} handshakes failed, "
          f"the good set after each served within {max(took):.1f} s")
    assert max(took) < BOUND


def test_every_order_of_replacing(start_daemon, tmp_path, pki):
    orders = list(itertools.permutations(range(3)))
    started = [start(start_daemon, tmp_path, pki, "".join(map(str, order))) for order in orders]

    def replace(i):
        files, daemon, client = started[i]
        for which in orders[i]:
            files.put(which, pki["new"][which])
            since = time.monotonic()
            time.sleep(2.2)  # long enough for the daemon to judge what is there
            client.read()
        took = client.served_within("new", since)
        # What lies between is refused, once for each state: a key that is not the certificate's.
        wait_until(lambda: reloads(daemon)[0] >= 1, "the whole set is counted")
        for line in complaints(daemon):
            assert "key values mismatch" in line, line
        assert reloads(daemon)[1] == len(complaints(daemon)) >= 1
        return took, client.close()

    took, handshakes = zip(*in_threads(len(orders), replace))
    print(f"{len(orders)} orders: 0 of {sum(handshakes)} handshakes failed, the new set served within {max(took):.1f} s")
    assert max(took) < BOUND


def test_a_flurry_of_good_sets(start_daemon, tmp_path, pki):
    """gRPC reads key and certificate one after the other: it must never pair those of two sets."""
    files, daemon, client = start(start_daemon, tmp_path, pki, "flurry")
    for turn in range(8):
        name = "new" if turn % 2 == 0 else "old"
        since = time.monotonic()
        for which in (0, 1):
            files.put(which, pki[name][which])
        assert client.served_within(name, since) < BOUND
    client.read()
    assert not complaints(daemon)
    assert reloads(daemon)[0] == 8
    print(f"8 good sets one after another: 0 of {client.close()} handshakes failed")


def folder_of(daemon):
    """The folder that gRPC reads from: the daemon holds a lock on it."""
    links = (os.readlink(link) for link in pathlib.Path(f"/proc/{daemon.process.pid}/fd").iterdir())
    return next(pathlib.Path(link) for link in links if "/sluiced-tls-" in link)


def test_the_folder_of_the_key(start_daemon, tmp_path, pki):
    files = Files(tmp_path, pki["old"])
    daemon = start_daemon(*files.flags())
    folder = folder_of(daemon)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (folder / "current").iterdir()} == {0o600}
    assert daemon.stop() == 0
    assert not folder.exists()
    killed = start_daemon(*files.flags())
    left = folder_of(killed)
    killed.kill()
    assert left.exists()
    start_daemon(*files.flags())
    assert not left.exists(), "the next start removes what a killed daemon left"
