"""A peer that speaks raw HTTP/2 frames, well or badly. Blocking sockets, loopback only, no dependencies."""

import select
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
CANCEL = 8
GENERATE = "/sluice.v1.InferenceService/Generate"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    length, out = len(raw), b""
    if length < 127:
        return bytes([length]) + raw
    length -= 127
    while length >= 128:
        out += bytes([length % 128 + 128])
        length //= 128
    return b"\x7f" + out + bytes([length]) + raw


def header_block(headers):
    """HPACK: every field a literal without indexing, no Huffman code."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)


def call_headers(path=GENERATE, extra=()):
    return [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "fault"),
            ("content-type", "application/grpc"), ("te", "trailers"), *extra]


def message(request):
    raw = request.SerializeToString()
    return b"\x00" + struct.pack(">I", len(raw)) + raw


class Peer:
    """One connection. With window=0 the daemon may never send a byte of DATA."""

    def __init__(self, address, window=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.next_stream = 1
        self.received = b""
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, raw):
        self.socket.sendall(raw)

    def open(self, request, headers=None):
        """Sends a whole call; its stream's number."""
        stream = self.next_stream
        self.next_stream += 2
        block = header_block(headers or call_headers())
        self.send(frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message(request)))
        return stream

    def reset(self, stream):
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    def frames(self, patience=0.0):
        """What has come: (kind, flags, stream, payload). Answers pings and settings. Ends when nothing more comes for
        `patience` seconds; raises ConnectionError at the end of the connection."""
        while True:
            while len(self.received) >= 9:
                length = int.from_bytes(self.received[:3], "big")
                if len(self.received) < 9 + length:
                    break
                kind, flags = self.received[3], self.received[4]
                stream = int.from_bytes(self.received[5:9], "big") & 0x7FFFFFFF
                payload, self.received = self.received[9:9 + length], self.received[9 + length:]
                if kind == PING and not flags & ACK:
                    self.send(frame(PING, ACK, 0, payload))
                if kind == SETTINGS and not flags & ACK:
                    self.send(frame(SETTINGS, ACK, 0))
                yield kind, flags, stream, payload
            if not select.select([self.socket], [], [], patience)[0]:
                return
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the daemon closed the connection")
            self.received += data

    def close(self):
        self.socket.close()
