# SPDX-License-Identifier: GPL-2.0-or-later
"""A server moves while clients talk to it that compare every byte: on a host without Godwit, on the host that it leaves, on the one it comes to, on a third one."""

import glob
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from lab_driver import CHECK_FILE, VICTIMS, Victim, inside, kill, lab, main_daemon, migrate, popen, processes, read, wait_until

TALK = os.path.join(VICTIMS, "talk")
OUTSIDE = "x1"
NODES = ["n1", "n2", "n3"]
ADDRESSES = {4: "10.66.0.1", 6: "fd66::1"}
EVERY = {4: "0.0.0.0", 6: "::"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ports = itertools.count(7100)
names = itertools.count(1)


class Talk:
    """One talk process, wherever it is."""

    def __init__(self, lab_, host, mode, address, port, connections=1):
        self.host, self.command = host, [TALK, mode, address, str(port), str(connections), f"talk{next(names)}"]
        self.out = os.path.join(lab_.directory("talk"), "out")
        inside(host, "setsid", "-f", "sh", "-c", f'exec "$0" "$@" </dev/null >{self.out} 2>&1', *self.command)
        wait_until(f"{self} begins", lambda: self.lines() and self.lines()[-1].split(":")[0] in ("listens", "talks", "WRONG") or self.command[1] == "call" and self.lines())

    def __repr__(self):
        return f"{self.command[1]} {self.command[2]} on {self.host}"

    def lines(self):
        return read(self.out).splitlines()

    def process(self):
        return next((p for p in processes(self.host) if p.cmdline == " ".join(self.command) and p.state != "Z"), None)

    def ask(self, number=signal.SIGUSR1):
        """What it says next: the bytes that have come, and the longest silence since it was asked last, in us."""
        before, p = len(self.lines()), self.process()
        if p:
            kill(p.pid, number)
            wait_until(f"{self} says something", lambda: len(self.lines()) > before or not self.process(), 30)
        last = self.lines()[-1] if self.lines() else ""
        assert p and not any(line.startswith("WRONG") for line in self.lines()), f"{self}: {self.lines()}"
        words = last.replace(",", "").split()
        return int(words[words.index("bytes") - 1]), int(words[words.index("silence") + 1])

    def goes_on(self):
        """It hears something new, and says how long it had heard nothing."""
        first, silence = self.ask()
        wait_until(f"{self} hears something", lambda: self.ask()[0] > first, 30, 0.1)
        return silence

    def ends_well(self):
        self.ask(signal.SIGTERM)
        wait_until(f"{self} ends", lambda: not self.process(), 30)
        assert self.lines()[-1].startswith("done"), f"{self}: {self.lines()}"

    def move(self, to, **options):
        p = self.process()
        assert p, f"{self} has ended: {self.lines()}"
        moved = migrate(self.host, p.host_pid, to, **options)
        assert moved.status == 0, f"{self} to {to}: {moved.why()}; {self.lines()[-3:]}"
        self.host = to
        return moved


@pytest.fixture
def hosts(lab2):
    """The lab, with addresses of IPv6, and nothing left of the test on the host outside."""
    for i, host in enumerate([*NODES, OUTSIDE]):
        inside(host, "ip", "addr", "replace", f"fd66::{i + 1}/64", "dev", "eth0", "nodad")
    yield lab2
    for p in processes(OUTSIDE):
        if p.cmdline.startswith(TALK):
            kill(p.pid, signal.SIGKILL)


def begin(lab_, mode, family=4, clients=(OUTSIDE, *NODES), local=True):
    port = next(ports)
    server = Talk(lab_, "n1", "serve", EVERY[family], port)
    talks = [Talk(lab_, host, mode, ADDRESSES[family], port) for host in clients]
    if local:
        talks.append(Talk(lab_, "n1", mode, LOOPBACK[family], port))
    return server, talks


def all_go_on(server, clients):
    silences = {str(c): c.goes_on() for c in clients}
    print(f"at {server.host}: " + ", ".join(f"{who}: {us} us" for who, us in silences.items()))


def end(server, clients):
    for client in clients:
        client.ends_well()
    server.ends_well()


def connections(host):
    return json.loads(inside(host, "godwit", "connections", "--json").stdout)["connections"]


@pytest.mark.parametrize("mode, family", [("echo", 4), ("bulk", 6), ("tick", 4)])
def test_clients_everywhere(hosts, mode, family):
    server, clients = begin(hosts, mode, family)
    for to in ("n2", "n3", "n1"):
        server.move(to)
        all_go_on(server, clients)
    server.move("n2")
    # Those that call the first address, anywhere, get there as well.
    more = [Talk(hosts, host, mode, ADDRESSES[family], server.command[3], 2) for host in (OUTSIDE, *NODES)]
    server.move("n3")
    all_go_on(server, [*clients, *more])
    end(server, [*clients, *more])


def timeouts(host):
    lines = inside(host, "cat", "/proc/net/netstat").stdout.splitlines()
    return next(dict(zip(a.split(), b.split()))["TCPTimeouts"] for a, b in zip(lines[::2], lines[1::2]) if a.startswith("TcpExt:"))


def test_nobody_waits_for_a_retransmission(hosts):
    """As much as goes both ways, also when the server comes home again: what peers send meanwhile to the host that it has left gets to it, and in order."""
    server, clients = begin(hosts, "bulk", clients=(OUTSIDE, "n3"), local=False)
    seen = []
    for to in ("n2", "n1") * 4:
        before = [timeouts(host) for host in (OUTSIDE, *NODES)]
        freeze_us = server.move(to).json["freeze_us"]
        all_go_on(server, clients)
        seen.append((freeze_us, before, [timeouts(host) for host in (OUTSIDE, *NODES)]))
        # No peer waits less than 200 ms: a freeze that comes near to that was made longer by what else the machine has to do.
        if sum(freeze_us < 100000 for freeze_us, *_ in seen) == 4:
            break
    judged = [move for move in seen if move[0] < 100000]
    # One may have: a client, or the host between, has its turns on a busy machine, too.
    assert judged and sum(before != after for _, before, after in judged) <= len(judged) // 4, seen
    end(server, clients)


def test_both_ends_at_the_same_time(hosts):
    server, clients = begin(hosts, "echo", clients=("n3", "n2"), local=False)
    roaming = clients[0]
    for to in (("n2", "n1"), ("n3", "n2"), ("n1", "n3")):
        errors = []

        def move(who, where):
            try:
                who.move(where)
            except AssertionError as e:
                errors.append(e)

        threads = [threading.Thread(target=move, args=pair) for pair in zip((server, roaming), to)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors, errors
        all_go_on(server, clients)
    end(server, clients)


BOTH = """
import os, socket, sys, time
status, address, family = sys.argv[1], sys.argv[2], socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET
with socket.create_server((address, 0), family=family) as listener:
    pairs = []
    for i in range(6):
        client = socket.create_connection(listener.getsockname()[:2])
        pairs.append((client, listener.accept()[0]) if i % 2 else (listener.accept()[0], client))
for s in sum(pairs, ()):
    s.settimeout(20)

def say(text):
    with open(status, 'a') as f:
        f.write(text + '\\n')

def exchange(pair, n):
    for a, b in (pair, pair[::-1]):
        a.sendall(b'%08d' % n)
        got = b.recv(8, socket.MSG_WAITALL)
        assert got == b'%08d' % n, (n, got)

def ends(a, b):
    assert b.recv(8) == b'', 'not the end'

try:
    say('ready %d' % os.getpid())
    n = 0
    while not os.path.exists(status + '.check'):
        for pair in pairs[:2]:
            exchange(pair, n)
        n += 1
        time.sleep(0.0005)
    for pair in pairs:
        exchange(pair, n)
    for a, b in pairs[:3]:
        a.shutdown(socket.SHUT_WR)
        ends(a, b)
        b.sendall(b'last')
        assert a.recv(4, socket.MSG_WAITALL) == b'last'
    for a, b in pairs[3:]:
        a.close()
        ends(a, b)
    say('ok')
except BaseException as e:
    say(f'FAIL {type(e).__name__} {e}')
"""


@pytest.mark.parametrize("address", ["10.66.0.1", "fd66::1"])
def test_both_ends_in_one_unit(hosts, address):
    """A program that talks to itself by the host's address: a rank of MPI, a server and its tool."""
    v = Victim(hosts, "both", command=["/usr/bin/python3", "-c", BOTH, "STATUS", address], flags=CHECK_FILE, expect_move=False).wait_ready()
    for to in ("n2", "n1", "n2", "n3"):
        v.migrate(to)
    v.assert_ok()
    v.clean()


SHARED = """import os, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b'e' + bytes((i * 167 + (i >> 8) * 13) % 256 for i in range(64)))
os.set_inheritable(s.fileno(), True)
if not os.fork():
    os.execvpe('sleep', ['sleep', '66.75'], {**os.environ, 'ITS_SOCKET': str(s.fileno())} if sys.argv[3] == 'told' else os.environ)
sys.stdin.readline()
got = s.recv(64, socket.MSG_WAITALL)
print('ok' if got == bytes((i * 167 + (i >> 8) * 13) % 256 for i in range(64)) else got, flush=True)
sys.stdin.read()"""


@pytest.mark.parametrize("told", ["told", "untold"])
def test_a_connection_that_another_process_has(hosts, told):
    """It cannot be in two places. Who has it without knowing, left open by who started it, goes without it."""
    port = next(ports)
    server = Talk(hosts, OUTSIDE, "serve", EVERY[4], port)
    parent = popen("n1", "/usr/bin/python3", "-c", SHARED, "10.66.0.101", str(port), told, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child = wait_until("the child", lambda: next((p for p in processes("n1") if p.cmdline == "sleep 66.75"), None), 20)
    alone = migrate("n1", child.host_pid, "n2")
    if told == "told":
        assert alone.status == 3 and "has this connection open, too" in str(alone.json["refusals"]), alone.why()
    else:
        assert alone.status == 0 and "stays with it" in str(alone.json["notes"]), alone.text
        moved = next(p for p in processes("n2") if p.cmdline == "sleep 66.75")
        again = migrate("n2", moved.host_pid, "n1")
        assert again.status == 0, again.why()
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "ok\n"
    parent.stdin.close()
    parent.wait(20)
    for host in NODES:
        for p in processes(host):
            if p.cmdline == "sleep 66.75":
                kill(p.pid, signal.SIGKILL)
    server.ends_well()


def knows(host, port, node):
    """Whether a host sends directly to the node what goes to the server's port."""
    return [c for c in connections(host) if c["address"].endswith(f":{port}") and c["on"] == node and c["state"] in ("here", "there")]


def test_a_former_host_dies(hosts):
    """Those that run Godwit do not need it, neither for what there is nor for new connections."""
    server, clients = begin(hosts, "echo", clients=("n2", "n3"), local=False)
    server.move("n2")
    port = server.command[3]
    wait_until("n3 has heard", lambda: len(knows("n3", port, "n2")) >= 2, 60)
    lab("kill", "n1")
    all_go_on(server, clients)
    more = [Talk(hosts, host, "echo", ADDRESSES[4], port) for host in ("n2", "n3")]
    server.move("n3")
    all_go_on(server, [*clients, *more])
    end(server, [*clients, *more])


ATTACHED = """
import ctypes, struct
ids = (ctypes.c_uint32 * 64)()
query = ctypes.create_string_buffer(struct.pack("=4IQ2I4Q", 1, 47, 0, 0, ctypes.addressof(ids), 64, 0, 0, 0, 0, 0))
assert ctypes.CDLL(None).syscall(321, 16, query, len(query.raw) - 1) == 0
print([i for i in ids if i])
"""             # BPF_PROG_QUERY of what the loopback device sends (tcx)


def maps_of(program):
    shown = inside("n1", "bpftool", "-j", "prog", "show", "id", str(program), check=False)
    return tuple(sorted(json.loads(shown.stdout).get("map_ids", []))) if shown.returncode == 0 else ()


def is_prepared(host):
    """Whether godwitd holds programs that belong to the table of its host: no move loads any."""
    attached = {maps_of(p) for p in json.loads(inside(host, "/usr/bin/python3", "-c", ATTACHED).stdout)}
    held = [int(n) for name in glob.glob(f"/proc/{main_daemon(host).pid}/fdinfo/*") for n in re.findall(r"^prog_id:\s*(\d+)", read(name), re.M)]
    return bool(attached & {maps_of(p) for p in held} - {()})


def test_daemons_restart(hosts):
    """What is redirected is the kernel's, and read back."""
    server, clients = begin(hosts, "echo")
    server.move("n2")
    port = server.command[3]

    def listed(host):
        return {(c["address"], c["peer"], c["on"]) for c in connections(host) if c["address"].endswith(f":{port}")}

    before = {host: listed(host) for host in ("n1", "n2")}
    assert len(before["n2"]) >= 5
    for host in NODES:
        hosts.restart_daemon(host)
    for host in ("n1", "n2"):
        assert before[host] <= listed(host)
        wait_until(f"{host} has the programs prepared", lambda h=host: is_prepared(h), 30, 0.2)
    all_go_on(server, clients)
    server.move("n3")
    all_go_on(server, clients)
    end(server, clients)


IDLE = """
import socket, sys
calls, sent = [], {}
for i in range(20):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, i % 2)
    s.send(b"e")
    calls.append(s)
print("ready", flush=True)
for line in sys.stdin:
    for s in calls:
        s.settimeout(20)
        at = sent.get(s, 0)
        data = bytes((i * 167 + (i >> 8) * 13) % 256 for i in range(at, at + 64))
        s.sendall(data)
        got = s.recv(64, socket.MSG_WAITALL)
        assert got == data, (at, got)
        sent[s] = at + 64
    print("ok", flush=True)
"""


class Idle:
    """Connections that say nothing until they are asked to."""

    def __init__(self, host, port):
        self.process = popen(host, "/usr/bin/python3", "-c", IDLE, ADDRESSES[4], str(port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout.readline() == "ready\n"

    def speak(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line == "ok\n", line + self.process.stdout.read()

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0


@pytest.mark.parametrize("fault", ["dest:rounds:error", "dest:restore:kill", "dest:restore:killall", "source:freeze:kill"])
def test_idle_ones_hear_nothing_of_a_move_that_fails(hosts, fault):
    """At the destination they live before the freeze already: they must not end when it is given up, neither at once nor by a retransmission later."""
    port = next(ports)
    server = Talk(hosts, "n1", "serve", EVERY[4], port)
    idle = [Idle(host, port) for host in (OUTSIDE, "n3", "n2")]
    at = "n1" if fault.startswith("source") else "n2"
    inside(at, "sh", "-c", f"echo {fault} >/run/godwit/fault")
    assert migrate("n1", server.process().host_pid, "n2").status not in (0, 99)
    inside(at, "rm", "-f", "/run/godwit/fault")
    for host in NODES:
        if not main_daemon(host):
            hosts.restart_daemon(host)
    wait_until("the destination has given the move up", lambda: not any(c["address"].endswith(f":{port}") for c in connections("n2")), 60)
    # What a socket that has been closed says again it says within this time, if at all.
    end = time.monotonic() + 3
    wait_until("a while has passed", lambda: time.monotonic() > end)
    for i in idle:
        i.speak()
    server.move("n2")
    for i in idle:
        i.speak()
        i.end()
    server.ends_well()


# Connections that speak now and then, some in each moment: told to the destination again and again before the freeze. Options of the server's ends would show in what arrives.
NOW_AND_THEN = """
import select, socket, sys, time
n = int(sys.argv[3])
calls = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for i in range(n)]
sent = [0] * n
for s in calls:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.settimeout(20)
    s.send(b"e")
print("ready", flush=True)
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for i in range(rounds % 7, n, 7):
        data = bytes((k * 167 + (k >> 8) * 13) % 256 for k in range(sent[i], sent[i] + 64))
        calls[i].sendall(data)
        got = calls[i].recv(64, socket.MSG_WAITALL)
        assert got == data, (i, sent[i], got)
        sent[i] += 64
        time.sleep(0.001)
    rounds += 1
assert min(sent) > 0, sent
print("done", sum(sent), flush=True)
"""


def told_ahead(hosts, host):
    """How many connections have been told again by migrations from there."""
    return sum(int(line.split(" n=")[1].split()[0]) for line in read(hosts.log(host)).splitlines() if "event=connections-ahead " in line)


def test_used_now_and_then(hosts):
    server = Talk(hosts, "n1", "serve", EVERY[4], next(ports))
    clients = [popen(host, "/usr/bin/python3", "-c", NOW_AND_THEN, ADDRESSES[4], server.command[3], "100", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
               for host in (OUTSIDE, "n3", "n2")]
    assert all(c.stdout.readline() == "ready\n" for c in clients)
    for to in ("n2", "n3", "n1", "n2"):
        before = told_ahead(hosts, server.host)
        was = server.host
        server.move(to)
        assert told_ahead(hosts, was) > before, "none was told ahead"
        assert all(c.poll() is None for c in clients)
    for c in clients:
        out = c.communicate("\n", timeout=60)[0]
        assert c.returncode == 0 and out.startswith("done"), out
    server.ends_well()


@pytest.mark.parametrize("fault", ["dest:restore:kill", "source:freeze:kill"])
def test_a_move_that_fails(hosts, fault):
    server, clients = begin(hosts, "echo")
    at = "n1" if fault.startswith("source") else "n2"
    inside(at, "sh", "-c", f"echo {fault} >/run/godwit/fault")
    assert migrate("n1", server.process().host_pid, "n2").status not in (0, 99)
    inside(at, "rm", "-f", "/run/godwit/fault")
    for host in NODES:
        if not main_daemon(host):
            hosts.restart_daemon(host)
    all_go_on(server, clients)
    server.move("n2")
    all_go_on(server, clients)
    end(server, clients)


@pytest.mark.parametrize("family", [4, 6])
def test_connections_are_listed(hosts, family):
    server, clients = begin(hosts, "echo", family)
    port, pid = server.command[3], server.process().host_pid
    assert inside("n1", "godwit", "check", str(pid), "--to", "n2", check=False).stdout == f"Process {pid} can move to n2.\n"
    server.move("n2")
    outside, node = {4: ("10.66.0.101", "10.66.0.3"), 6: ("fd66::4", "fd66::3")}[family]
    all_go_on(server, clients)
    at = {c["peer"].rpartition(":")[0].strip("[]"): c for c in knows("n2", port, "n2") if c["kind"] == "connection"}
    assert at[outside]["route"] == "through" and at[outside]["needs"] == ["n1"] and at[outside]["peer_on"] == "outside"
    assert at[node]["route"] == "direct" and at[node]["needs"] == [] and at[node]["peer_on"] == "n3"
    assert "through n1" in inside("n2", "godwit", "connections").stdout
    server.move("n1")
    assert {c["route"] for c in connections("n1") if c["address"].endswith(f":{port}") and c["kind"] == "connection"} == {"home"}
    all_go_on(server, clients)
    end(server, clients)
