"""deploy/envoy.yaml in the real Envoy, with the addresses of daemons put in, and peers that speak HTTP/2 to it."""

import contextlib
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import urllib.request

import grpc
import h2.config
import h2.connection
import pytest
import yaml

from harness import Daemon, PATIENCE, ROOT, wait_until

ENVOY = pathlib.Path(sys.executable).parent / "envoy"
CONFIG = ROOT / "deploy/envoy.yaml"
HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"),
           (":path", "/sluice.v1.InferenceService/Generate"), ("content-type", "application/grpc"), ("te", "trailers")]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", directory / "tls.key", "-out",
                    directory / "tls.crt", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                   check=True, capture_output=True)
    return directory


def with_certificate(directory):
    return CONFIG.read_text().replace("/etc/envoy/tls", str(directory))


class Envoy:
    """deploy/envoy.yaml with its certificate, its ports and the addresses of the daemons put in; nothing else is changed."""

    def __init__(self, directory, certificate, addresses):
        config = yaml.safe_load(with_certificate(certificate))
        listener = config["static_resources"]["listeners"][0]
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
        config["admin"]["address"]["socket_address"]["port_value"] = 0
        config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"] = [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
            for host, port in (address.split(":") for address in addresses)]}]
        file = directory / "envoy.yaml"
        file.write_text(yaml.safe_dump(config))
        admin_path = directory / "admin"
        with open(directory / "access.log", "wb") as out, open(directory / "stderr", "wb") as err:
            self.process = subprocess.Popen([ENVOY, "-c", file, "--admin-address-path", admin_path, "--use-dynamic-base-id",
                                             "--concurrency", "1"], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            self.admin = wait_until(lambda: admin_path.exists() and admin_path.read_text(), "Envoy's admin port")
            wait_until(lambda: self.healthy() == len(addresses), "daemons healthy to Envoy")
            # "grpc::127.0.0.1:PORT"
            self.address = self.get("/listeners").split("::")[1].strip()
        except BaseException:
            self.stop()
            raise
        self.certificate = (certificate / "tls.crt").read_bytes()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def stat(self, name):
        return int(re.search(rf"^{re.escape(name)}: (\d+)$", self.get("/stats"), re.M).group(1))

    def healthy(self):
        return self.stat("cluster.sluiced.membership_healthy")

    def channel(self):
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(self.certificate),
                                   [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1),
                                    ("grpc.max_metadata_size", 1 << 20)])

    def raw(self):
        """A TLS connection that speaks HTTP/2, for frames of our own."""
        context = ssl.create_default_context(cadata=self.certificate.decode())
        context.set_alpn_protocols(["h2"])
        host, port = self.address.split(":")
        peer = context.wrap_socket(socket.create_connection((host, int(port)), PATIENCE), server_hostname="localhost")
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        peer.sendall(connection.data_to_send())
        return peer, connection

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def two_daemons(directory, certificate, *flags):
    """Envoy and, by their addresses, two daemons behind it; what the caller puts in their place is ended too."""
    with contextlib.ExitStack() as stack:
        daemons = {}
        for address in (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"):
            daemons[address] = Daemon(f"--listen={address}", *flags)
            stack.callback(lambda address=address: daemons[address].kill())
        envoy = Envoy(directory, certificate, list(daemons))
        stack.callback(envoy.stop)
        yield envoy, daemons


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def closed(peer, seconds=10):
    """Reads until the peer closes; whether it did."""
    peer.settimeout(seconds)
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        try:
            while peer.recv(65536):
                pass
        except TimeoutError:
            return False
    return True
