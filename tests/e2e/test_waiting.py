# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that have called and that nobody has accepted, when the listener moves: each is accepted at the destination, in the order of the queue, with what it has said before."""

import os
import subprocess
import textwrap

import pytest

from lab_driver import inside, popen, read, wait_until
from server_kinds import ADDRESS, EVERYWHERE, OUTSIDE, PYTHON, Client, Server, abandon, end_all

# Accepts nobody until it is told to by the name of a file; then everybody, at once, and answers each with its name and its place in the queue.
SERVER = """
    import os, select, socket, sys, time
    kind, n = sys.argv[2], int(sys.argv[3])
    listener = socket.socket(socket.AF_INET6 if kind == "6" else socket.AF_INET)
    listener.bind(("::" if kind == "6" else "0.0.0.0", int(sys.argv[1])))
    if kind == "defer":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listener.listen(n)
    print("listens", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.0005)
    listener.setblocking(False)
    if kind == "defer":
        listener.settimeout(10)
    for i in range(n):
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, TimeoutError):
            print(f"only {i} wait", flush=True)
            break
        connection.setblocking(True)
        words = b""
        while not words.endswith(b"."):
            more = connection.recv(65536)
            if not more:
                break
            words += more
        connection.sendall(b"%d %s %d" % (i, words[:8], len(words)))
        connection.shutdown(socket.SHUT_WR)
        assert not connection.recv(1)
    else:
        print("served", flush=True)
    time.sleep(1000)
"""

# Calls once for each word, says it as often as it is told to, and then asks for the answers. What is written "WORD-" is said before the move, "WORD" after it, "WORD=" in two parts.
CLIENT = """
    import os, socket, sys
    address, port, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    talks = []
    for word in sys.argv[4:]:
        s = socket.create_connection((address, port), 10)
        s.settimeout(20)
        text = word[:-1].encode() * times if word[-1] in "-=" else b""
        s.sendall(text)
        talks.append((s, word.encode() if word[-1] not in "-=" else b"", len(text)))
    print("waits", flush=True)
    sys.stdin.readline()
    for s, rest, said in talks:
        s.sendall(rest + b".")
        answer = b""
        while True:
            more = s.recv(100)
            if not more:
                break
            answer += more
        print(answer.decode(), said + len(rest) + 1, flush=True)
        s.close()
"""


@pytest.fixture
def queue(lab2):
    made = []

    def begin(kind, n):
        server = Server(lab2, "queue", None, [PYTHON, "server.py", "PORT", str(kind), str(n)], {"server.py": textwrap.dedent(SERVER), "client.py": textwrap.dedent(CLIENT)}, wait=False)
        made.append(server)
        wait_until("the server listens", lambda: "listens" in server.log())
        return server

    yield begin
    for server in made:
        server.end()


def call(server, host, times, *words, address=ADDRESS):
    client = popen(host, PYTHON, os.path.join(server.directory, "client.py"), address, str(server.port), str(times), *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdout.readline() == "waits\n"
    return client


def answers(client):
    out, _ = client.communicate("\n", timeout=30)
    return [line.split() for line in out.splitlines()]


def go_on(server):
    with open(os.path.join(server.directory, "go"), "w", encoding="ascii"):
        pass


@pytest.mark.parametrize("family, times", [(4, 1), (6, 3000)])
def test_nobody_is_lost(queue, family, times):
    """Clients outside, on hosts of the cluster and on the same host, that have said nothing, something, or much."""
    address = {4: ADDRESS, 6: "fd66::1"}[family]
    for i, host in enumerate(["n1", "n2", "n3", OUTSIDE]):
        inside(host, "ip", "addr", "replace", f"fd66::{i + 1}/64", "dev", "eth0", "nodad")
    hosts = [OUTSIDE, "n3", "n1", "n2"]
    server = queue(family, 3 * len(hosts) + 1)
    clients = [call(server, host, times, f"{host}a", f"{host}b-", f"{host}c-", address=address) for host in hosts]
    local = call(server, "n1", times, "loop-", address={4: "127.0.0.1", 6: "::1"}[family])
    for to in ("n2", "n3", "n1")[:3 if family == 4 else 1]:
        server.must_move(to)
    go_on(server)
    got = [answers(c) for c in clients] + [answers(local)]
    assert "served" in server.log(), server.log()
    places = [int(line[0]) for lines in got for line in lines]
    assert places == list(range(3 * len(hosts) + 1)), got
    for host, lines in zip(hosts, got):
        for letter, (_, name, read_, said) in zip("abc", lines):
            assert name.startswith(f"{host}{letter}") and read_ == said, got


@pytest.mark.parametrize("fault", ["dest:restore:kill", "source:go:kill", "dest:commit:kill", "dest:pull:kill", "source:push:kill"])
def test_a_move_that_is_disturbed(queue, whole_lab, fault):
    """Wherever the process is afterwards, its queue is there."""
    server = queue(4, 5)
    clients = [call(server, host, 100, f"{host}a-", *more) for host, more in ((OUTSIDE, ["x1b"]), ("n3", []), ("n1", ["n1b-"]))]
    at = "n1" if fault.startswith("source") else "n2"
    inside(at, "sh", "-c", f"echo {fault} >/run/godwit/fault")
    server.move("n2")
    inside(at, "rm", "-f", "/run/godwit/fault")
    go_on(server)
    wait_until(f"all are served: {server.log()}", lambda: "only" in server.log() or [answers(c) for c in clients])
    assert "only" not in server.log()


def test_answered_later(queue):
    """Who has called, and whose client has not acknowledged the answer as far as the listener is concerned: it waits for data (TCP_DEFER_ACCEPT)."""
    server = queue("defer", 3)
    clients = [call(server, host, 1, f"{host}a") for host in (OUTSIDE, "n3", "n1")]
    server.must_move("n2")
    go_on(server)
    assert all(len(answers(c)) == 1 for c in clients)
    assert "served" in server.log()


# Serves three, closing them first; then three more when it is told to.
TWICE = """
    import os, socket, sys, time
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    listener.bind(("0.0.0.0", int(sys.argv[1])))
    listener.listen(8)
    listener.settimeout(20)
    print("listens", flush=True)
    for i in range(6):
        while i == 3 and not os.path.exists("go"):
            time.sleep(0.001)
        with listener.accept()[0] as connection:
            connection.sendall(connection.recv(100)[::-1])
    print("served", flush=True)
    time.sleep(1000)
"""

# Calls from a port of its own.
FROM_A_PORT = """
    import socket, sys
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        s.bind(("", int(sys.argv[3])))
        s.settimeout(20)
        s.connect((sys.argv[1], int(sys.argv[2])))
        s.sendall(b"palindromes")
        print("waits", flush=True)
        sys.stdin.readline()
        print(s.recv(100), s.recv(100), flush=True)
"""


def test_a_port_that_was_used_before(lab2):
    """Clients use their ports again, and wait, while the listener is elsewhere; what their first connections have left where it comes back to is not in their way."""
    server = Server(lab2, "twice", None, [PYTHON, "server.py", "PORT"], {"server.py": textwrap.dedent(TWICE), "client.py": textwrap.dedent(FROM_A_PORT)}, wait=False)
    command = [PYTHON, os.path.join(server.directory, "client.py"), ADDRESS, str(server.port), str(server.port + 1)]
    try:
        wait_until("the server listens", lambda: "listens" in server.log())
        for then in ("n2", None):
            clients = [popen(host, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for host in (OUTSIDE, "n3", "n2")]
            assert all(c.stdout.readline() == "waits\n" for c in clients)
            if not then:
                server.must_move("n1")
                go_on(server)
            for c in clients:
                assert c.communicate("\n", timeout=40)[0] == "b'semordnilap' b''\n", server.log()
            if then:
                server.must_move(then)
        assert "served" in server.log()
    finally:
        server.end()


# Serves one connection after the other, and takes its time: there is always somebody in the queue.
BUSY = """
    import os, select, socket, sys, time
    mode, port = sys.argv[1], int(sys.argv[2])

    def listen():
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, 15, mode == "reuseport")  # SO_REUSE_PORT, spelled otherwise
        s.bind(("0.0.0.0", port))
        s.listen(64)
        return s

    def serve(connection):
        connection.setblocking(True)
        said = connection.recv(100)
        time.sleep(0.002)
        connection.sendall(said[::-1])
        connection.close()

    def serve_all(listener):
        while True:
            serve(listener.accept()[0])

    def serve_edges(listener):
        listener.setblocking(False)
        events = select.epoll()
        events.register(listener, select.EPOLLIN | select.EPOLLET)
        while True:
            events.poll()
            while True:
                try:
                    serve(listener.accept()[0])
                except BlockingIOError:
                    break

    listener = listen()
    print("listens", flush=True)
    if mode != "one" and os.fork() == 0 and mode == "reuseport":
        listener.close()
        listener = listen()
    (serve_edges if mode == "edges" else serve_all)(listener)
"""

# Many at a time call anew for each question.
CROWD = """
    import os, socket, sys, threading, time
    address, port, stop, n = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    asked, worst, wrong = [0] * n, [0] * n, []

    def ask(k):
        while not os.path.exists(stop) and not wrong:
            begun, connected = time.monotonic(), 0
            question = b"%d of %d" % (asked[k], k)
            try:
                with socket.create_connection((address, port), 20) as s:
                    connected = time.monotonic() - begun
                    s.settimeout(20)
                    s.sendall(question)
                    answer = b""
                    while len(answer) < len(question):
                        more = s.recv(100)
                        if not more:
                            break
                        answer += more
                if answer != question[::-1]:
                    raise ValueError(f"{answer} to {question}")
            except Exception as e:
                wrong.append(f"{type(e).__name__} {e} connected after {connected:.3f} s, {time.monotonic() - begun:.3f} s in all")
            asked[k] += 1
            worst[k] = max(worst[k], time.monotonic() - begun)

    threads = [threading.Thread(target=ask, args=[k]) for k in range(n)]
    [t.start() for t in threads]
    print("ready", flush=True)
    [t.join() for t in threads]
    print("wrong" if wrong else "ok", sum(asked), int(max(worst) * 1000), *wrong[:3])
    sys.exit(bool(wrong))
"""


@pytest.mark.parametrize("mode", ["one", "edges", "reuseport"])
def test_a_crowd_that_calls_anew(lab2, mode):
    server = Server(lab2, "busy", None, [PYTHON, "DIR/busy.py", mode, "PORT"], {"busy.py": textwrap.dedent(BUSY), "crowd.py": textwrap.dedent(CROWD)})
    clients = [Client(server, host, "crowd", [PYTHON, os.path.join(server.directory, "crowd.py"), "ADDRESS", "PORT", "STOP", "5"], "ready") for host in EVERYWHERE]
    try:
        for to in ("n2", "n3", "n1"):
            server.must_move(to)
            for c in clients:
                c.must_live(f"after {to}")
        for said in end_all(clients):
            worst_ms = int(said.split()[3])
            # A call that is lost is made again after a second.
            assert worst_ms < 900, said
    finally:
        abandon(clients)
        server.end()
