# SPDX-License-Identifier: GPL-2.0-or-later
"""A unit with a network namespace of its own, connected to a bridge of its host: the bridges of both hosts and the unit see no more of the move than a pause."""

import re

import pytest

from lab_driver import EXIT_REFUSED, inside, migrate, popen, processes, wait_until

UNIT = """ip link set lo up; ip link set gwunit name eth0; ip addr add 10.99.0.5/24 dev eth0; ip addr add fd99::5/64 dev eth0 nodad; ip link set eth0 up
ip route add default via 10.99.0.1"""


def bridge(host, address, add="add"):
    if add == "add":
        inside(host, "sh", "-c", f"ip link add gwbr type bridge && ip link set gwbr up && ip addr add {address}/24 dev gwbr")
    else:
        inside(host, "ip", "link", "del", "gwbr", check=False)


def reaches(host, address="10.99.0.5"):
    return inside(host, "ping", "-c1", "-W1", address, check=False).returncode == 0


@pytest.fixture
def bridged(lab2):
    """A process in n1 whose network is a port of the bridge gwbr."""
    for host, address in (("n1", "10.99.0.1"), ("n2", "10.99.0.2")):
        bridge(host, address)
    p = popen("n1", "unshare", "-n", "sleep", "66.25", stdin=-3, stdout=-3, stderr=-3)
    unit = wait_until("the unit", lambda: next((q for q in processes("n1") if q.cmdline == "sleep 66.25"), None))
    inside("n1", "sh", "-c", f"ip link add gwhost type veth peer name gwunit && ip link set gwhost master gwbr up && ip link set gwunit netns {unit.host_pid}")
    inside("n1", "nsenter", "-t", str(unit.host_pid), "-n", "sh", "-ec", UNIT)
    wait_until("the unit answers", lambda: reaches("n1"))
    yield unit.host_pid
    for host in ("n1", "n2"):
        for q in processes(host):
            if q.cmdline == "sleep 66.25":
                inside(host, "kill", "-9", str(q.host_pid), check=False)
        bridge(host, "", "del")
    p.wait()


def ports(host):
    return re.findall(r"(\w+)@", inside(host, "ip", "-br", "link", "show", "master", "gwbr").stdout)


def test_bridged(bridged):
    here, there = "n1", "n2"
    for strategy in ("freeze-free", "stop-copy"):
        before = inside(here, "nsenter", "-t", str(bridged), "-n", "sh", "-c", "ip -br addr; ip route").stdout
        moved = migrate(here, bridged, there, strategy)
        assert moved.status == 0, moved.why()
        assert ports(there) == ["gwhost"]
        wait_until("the pair has gone where it was", lambda: not ports(here), 5)
        assert reaches(there), "the unit does not answer at its new host"
        after = inside(there, "nsenter", "-t", str(bridged), "-n", "sh", "-c", "ip -br addr; ip route").stdout
        assert re.sub("eth0@if[0-9]+ *", "eth0 ", before) == re.sub("eth0@if[0-9]+ *", "eth0 ", after)
        here, there = there, here


def test_no_bridge_there(bridged):
    bridge("n2", "", "del")
    moved = migrate("n1", bridged, "n2")
    assert moved.status == EXIT_REFUSED and "gwbr" in str(moved.json), moved.why()
    assert reaches("n1"), "the unit is cut off after a refusal"


def test_somebody_else(bridged):
    """A process that was put into the unit's network from outside would lose it."""
    guest = popen("n1", "nsenter", "-t", str(bridged), "-n", "sleep", "66.75", stdin=-3, stdout=-3, stderr=-3)
    try:
        wait_until("the guest", lambda: any(q.cmdline == "sleep 66.75" for q in processes("n1")))
        moved = migrate("n1", bridged, "n2")
        assert moved.status == EXIT_REFUSED and "would lose" in str(moved.json), moved.why()
        assert reaches("n1")
    finally:
        for q in processes("n1"):
            if q.cmdline == "sleep 66.75":
                inside("n1", "kill", "-9", str(q.host_pid), check=False)
        guest.wait()


def test_given_up(bridged):
    """What fails in the freeze leaves the unit connected."""
    inside("n2", "sh", "-c", "echo dest:restore:error >/run/godwit/fault")
    moved = migrate("n1", bridged, "n2")
    inside("n2", "rm", "/run/godwit/fault")
    assert moved.status not in (0, EXIT_REFUSED), moved.why()
    wait_until("the unit answers", lambda: reaches("n1"), 5)
