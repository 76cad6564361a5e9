"""deploy/envoy.yaml in the real Envoy, before two daemons: affinity, drain, and the bounds that the daemon's gRPC lacks."""

import contextlib
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
import yaml

from harness import Daemon, PATIENCE, ROOT, collect, inference_pb2_grpc, request, wait_until

ENVOY = pathlib.Path(sys.executable).parent / "envoy"
CONFIG = ROOT / "deploy/envoy.yaml"
RUNTIME = yaml.safe_load(CONFIG.read_text())["layered_runtime"]["layers"][0]["static_layer"]
ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}


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


@pytest.fixture
def edge(tmp_path, certificate):
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        daemons = {}
        for port in ports:
            daemons[f"127.0.0.1:{port}"] = Daemon(f"--listen=127.0.0.1:{port}")
            stack.callback(lambda address=f"127.0.0.1:{port}": daemons[address].kill())
        envoy = Envoy(tmp_path, certificate, list(daemons))
        stack.callback(envoy.stop)
        yield envoy, daemons


def handled(daemon):
    """Calls of Generate that the daemon has ended."""
    return sum(value for name, value in daemon.metrics().items()
               if name.startswith("grpc_server_handled_total") and "Generate" in name)


def where(stub, daemons, key, prompt="The"):
    """The daemon that answers a call with this affinity."""
    before = {address: handled(daemon) for address, daemon in daemons.items()}
    collect(stub.Generate(request(prompt, stop={"max_new_tokens": 1}), timeout=PATIENCE,
                          metadata=[("x-sluice-affinity", key)]))

    def found():
        return [address for address, daemon in daemons.items() if handled(daemon) > before[address]]

    return wait_until(found, "a daemon counts the call")[0]


def test_envoy_accepts_the_file(tmp_path, certificate):
    file = tmp_path / "envoy.yaml"
    file.write_text(with_certificate(certificate))
    done = subprocess.run([ENVOY, "--mode", "validate", "-c", file], capture_output=True, text=True, timeout=60)
    text = done.stdout + done.stderr
    assert done.returncode == 0 and "OK" in text, text
    assert "Deprecated" not in text, text


def test_affinity_and_drain(edge):
    envoy, daemons = edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        keys = [f"session-{i}" for i in range(24)]
        home = {key: where(stub, daemons, key) for key in keys}
        assert all(where(stub, daemons, key) == home[key] for key in keys)
        shares = [list(home.values()).count(address) for address in daemons]
        print(f"24 keys over 2 daemons: {shares}")
        assert min(shares) >= 4, shares

        # One daemon drains with a stream on it: the stream goes on, new calls of its keys go to the other daemon.
        leaving = home[keys[0]]
        staying = next(address for address in daemons if address != leaving)
        stream = stub.Generate(request("The", stop=ENDLESS), timeout=PATIENCE, metadata=[("x-sluice-affinity", keys[0])])
        next(stream)
        wait_until(lambda: daemons[leaving].metrics()["sluice_streams"] == 1, "the stream is on its daemon")
        daemons[leaving].send(signal.SIGTERM)
        wait_until(lambda: daemons[leaving].get("/readyz")[0] == 503, "the daemon drains")
        # Before Envoy's health check notices, UNAVAILABLE is retried on the other daemon.
        only = {staying: daemons[staying]}
        assert all(where(stub, only, key) == staying for key in keys)
        for _ in range(20):
            next(stream)
        wait_until(lambda: envoy.healthy() == 1, "Envoy sees the daemon leave")
        stream.cancel()
        assert daemons[leaving].wait() == 0

        # Its keys come home when it comes back, and no others move.
        daemons[leaving] = Daemon(f"--listen={leaving}")
        wait_until(lambda: envoy.healthy() == 2, "Envoy sees the daemon come back")
        assert {key: where(stub, daemons, key) for key in keys} == home


def test_a_killed_daemon_costs_no_new_call(edge):
    envoy, daemons = edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        victim, other = list(daemons)
        daemons[victim].kill()
        for i in range(24):
            assert where(stub, {other: daemons[other]}, f"session-{i}") == other


def test_only_the_api_passes(edge):
    envoy, daemons = edge
    with envoy.channel() as channel:
        for path in ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(path, lambda x: x, lambda x: x)(b"", timeout=PATIENCE)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_large_headers_stop_at_the_edge(edge):
    envoy, daemons = edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        before = sum(map(handled, daemons.values()))
        for metadata in ([("x-large", "a" * 20_000)], [(f"x-many-{i}", "a") for i in range(120)]):
            with pytest.raises(grpc.RpcError):
                collect(stub.Generate(request("The"), timeout=PATIENCE, metadata=metadata))
        assert sum(map(handled, daemons.values())) == before
        collect(stub.Generate(request("The", stop={"max_new_tokens": 1}), timeout=PATIENCE))


def test_streams_of_one_connection_are_bounded(edge):
    envoy, _ = edge
    peer, connection = envoy.raw()
    with peer:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            events = connection.receive_data(peer.recv(65536))
            if any(isinstance(event, h2.events.RemoteSettingsChanged) for event in events):
                break
        assert connection.remote_settings.max_concurrent_streams == 100


HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"),
           (":path", "/sluice.v1.InferenceService/Generate"), ("content-type", "application/grpc"), ("te", "trailers")]


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


def test_rapid_reset_ends_the_connection(edge):
    envoy, daemons = edge
    rss = {address: daemon.rss_kib() for address, daemon in daemons.items()}
    peer, connection = envoy.raw()
    sent = 0
    with peer:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(5000):
                stream = connection.get_next_available_stream_id()
                connection.send_headers(stream, HEADERS)
                connection.reset_stream(stream)
                peer.sendall(connection.data_to_send())
                sent += 1
        assert closed(peer)
    limit = RUNTIME["overload.premature_reset_total_stream_count"]
    opened = envoy.stat("http.grpc.downstream_rq_total")
    grown = max(daemons[address].rss_kib() - before for address, before in rss.items())
    print(f"rapid reset: cut off after {opened} streams of {sent} sent, daemons grew by {grown} KiB")
    assert limit / 2 <= opened <= limit
    assert envoy.stat("http.grpc.downstream_rq_too_many_premature_resets") == 1
    assert grown < 64 << 10


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def test_continuation_flood_ends_the_connection(edge):
    envoy, daemons = edge
    before = sum(map(handled, daemons.values()))
    peer, connection = envoy.raw()
    headers, continuation = 1, 9
    block = connection.encoder.encode(HEADERS)
    # A literal header field that is not indexed: name "x", value of 4,000 bytes.
    field = b"\x00\x01x\x7f" + bytes([(4000 - 127) & 0x7F | 0x80, (4000 - 127) >> 7]) + b"a" * 4000
    sent = 0
    with peer:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            peer.sendall(frame(headers, 0, 1, block))
            for _ in range(20_000):
                peer.sendall(frame(continuation, 0, 1, field))
                sent += len(field)
        assert closed(peer)
    print(f"CONTINUATION flood: cut off after {sent >> 10} KiB sent of 80,000")
    assert sent < 8 << 20
    assert sum(map(handled, daemons.values())) == before
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        collect(stub.Generate(request("The", stop={"max_new_tokens": 1}), timeout=PATIENCE))
