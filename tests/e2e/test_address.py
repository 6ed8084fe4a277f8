# SPDX-License-Identifier: GPL-2.0-or-later
"""An address that belongs to a unit (godwit run --address): it is where the unit is, on one host only, and whoever talks to it depends on no other host."""

import itertools
import json
import signal

import pytest

import test_connections
from lab_driver import inside, kill, lab, main_daemon, migrate, processes, wait_until
from test_connections import NODES, OUTSIDE, Talk, connections, hosts  # noqa: F401 (a fixture)

last = itertools.count(50)
ADDRESS = {4: "10.66.0.{}/24", 6: "fd66::1:{}/64"}


def new_address(family=4):
    """Each test has one of its own: that of the last one may be on its way away."""
    return ADDRESS[family].format(next(last))


def bare(address):
    return address.split("/")[0]


class Server(Talk):
    """A server that owns an address, on n1."""

    def __init__(self, lab_, address, *options, bind=None, host="n1"):
        self.address, self.port = address, next(test_connections.ports)
        self.prefix = ["godwit", "run", "--address", address, *options, "--"]
        real, test_connections.inside = test_connections.inside, self.run
        try:
            super().__init__(lab_, host, "serve", bind or bare(address), self.port)
        finally:
            test_connections.inside = real

    def run(self, host, setsid, f, sh, c, script, *command):
        return inside(host, setsid, f, sh, c, script, *self.prefix, *command)


def has(host, address):
    return f" {bare(address)}/" in inside(host, "ip", "-o", "addr", "show").stdout


def one_host_has(address, host, seconds=5):
    """Exactly that one; None: nobody."""
    wait_until(f"{address} is on {host} only", lambda: [h for h in NODES if has(h, address)] == ([host] if host else []), seconds, 0.05)


def mine(host, address):
    return [c for c in connections(host) if c["address"].replace("[", "").startswith(bare(address))]


def depends_on_nobody(server, n_peers):
    """Neither do connections lead over another host, nor does it know of any."""
    at = mine(server.host, server.address)
    assert at and all(c["route"] == "owned" and c["needs"] == [] and c["on"] == server.host for c in at), at
    assert len([c for c in at if c["kind"] == "connection"]) >= n_peers, at
    for host in NODES:
        if host != server.host:
            assert not mine(host, server.address)


def all_go_on(server, clients):
    print(f"at {server.host}: " + ", ".join(f"{c}: {c.goes_on()} us" for c in clients))


@pytest.mark.parametrize("family, mode", [(4, "echo"), (6, "tick")])
def test_it_moves(hosts, family, mode):  # noqa: F811
    address = new_address(family)
    server = Server(hosts, address, bind={4: "0.0.0.0", 6: "::"}[family] if mode == "echo" else None)
    clients = [Talk(hosts, host, mode, bare(address), server.port) for host in (OUTSIDE, "n2", "n1")]
    for to in ("n2", "n3", "n1") if family == 4 else ("n2", "n1"):
        server.move(to)
        one_host_has(address, to)
        all_go_on(server, clients)
        depends_on_nobody(server, len(clients))
        assert "owned address" in inside(to, "godwit", "connections").stdout
        clients.append(Talk(hosts, OUTSIDE, mode, bare(address), server.port))
    for c in clients:
        c.ends_well()
    server.ends_well()
    one_host_has(address, None)
    assert bare(address) not in inside("n1", "sh", "-c", "ip route show table local; ip -6 route show table local").stdout


def test_the_former_hosts_die(hosts):  # noqa: F811
    """n1 is its home, and has forwarded, too."""
    address = new_address()
    server = Server(hosts, address)
    clients = [Talk(hosts, host, "echo", bare(address), server.port) for host in (OUTSIDE, "n3")]
    server.move("n2")
    all_go_on(server, clients)
    lab("kill", "n1")
    clients += [Talk(hosts, host, "echo", bare(address), server.port) for host in (OUTSIDE, "n3")]
    all_go_on(server, clients)
    server.move("n3")
    lab("kill", "n2")
    all_go_on(server, clients)
    assert has("n3", address)
    for c in clients:
        c.ends_well()
    server.ends_well()


@pytest.mark.parametrize("fault", ["dest:restore:killall", "source:freeze:kill"])
def test_a_move_that_fails(hosts, fault):  # noqa: F811
    address = new_address()
    server = Server(hosts, address)
    client = Talk(hosts, OUTSIDE, "echo", bare(address), server.port)
    at = "n1" if fault.startswith("source") else "n2"
    inside(at, "sh", "-c", f"echo {fault} >/run/godwit/fault")
    assert migrate("n1", server.process().host_pid, "n2").status not in (0, 99)
    inside(at, "rm", "-f", "/run/godwit/fault")
    for host in NODES:
        if not main_daemon(host):
            hosts.restart_daemon(host)
    one_host_has(address, "n1")
    client.goes_on()
    server.move("n2")
    one_host_has(address, "n2")
    client.goes_on()
    client.ends_well()
    server.ends_well()
    one_host_has(address, None)


@pytest.mark.parametrize("fault", ["source:commit:killall", "source:push:kill", "dest:pull:killall"])
def test_workers_die_after_the_commit(hosts, fault):  # noqa: F811
    address = new_address()
    server = Server(hosts, address)
    client = Talk(hosts, OUTSIDE, "echo", bare(address), server.port)
    at = "n1" if fault.startswith("source") else "n2"
    inside(at, "sh", "-c", f"echo {fault} >/run/godwit/fault")
    migrate("n1", server.process().host_pid, "n2")
    inside(at, "rm", "-f", "/run/godwit/fault")
    for host in NODES:
        if not main_daemon(host):
            hosts.restart_daemon(host)
    server.host = "n2"
    wait_until("it runs there", server.process)
    one_host_has(address, "n2", 10)
    client.goes_on()
    client.ends_well()
    server.ends_well()
    one_host_has(address, None)


def test_connections_that_end_all_the_time(hosts):  # noqa: F811
    """What the server says last before it closes one is delivered, whichever host it closes it on."""
    address = new_address()
    server = Server(hosts, address)
    client = Talk(hosts, OUTSIDE, "call", bare(address), server.port)
    for to in ("n2", "n1"):
        server.move(to)
        client.goes_on()
    client.ends_well()
    server.ends_well()
    one_host_has(address, None)


def keepers(host):
    return [p for p in processes(host) if p.name == "godwit-address" and p.state != "Z"]


def test_a_keeper_dies(hosts):  # noqa: F811
    """godwitd puts another one in its place; also in that of one that died with its unit."""
    address = new_address()
    server = Server(hosts, address)
    kill(wait_until("the keeper", lambda: keepers("n1"))[0].pid, signal.SIGKILL)
    wait_until("another keeper", lambda: keepers("n1"), 6)
    server.move("n2")
    one_host_has(address, "n2")
    kill(wait_until("the keeper", lambda: keepers("n2"))[0].pid, signal.SIGKILL)
    server.ends_well()
    one_host_has(address, None, 6)


def run(host, *options):
    return inside(host, "godwit", "run", *options, "--", "true", check=False)


def test_addresses_that_cannot_be(hosts):  # noqa: F811
    address = new_address()
    server = Server(hosts, address)
    for given, words in ((address, "belongs to another unit"), ("10.66.0.1/24", "is one of this host"), ("10.66.0.101", "another host has it"), ("fd66::3/64", "another host has it"),
                         ("10.77.0.5/24", "no device of this host"), ("10.77.0.5/24%none", "no device none"), ("224.0.0.1/24", "one host"), ("10.66.0.9/33", "1 to 32")):
        done = run("n1", "--address", given)
        assert done.returncode in (1, 2) and words in done.stderr, (given, done.returncode, done.stderr)
    assert "another host has it" in run("n3", "--address", bare(address)).stderr
    server.ends_well()
    one_host_has(address, None)


def test_somebody_else_uses_it(hosts):  # noqa: F811
    address = new_address()
    server = Server(hosts, address)
    other = Talk(hosts, "n1", "serve", bare(address), next(test_connections.ports))
    refused = migrate("n1", server.process().host_pid, "n2")
    assert refused.status == 3 and "net.address.used" in json.dumps(refused.json) and f"process {other.process().host_pid} (talk)" in refused.why(), refused.why()
    other.ends_well()
    server.move("n2")
    server.ends_well()
    one_host_has(address, None)


def test_hosts_on_different_links(hosts):  # noqa: F811
    """The destination has a network of that name, too, and it is another one."""
    for host, number in (("n1", 1), ("n2", 2)):
        inside(host, "sh", "-c", f"ip link add apart type bridge && ip addr add 10.78.0.{number}/24 dev apart && ip link set apart up")
    try:
        server = Server(hosts, "10.78.0.9")
        refused = migrate("n1", server.process().host_pid, "n2")
        assert refused.status == 3 and "is not on the link" in refused.why(), refused.why()
        one_host_has("10.78.0.9", "n1")
        server.ends_well()
    finally:
        for host in ("n1", "n2"):
            inside(host, "ip", "link", "del", "apart")


def test_two_addresses_of_two_families(hosts):  # noqa: F811
    v4, v6 = new_address(4), new_address(6)
    server = Server(hosts, f"{v4}%eth0", "--address", v6, "--node", "n2", bind="::")
    for address in (v4, v6):
        one_host_has(address, "n2")
    server.host = "n2"
    clients = [Talk(hosts, OUTSIDE, "echo", bare(address), server.port) for address in (v4, v6)]
    server.move("n1")
    for client in clients:
        client.goes_on()
        client.ends_well()
    server.ends_well()
    assert run("n1", "--address", v6, "--address", v6).returncode == 1
    one_host_has(v4, None)
    one_host_has(v6, None)
