# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that move while clients on other hosts talk to them: no client sees an error or a wrong byte, also when the migration fails at some step."""

import os
import subprocess

import pytest

import server_kinds
from lab_driver import Movable, init_of, inside, main_daemon, popen, read, wait_until
from test_faults import LISTED, before_commit

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "redis_talk.py")
PORT = 6391


class Redis(Movable):
    """A redis-server that began on n1, and is where it is."""

    def __init__(self, lab_, port):
        self.lab, self.name, self.host, self.port = lab_, "redis", "n1", port
        self.directory = lab_.directory("redis")
        inside("n1", "setsid", "-f", "sh", "-c", 'cd / && echo $$ >"$0/pid" && exec redis-server --port "$1" --save "" --protected-mode no --dir "$0" >"$0/log" 2>&1',
               self.directory, str(port))
        self.pid = int(wait_until("the server's number", lambda: read(os.path.join(self.directory, "pid")).strip()))
        wait_until("the server listens", lambda: "Ready to accept" in read(os.path.join(self.directory, "log")), 20)


class Talk:
    """A client that checks every answer; on any host."""

    def __init__(self, lab_, host, port, connections=10, address="10.66.0.1"):
        self.host, self.stop = host, os.path.join(lab_.directory("talk"), "stop")
        self.process = popen(host, "/usr/bin/python3", CLIENT, address, str(port), str(connections), self.stop, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        first = self.process.stdout.readline()
        assert first == "ready\n", f"the client on {host}: {first}{self.process.stdout.read()}"

    def alive(self):
        return self.process.poll() is None

    def end(self):
        with open(self.stop, "w", encoding="ascii"):
            pass
        out, _ = self.process.communicate(timeout=60)
        assert out.startswith("ok "), f"the client on {self.host}: {out}"
        return int(out.split()[1])


@pytest.mark.parametrize("strategy", ["freeze-free", "pre-copy", "stop-copy"])
def test_redis_clients_everywhere(lab2, strategy):
    """Clients outside, on a host that only watches, on the source and on the destination; away, on, and home again."""
    server = Redis(lab2, PORT)
    talks = [Talk(lab2, host, PORT) for host in ("x1", "n3", "n1", "n2")]
    for to in ("n2", "n3", "n1", "n2", "n1"):
        server.must_move(to, strategy=strategy)
        for t in talks:
            assert t.alive(), f"after {to}: the client on {t.host}: {t.process.stdout.read()}"
    more = [Talk(lab2, host, PORT, 3) for host in ("x1", "n3", "n1", "n2")]
    assert all(t.end() > 0 for t in talks + more)


def test_new_clients_find_it(lab2):
    """Those who come after it has left still call the old address."""
    server = Redis(lab2, PORT + 1)
    server.must_move("n2")
    talks = [Talk(lab2, host, PORT + 1, 5) for host in ("x1", "n3", "n1", "n2")]
    server.must_move("n3")
    talks += [Talk(lab2, host, PORT + 1, 5) for host in ("x1", "n3", "n1", "n2")]
    assert all(t.end() > 0 for t in talks)


def test_refuse_and_close(lab2):
    server = Redis(lab2, PORT + 2)
    talk = Talk(lab2, "x1", PORT + 2, 1)
    refused = server.move("n2", "--tcp=refuse")
    assert refused.status == 3 and "10.66.0.101" in str(refused.json["refusals"]), refused.why()
    assert talk.alive()
    server.must_move("n2", "--tcp=close")
    out, _ = talk.process.communicate(timeout=60)
    assert out.startswith("wrong: "), out
    assert Talk(lab2, "x1", PORT + 2, 1).end() > 0


@pytest.mark.parametrize("kind", ["memcached", "node", "ssh", "iperf3"])
def test_server_goes_round(lab2, kind):
    """Away, on, and home again, with clients outside, at the source, at the destination and elsewhere. `./dev soak` does this for longer, and with more kinds."""
    server, clients = server_kinds.KINDS[kind](lab2), []
    try:
        for host in server_kinds.EVERYWHERE:
            clients += server.clients(host)
        for to in ("n2", "n3", "n1"):
            server.must_move(to)
            for c in clients:
                c.must_live(f"after the move to {to}")
        server_kinds.end_all(clients)
        server.check(clients)
    finally:
        server_kinds.abandon(clients)
        server.end()


def test_database_with_io_uring(lab2):
    """Away and home again, while InnoDB reads and writes by io_uring."""
    server, clients = server_kinds.Mariadb(lab2), []
    try:
        clients = server.clients("x1")
        for to in ("n2", "n1"):
            server.must_move(to)
            for c in clients:
                c.must_live(f"after the move to {to}")
        server_kinds.end_all(clients)
        server.check(clients)
    finally:
        server_kinds.abandon(clients)
        server.end()


def test_download(lab2):
    """A file on its way, to a host outside and to one that the server comes to."""
    server, clients = server_kinds.Download(lab2, mib=160), []
    try:
        clients = [*server.clients("x1"), *server.clients("n2")]
        for to in ("n2", "n3", "n1"):
            server.must_move(to)
        server_kinds.end_all(clients)
    finally:
        server_kinds.abandon(clients)
        server.end()


STEPS = [(side, step, action) for side, step, _ in LISTED for action in ("kill", "error", "killall") if before_commit(side, step)]


@pytest.fixture(scope="module")
def disturbed(whole_lab):
    whole_lab.mend()
    server = Redis(whole_lab, PORT + 3)
    yield server, [Talk(whole_lab, host, PORT + 3, 4) for host in ("x1", "n3", "n1")]


@pytest.mark.parametrize("side,step,action", STEPS, ids=["-".join(s) for s in STEPS])
def test_fault_with_clients(disturbed, whole_lab, side, step, action):
    """Before the commit any failure leaves the clients with the source's copy."""
    server, talks = disturbed
    host = {"source": "n1", "dest": "n2"}[side]
    for t in talks:
        assert t.alive(), f"before this case: the client on {t.host}: {t.process.stdout.read()}"
    inside(host, "sh", "-c", f"echo {side}:{step}:{action} >/run/godwit/fault")
    result = server.move("n2")
    inside(host, "rm", "-f", "/run/godwit/fault")
    for h in ("n1", "n2"):
        if init_of(h) and not main_daemon(h):
            whole_lab.restart_daemon(h)
    assert result.status != 0, "it moved"
    check = Talk(whole_lab, "x1", PORT + 3, 2)
    assert check.end() > 0
    for t in talks:
        assert t.alive(), f"the client on {t.host}: {t.process.stdout.read()}"
    if (side, step, action) == STEPS[-1]:
        server.must_move("n2")
        assert all(t.end() > 0 for t in talks)
