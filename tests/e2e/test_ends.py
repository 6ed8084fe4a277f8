# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends of TCP connections in every state, with every option that a program can set, to peers everywhere (ends.py)."""

import itertools
import os

import pytest

from lab_driver import inside, init_of, kill, migrate, processes, read, wait_until

ENDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ends.py")
HOSTS = ["n1", "n2", "n3", "x1"]
FORMS = {"IPv4": ["10.66.0.1", "10.66.0.2", "10.66.0.3", "10.66.0.101"], "IPv6": ["fd66::1", "fd66::2", "fd66::3", "fd66::4"],
         "mapped": ["::ffff:10.66.0.1", "::ffff:10.66.0.2", "::ffff:10.66.0.3", "::ffff:10.66.0.101"]}
ports = itertools.count(7800, 10)


@pytest.fixture
def hosts(lab2):
    for i, host in enumerate(HOSTS):
        inside(host, "ip", "addr", "replace", f"fd66::{i + 1}/64", "dev", "eth0", "nodad")
    yield lab2
    for host in HOSTS:
        for p in processes(host):
            if ENDS in p.cmdline:
                kill(p.pid, 9)


def start(host, out, *arguments):
    inside(host, "setsid", "-f", "sh", "-c", 'out=$0; exec /usr/bin/python3 "$@" </dev/null >"$out" 2>&1', out, ENDS, *arguments)


class Mover:
    """A process on n1 with ends of every kind to peers on hosts; bound: those to which one is bound to the device."""

    def __init__(self, lab_, form, peers, bound):
        port, directory = str(next(ports)), lab_.directory("ends")
        self.out, self.file = os.path.join(directory, "out"), os.path.join(directory, "file")
        for host in peers:
            start(host, os.path.join(directory, host), "stay", port)
            wait_until(f"{host} listens", lambda host=host: int(port) in self.listeners(host))
        start("n1", self.out, "move", port, self.file, *(f"{FORMS[form][HOSTS.index(h)]},{'eth0' if h in bound else ''}" for h in peers))
        wait_until("its connections stand", lambda: read(self.file), 60)
        assert read(self.file) == "ready", read(self.file)
        self.pid = next(p.host_pid for p in processes("n1") if self.file in p.cmdline and p.state != "Z")

    @staticmethod
    def listeners(host):
        return {int(line.split()[1].rsplit(":", 1)[1], 16) for line in read(f"/proc/{init_of(host)}/net/tcp6").splitlines()[1:] if line.split()[3] == "0A"}

    def check(self):
        with open(self.file, "w", encoding="utf-8") as f:
            f.write("check")
        wait_until("it has checked its connections", lambda: read(self.file) != "check", 120)
        assert read(self.file) == "ok", f"{read(self.file)}\n{read(self.out)}"


@pytest.mark.parametrize("form", FORMS)
def test_every_state_and_option(hosts, form):
    mover = Mover(hosts, form, HOSTS, bound=("x1", "n3"))
    moved = migrate("n1", mover.pid, "n2")
    assert moved.status == 0, moved.why()
    moved = migrate("n2", moved.json["pid"], "n1")
    assert moved.status == 0, moved.why()
    mover.check()


def test_bound_to_a_device(hosts):
    """At the destination such a packet would come by the loopback device."""
    mover = Mover(hosts, "IPv4", ["n2", "n3"], bound=("n2",))
    refused = migrate("n1", mover.pid, "n2")
    assert refused.status == 3 and "bound to eth0" in str(refused.json["refusals"]), refused.why()
    moved = migrate("n1", mover.pid, "n3")
    assert moved.status == 0, moved.why()
    mover.check()
