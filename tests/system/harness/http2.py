# SPDX-License-Identifier: Apache-2.0
"""The least HTTP/2 that it takes to misbehave: frames by hand over a plain socket."""
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags, stream, payload=b"", length=None):
    """length: lies about the payload's."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """HPACK, literal without indexing, no Huffman code; both shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(path, *more, method=b"POST"):
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
              (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    return b"".join(field(n, v) for n, v in fields)


def window(stream, bytes_more=0x7fff0000):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", bytes_more))


def setting(number, value):
    return struct.pack(">HI", number, value)


def message(data, length=None, flag=0):
    """gRPC's frame around one message."""
    return struct.pack(">BI", flag, len(data) if length is None else length) + data


def frames(data):
    """The complete ones: (kind, stream)."""
    found = []
    while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
        found.append((data[3], int.from_bytes(data[5:9], "big") & 0x7fffffff))
        data = data[end:]
    return found


class Connection:
    def __init__(self, host, port, seconds=10):
        self.socket = socket.create_connection((host, port), seconds)
        self.socket.settimeout(seconds)

    def greet(self, settings=b""):
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        """False: the other side has closed."""
        try:
            self.socket.sendall(data)
            return True
        except (ConnectionError, socket.timeout):
            return False

    def read_until_close(self, seconds, enough=lambda data: False):
        """What arrives until the other side closes, there is enough of it, or the time is over: (data, closed)."""
        end, data = time.monotonic() + seconds, b""
        while not enough(data) and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                break
            except ConnectionError:
                return data, True
            if not more:
                return data, True
            data += more
        return data, False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
