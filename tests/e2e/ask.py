# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that checks every answer until the file STOP is there. Usage: ask.py PROTOCOL ADDRESS PORT CONNECTIONS STOP [renew]

PROTOCOL: http (GET /v/N, whose answer is a function of N), memcached, websocket (echoes). With "renew" each request has a connection of its own.
Prints "ready", and at the end one line: "ok ANSWERS WORST_MS", or what was wrong.
"""

import base64
import hashlib
import os
import socket
import sys
import time


def value(n):
    """What there is at /v/N: 32 bytes to 9.6 KB."""
    return hashlib.md5(b"%d" % n).hexdigest().encode() * (1 + n * 37 % 300)


class Client:
    """One connection; what is read in advance stays in the buffer."""

    def __init__(self, address, port, number):
        self.address, self.port, self.number, self.rounds = address, port, number, 0
        self.open()

    def open(self):
        self.buffer = b""
        self.socket = socket.create_connection((self.address, self.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.names = self.socket.getsockname(), self.socket.getpeername()
        self.greet()

    def greet(self):
        pass

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"connection {self.number} ended in round {self.rounds}, after {self.buffer[:80]!r}")
        self.buffer += data

    def until(self, end):
        while end not in self.buffer:
            self.more()
        found, self.buffer = self.buffer.split(end, 1)
        return found

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        found, self.buffer = self.buffer[:n], self.buffer[n:]
        return found

    def must(self, right, what):
        if not right:
            raise ValueError(f"connection {self.number}, round {self.rounds}: {what}")

    def step(self, renew):
        self.ask(self.number * 100003 + self.rounds)
        self.must((self.socket.getsockname(), self.socket.getpeername()) == self.names, "its addresses have changed")
        self.rounds += 1
        if renew:
            self.socket.close()
            self.open()


class Http(Client):
    def ask(self, n):
        n %= 100
        self.socket.sendall(b"GET /v/%d HTTP/1.1\r\nHost: it\r\n\r\n" % n)
        head = self.until(b"\r\n\r\n").split(b"\r\n")
        self.must(head[0].split()[1:2] == [b"200"], head[0])
        fields = dict(line.lower().split(b":", 1) for line in head[1:])
        self.must(self.body(fields) == value(n), f"/v/{n}: another body")

    def body(self, fields):
        if fields.get(b"transfer-encoding", b"").strip() != b"chunked":
            return self.exactly(int(fields[b"content-length"]))
        parts = []
        while True:
            n = int(self.until(b"\r\n"), 16)
            parts.append(self.exactly(n))
            self.until(b"\r\n")
            if n == 0:
                return b"".join(parts)


class Memcached(Client):
    def ask(self, n):
        key, data = b"%s:%d:%d" % (NAME, self.number, n % 50), value(n)
        self.socket.sendall(b"set %s 7 0 %d\r\n%s\r\n" % (key, len(data), data))
        answer = self.until(b"\r\n")
        self.must(answer == b"STORED", answer)
        self.socket.sendall(b"get %s\r\n" % key)
        answer = self.until(b"\r\n")
        self.must(answer == b"VALUE %s 7 %d" % (key, len(data)), answer)
        self.must(self.exactly(len(data) + 7) == data + b"\r\nEND\r\n", "another value")


class WebSocket(Client):
    def greet(self):
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: it\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
                            % base64.b64encode(os.urandom(16)))
        answer = self.until(b"\r\n\r\n")
        self.must(b" 101 " in answer, answer)

    def ask(self, n):
        data, mask = value(n % 100), os.urandom(4)
        masked = (int.from_bytes(data, "big") ^ int.from_bytes((mask * (len(data) // 4 + 1))[:len(data)], "big")).to_bytes(len(data), "big")
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self.socket.sendall(b"\x82" + size + mask + masked)
        head = self.exactly(2)
        length = head[1] if head[1] < 126 else int.from_bytes(self.exactly(2), "big")
        self.must(head[0] == 0x82 and self.exactly(length) == data, "another echo")


PROTOCOLS = {"http": Http, "memcached": Memcached, "websocket": WebSocket}
NAME = os.urandom(8).hex().encode()


def main():
    protocol, address, port, connections, stop = PROTOCOLS[sys.argv[1]], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    renew = sys.argv[6:] == ["renew"]
    clients = [protocol(address, port, i) for i in range(connections)]
    print("ready", flush=True)
    answers, worst, last = 0, 0.0, time.monotonic()
    while not (answers and os.path.exists(stop)):
        for c in clients:
            c.step(renew)
            now = time.monotonic()
            answers, worst, last = answers + 1, max(worst, now - last), now
    print(f"ok {answers} {worst * 1000:.1f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (OSError, EOFError, ValueError, KeyError, IndexError) as e:
        print(f"wrong: {type(e).__name__} {e}", flush=True)
        sys.exit(1)
