# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that are used all the time move with the settings that they have in the freeze, whether those are the offer's or have been changed since."""

import os
import signal

import pytest

from lab_driver import inside, kill, migrate, processes, read, wait_until

PORT = 7190
CONNECTIONS = 40
PYTHON = ["/usr/bin/python3", "-I"]

# Answers each number; all settings of a connection are looked at before one of them is changed. Every third connection is left as it is, another third gets one more option each time.
SERVER = r'''
import selectors, socket, struct, sys
TCP, SOL = socket.IPPROTO_TCP, socket.SOL_SOCKET
KEPT = ((TCP, socket.TCP_NODELAY), (TCP, socket.TCP_KEEPIDLE), (TCP, socket.TCP_KEEPCNT), (TCP, socket.TCP_USER_TIMEOUT), (SOL, socket.SO_PRIORITY), (SOL, socket.SO_KEEPALIVE),
        (SOL, socket.SO_SNDBUF), (SOL, socket.SO_RCVLOWAT), (TCP, socket.TCP_CORK), (socket.IPPROTO_IP, socket.IP_TOS))
CHANGED = ((TCP, socket.TCP_KEEPIDLE, lambda n: 50 + n % 1000), (SOL, socket.SO_PRIORITY, lambda n: n % 6), (TCP, socket.TCP_USER_TIMEOUT, lambda n: 60000 + n % 1000),
           (TCP, socket.TCP_NODELAY, lambda n: n % 2), (socket.IPPROTO_IP, socket.IP_TOS, lambda n: n % 8 << 2))
now = lambda c: [c.getsockopt(*o) for o in KEPT]
listener, ready = socket.create_server(("", int(sys.argv[1]))), selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
known, wrong = {}, b"ok  "
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            c = listener.accept()[0]
            c.setsockopt(TCP, socket.TCP_NODELAY, 1)
            c.setsockopt(SOL, socket.SO_SNDBUF, 40000 + 1000 * len(known))
            ready.register(c, selectors.EVENT_READ)
            known[c.fileno()] = now(c)
            continue
        c, data = key.fileobj, key.fileobj.recv(8)
        if not data:
            ready.unregister(c)
            c.close()
            continue
        n, who = struct.unpack("<II", data)
        if known[c.fileno()] != now(c):
            print("WRONG", known[c.fileno()], now(c), flush=True)
            wrong = b"BAD "
        if who % 3:
            level, option, value = CHANGED[n % len(CHANGED)]
            if who % 3 == 1 or n % 50 == 0:
                c.setsockopt(level, option, value(n))
            known[c.fileno()] = now(c)
        c.sendall(data + wrong)
'''

CLIENT = r'''
import selectors, socket, struct, sys
ready, asked = selectors.DefaultSelector(), {}
def ask(c, i, n):
    asked[c] = (i, n)
    c.sendall(struct.pack("<II", n, i))
for i in range(int(sys.argv[2])):
    c = socket.create_connection(("10.66.0.1", int(sys.argv[1])))
    ready.register(c, selectors.EVENT_READ)
    ask(c, i, 0)
while True:
    for key, _ in ready.select():
        c = key.fileobj
        i, n = asked[c]
        data = c.recv(100)
        if data != struct.pack("<II", n, i) + b"ok  ":
            print("WRONG", i, n, data, flush=True)
            sys.exit(1)
        if i == 0 and n % 200 == 0:
            print(n, flush=True)
        ask(c, i, n + 1)
'''


class Script:
    def __init__(self, lab_, host, script, *arguments):
        self.host, self.command, self.out = host, [*PYTHON, "-c", script, *arguments], os.path.join(lab_.directory("settings"), "out")
        inside(host, "setsid", "-f", "sh", "-c", f'exec "$0" "$@" </dev/null >{self.out} 2>&1', *self.command)
        wait_until("it begins", self.process)

    def process(self):
        return next((p for p in processes(self.host) if p.cmdline == " ".join(self.command) and p.state != "Z"), None)

    def lines(self):
        return read(self.out).splitlines()


@pytest.mark.parametrize("moves", [("n2", "n3", "n1")])
def test_settings_that_change_under_way(lab2, moves):
    server = Script(lab2, "n1", SERVER, str(PORT))
    wait_until("it listens", lambda: f":{PORT} " in inside("n1", "ss", "-ltn").stdout)
    client = Script(lab2, "x1", CLIENT, str(PORT), str(CONNECTIONS))
    try:
        for to in moves:
            before = len(client.lines())
            wait_until("it is answered", lambda n=before: len(client.lines()) > n or not client.process(), 30)
            moved = migrate(server.host, server.process().host_pid, to)
            assert moved.status == 0, moved.why()
            server.host = to
        before = len(client.lines())
        wait_until("it is answered", lambda n=before: len(client.lines()) > n or not client.process(), 30)
        assert client.process() and server.process(), f"{server.lines()} {client.lines()[-3:]}"
        assert not any("WRONG" in line for line in [*server.lines(), *client.lines()]), server.lines()
    finally:
        for s in (client, server):
            if s.process():
                kill(s.process().pid, signal.SIGKILL)
