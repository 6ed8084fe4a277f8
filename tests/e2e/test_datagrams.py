# SPDX-License-Identifier: GPL-2.0-or-later
"""A server of UDP, and a client of one, move while others talk to them: on a host without Godwit, on the one that is left, on the one that it comes to, on a third one."""

import itertools
import os
import re
import signal

import pytest

from lab_driver import VICTIMS, inside, kill, lab, migrate, processes, read, wait_until
from test_connections import ADDRESSES, EVERY, LOOPBACK, NODES, OUTSIDE, Talk, connections, names

CHAT = os.path.join(VICTIMS, "chat")
ports = itertools.count(7500)
LOST_MOST = 2     # of some ten thousand


class Chat(Talk):
    """One chat process, wherever it is."""

    def __init__(self, lab_, host, mode, address, port, last=None):
        self.host, self.command = host, [CHAT, mode, address, str(port), last or f"chat{next(names)}"]
        self.out = os.path.join(lab_.directory("chat"), "out")
        inside(host, "setsid", "-f", "sh", "-c", f'exec "$0" "$@" </dev/null >{self.out} 2>&1', *self.command)
        wait_until(f"{self} begins", lambda: self.lines() and self.lines()[-1].split(":")[0] in ("listens", "talks", "done", "WRONG"))

    def lost(self):
        return int(re.search(r"(\d+) lost", self.lines()[-1]).group(1))


@pytest.fixture
def hosts(lab2):
    for i, host in enumerate([*NODES, OUTSIDE]):
        inside(host, "ip", "addr", "replace", f"fd66::{i + 1}/64", "dev", "eth0", "nodad")
    yield lab2
    for p in processes(OUTSIDE):
        if p.cmdline.startswith(CHAT):
            kill(p.pid, signal.SIGKILL)


def all_go_on(server, clients):
    silences = {str(c): c.goes_on() for c in clients}
    print(f"at {server.host}: " + ", ".join(f"{who}: {us} us" for who, us in silences.items()))


def end(server, clients):
    for talk in [*clients, server]:
        talk.ends_well()
        # One that is on its way through the loopback device when the socket is read comes too late. No more than that.
        assert talk.lost() <= LOST_MOST, f"{talk}: {talk.lines()}"


@pytest.mark.parametrize("family", [4, 6])
def test_server_moves(hosts, family):
    port = next(ports)
    server = Chat(hosts, "n1", "serve", EVERY[family], port)
    clients = [Chat(hosts, host, mode, ADDRESSES[family], port) for host in (OUTSIDE, *NODES) for mode in ("ask", "listen")]
    clients.append(Chat(hosts, "n1", "ask", LOOPBACK[family], port))
    for to in ("n2", "n3", "n1", "n2"):
        server.move(to)
        all_go_on(server, clients)
    # The first address, anywhere.
    more = [Chat(hosts, host, "ask", ADDRESSES[family], port) for host in (OUTSIDE, *NODES)]
    server.move("n3")
    all_go_on(server, [*clients, *more])
    end(server, [*clients, *more])


def test_client_moves(hosts):
    """A connected socket, whose peer stays, or moves as well."""
    port = next(ports)
    servers = {host: Chat(hosts, host, "serve", EVERY[4], port) for host in (OUTSIDE, "n1", "n2")}
    clients = [Chat(hosts, "n1", "ask", f"10.66.0.{101 if host == OUTSIDE else host[1]}", port) for host in servers]
    for to in ("n2", "n3", "n1"):
        for client in clients:
            client.move(to)
        all_go_on(clients[0], clients)
    servers["n2"].move("n3")
    clients[2].move("n2")
    all_go_on(clients[2], clients)
    for client in clients:
        end(client, [])
    for server in servers.values():
        server.ends_well()


@pytest.mark.parametrize("family", [4, 6])
def test_what_waits_in_the_queue(hosts, family):
    port = next(ports)
    server = Chat(hosts, "n1", "serve", EVERY[family], port)
    kill(server.process().pid, signal.SIGUSR2)
    for host, n in ((OUTSIDE, 11), ("n2", 9), ("n3", 1)):
        Chat(hosts, host, "post", ADDRESSES[family], port, str(n))
    server.move("n2")
    server.move("n3")
    assert server.ask()[0] == 0
    kill(server.process().pid, signal.SIGUSR2)
    wait_until("it has read everything", lambda: server.ask() and "21 messages" in server.lines()[-1], 30)
    server.ends_well()


def test_a_group(hosts):
    """A member of a multicast group hears its group where it is."""
    listening = ("import socket, struct, signal; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', PORT));"
                 "s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack('4s4si', socket.inet_aton('239.1.2.3'), bytes(4), socket.if_nametoindex('eth0')));"
                 "print('ready', flush=True)\nwhile True: d, a = s.recvfrom(100); print(d.decode(), a[0], flush=True)").replace("PORT", str(next(ports)))
    sending = ("import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
               "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('10.66.0.101')); s.sendto(sys.argv[1].encode(), ('239.1.2.3', PORT))"
               ).replace("PORT", re.search(r"'', (\d+)", listening).group(1))
    out = os.path.join(hosts.directory("group"), "out")
    inside("n1", "setsid", "-f", "sh", "-c", f'exec "$0" "$@" </dev/null >{out} 2>&1', "/usr/bin/python3", "-I", "-c", listening)
    wait_until("it listens", lambda: "ready" in read(out))
    expected = []
    for at, to in (("n1", "n2"), ("n2", "n3"), ("n3", "n1")):
        inside(OUTSIDE, "/usr/bin/python3", "-I", "-c", sending, f"to-{at}")
        expected.append(f"to-{at} 10.66.0.101")
        wait_until(f"it hears its group on {at}", lambda: read(out).splitlines()[1:] == expected, 20)
        p = next(p for p in processes(at) if "239.1.2.3" in p.cmdline and p.state != "Z")
        moved = migrate(at, p.host_pid, to)
        assert moved.status == 0, moved.why()
    kill(next(p for p in processes("n1") if "239.1.2.3" in p.cmdline and p.state != "Z").pid, signal.SIGKILL)


def test_they_are_listed(hosts):
    port = next(ports)
    server = Chat(hosts, "n1", "serve", EVERY[4], port)
    server.move("n2")
    listed = [c for c in connections("n2") if c["address"] == f"10.66.0.1:{port}"]
    assert [(c["protocol"], c["kind"], c["on"], c["needs"]) for c in listed] == [("udp", "listener", "n2", ["n1"])]
    server.ends_well()


def test_without_a_way(hosts):
    """Nodes that reach each other through a router: a connected one is refused by name, and nothing is touched; one that is bound only moves, and is found there."""
    port = next(ports)
    server = Chat(hosts, OUTSIDE, "serve", EVERY[4], port)
    client = Chat(hosts, "n1", "ask", "10.66.0.101", port)
    inside("n3", "sh", "-c", "for d in all eth0; do echo 0 >/proc/sys/net/ipv4/conf/$d/send_redirects; done; echo 1 >/proc/sys/net/ipv4/ip_forward")
    inside("n1", "ip", "route", "add", "10.66.0.2/32", "via", "10.66.0.3")
    try:
        moved = migrate("n1", client.process().host_pid, "n2")
    finally:
        inside("n1", "ip", "route", "del", "10.66.0.2/32", "via", "10.66.0.3")
        inside("n3", "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert moved.status not in (0, 99) and "udp 10.66.0.1:" in moved.text and "router" in moved.text, moved.why()
    client.goes_on()
    client.move("n2")
    client.goes_on()
    end(client, [])
    end(server, [])
