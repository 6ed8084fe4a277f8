# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of a redis-server that checks every answer until the file STOP is there. Usage: redis_talk.py ADDRESS PORT CONNECTIONS STOP [renew]

Each connection writes values and reads them again; with "renew" one in ten is given up and made anew, so that there are always new ones. Prints "ready", and at the end
one line: "ok ANSWERS WORST_MS", or what was wrong.
"""

import hashlib
import os
import socket
import sys
import time

NAME = os.urandom(8).hex().encode()
RENEW = sys.argv[5:] == ["renew"]


class Client:
    def __init__(self, address, port, number):
        self.address, self.port, self.number, self.rounds, self.buffer = address, port, number, 0, b""
        self.open()

    def open(self):
        self.socket = socket.create_connection((self.address, self.port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.names = self.socket.getsockname(), self.socket.getpeername()

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"connection {self.number} ended")
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, n):
        while len(self.buffer) < n + 2:
            self.more()
        value, self.buffer = self.buffer[:n], self.buffer[n + 2:]
        return value

    def ask(self, *words):
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.line()

    def step(self):
        key = b"%s:%d:%d" % (NAME, self.number, self.rounds % 100)
        value = hashlib.md5(b"%d:%d" % (self.number, self.rounds)).hexdigest().encode() * (1 + self.rounds % 300)
        answer = self.ask(b"SET", key, value)
        if answer != b"+OK":
            raise ValueError(f"SET: {answer!r}")
        answer = self.ask(b"GET", key)
        if answer != b"$%d" % len(value) or self.exactly(len(value)) != value:
            raise ValueError(f"GET: {answer!r}, or another value than was written")
        if (self.socket.getsockname(), self.socket.getpeername()) != self.names:
            raise ValueError("its addresses have changed")
        self.rounds += 1
        if RENEW and self.number % 10 == 9:
            self.socket.close()
            self.open()


def main():
    address, port, connections, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    clients = [Client(address, port, i) for i in range(connections)]
    print("ready", flush=True)
    answers, worst, last = 0, 0.0, time.monotonic()
    while not (answers and os.path.exists(stop)):
        for c in clients:
            c.step()
            now = time.monotonic()
            answers, worst, last = answers + 1, max(worst, now - last), now
    print(f"ok {answers} {worst * 1000:.1f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (OSError, EOFError, ValueError) as e:
        print(f"wrong: {type(e).__name__} {e}", flush=True)
        sys.exit(1)
