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
    # A daemon: somebody who waits for it would have a stub, which stays in the network namespace at home, and so the pair would.
    p = popen("n1", "setsid", "-f", "unshare", "-n", "sleep", "66.25", stdin=-3, stdout=-3, stderr=-3)
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


def unit_reaches(host, unit, address):
    return inside(host, "nsenter", "-t", str(unit), "-n", "ping", "-c1", "-W1", address, check=False).returncode == 0


def bridge_exists(host):
    return inside(host, "ip", "link", "show", "dev", "gwbr", check=False).returncode == 0


def test_no_bridge_there(bridged):
    """It is made as it is here, and goes when the unit goes on."""
    bridge("n2", "", "del")
    inside("n2", "sh", "-c", "echo dest:restore:error >/run/godwit/fault")
    assert migrate("n1", bridged, "n2").status != 0
    inside("n2", "rm", "/run/godwit/fault")
    assert not bridge_exists("n2"), "a bridge is left after a migration that failed"
    moved = migrate("n1", bridged, "n2")
    assert moved.status == 0, moved.why()
    assert "gwbr" in str(moved.json["notes"]), moved.json
    assert "10.99.0.1/24" in inside("n2", "ip", "-br", "addr", "show", "dev", "gwbr").stdout
    wait_until("the unit answers at its new host", lambda: reaches("n2"), 5)
    wait_until("the unit reaches its gateway", lambda: unit_reaches("n2", bridged, "10.99.0.1"), 5)
    moved = migrate("n2", bridged, "n1")
    assert moved.status == 0, moved.why()
    wait_until("the bridge that was made has gone with the unit", lambda: not bridge_exists("n2"), 5)
    assert bridge_exists("n1")
    wait_until("the unit answers at home", lambda: reaches("n1"), 5)


def test_bridge_cannot_be_made(bridged):
    bridge("n2", "", "del")
    inside("n2", "sh", "-c", "ip link add gwother type bridge && ip addr add 10.99.0.200/25 dev gwother")
    try:
        moved = migrate("n1", bridged, "n2")
        assert moved.status == EXIT_REFUSED and "gwbr (10.99.0.1/24)" in str(moved.json), moved.why()
        assert not bridge_exists("n2")
        assert reaches("n1"), "the unit is cut off after a refusal"
    finally:
        inside("n2", "ip", "link", "del", "gwother")


def test_address_is_taken(bridged):
    """Somebody else at the destination has the unit's address: as the first containers of two hosts have."""
    inside("n2", "sh", "-ec", "ip netns add gwtaken; ip link add gwtaken type veth peer name eth0 netns gwtaken; ip link set gwtaken master gwbr up; "
           "ip -n gwtaken addr add 10.99.0.5/24 dev eth0; ip -n gwtaken link set eth0 up")
    try:
        wait_until("the other one answers", lambda: reaches("n2"))
        moved = migrate("n1", bridged, "n2")
        assert moved.status == EXIT_REFUSED and "10.99.0.5/24 (bridge gwbr)" in str(moved.json), moved.why()
        assert reaches("n1"), "the unit is cut off after a refusal"
        assert reaches("n2"), "the other one is cut off"
    finally:
        inside("n2", "sh", "-c", "ip netns del gwtaken")
    inside("n2", "ip", "addr", "add", "10.99.0.5/24", "dev", "gwbr")
    moved = migrate("n1", bridged, "n2")
    assert moved.status == EXIT_REFUSED and "10.99.0.5/24 (bridge gwbr)" in str(moved.json), moved.why()


# As podman and others write them: a chain for the ports, one for what leaves. The second port is for one address of the host only.
PUBLISH = """add table ip gwpublish
add chain ip gwpublish ports
add rule ip gwpublish ports tcp dport 8089 counter dnat to 10.99.0.5:80
add chain ip gwpublish pre { type nat hook prerouting priority dstnat; }
add rule ip gwpublish pre fib daddr type local tcp dport 8089 jump ports
add rule ip gwpublish pre ip daddr 127.0.0.1 tcp dport 8090 dnat to 10.99.0.5:80
add chain ip gwpublish leaving
add rule ip gwpublish leaving ip daddr != 224.0.0.0/4 counter masquerade
add chain ip gwpublish post { type nat hook postrouting priority srcnat; }
add rule ip gwpublish post ip saddr 10.99.0.0/24 ip daddr != 10.99.0.0/24 jump leaving"""
SERVER = "/usr/bin/python3 -m http.server 80 --directory /proc/sys/kernel"


def fetches(host, where):
    return inside(host, "/usr/bin/python3", "-c", f"import urllib.request; urllib.request.urlopen('http://{where}/pid_max', timeout=2).read()", check=False).returncode == 0


@pytest.fixture
def published(lab2):
    """A server whose port is published by n1, on a bridge that n2 lacks."""
    inside("n1", "sh", "-c", f"nft -f - <<'EOF'\n{PUBLISH}\nEOF\necho 1 >/proc/sys/net/ipv4/ip_forward")
    bridge("n1", "10.99.0.1")
    inside("n1", "sh", "-c", f"unshare -n {SERVER} </dev/null >/dev/null 2>&1 &")
    unit = wait_until("the server", lambda: next((q for q in processes("n1") if q.cmdline == SERVER), None))
    inside("n1", "sh", "-c", f"ip link add gwhost type veth peer name gwunit && ip link set gwhost master gwbr up && ip link set gwunit netns {unit.host_pid}")
    inside("n1", "nsenter", "-t", str(unit.host_pid), "-n", "sh", "-ec", UNIT)
    wait_until("the server serves", lambda: fetches("n2", "10.66.0.1:8089"))
    yield unit.host_pid
    for host in ("n1", "n2"):
        for q in processes(host):
            if q.cmdline == SERVER:
                inside(host, "kill", "-9", str(q.host_pid), check=False)
    bridge("n1", "", "del")
    inside("n1", "nft", "delete", "table", "ip", "gwpublish")


def test_published(published):
    moved = migrate("n1", published, "n2")
    assert moved.status == 0, moved.why()
    assert "8089/tcp" in str(moved.json["notes"]) and "there is none like it" in str(moved.json["notes"]), moved.json["notes"]
    wait_until("the port of the new host leads to it", lambda: fetches("n1", "10.66.0.2:8089"), 5)
    assert not fetches("n1", "10.66.0.2:8090")
    assert unit_reaches("n2", published, "10.66.0.1"), "it reaches nobody outside"
    rules = inside("n2", "nft", "list", "ruleset").stdout
    assert "8090" not in rules and rules.count("masquerade") >= 1, rules
    inside("n2", "kill", "-9", str(published))
    wait_until("the rules have gone with it", lambda: "8089" not in inside("n2", "nft", "list", "ruleset").stdout, 10)
    wait_until("the bridge has gone with it", lambda: not bridge_exists("n2"), 10)


def test_published_elsewhere(published):
    """Somebody has the port there; and where a rule of the host is there, there is not another one."""
    holder = popen("n2", "/usr/bin/python3", "-c", "import socket, time; s = socket.socket(); s.bind(('', 8089)); s.listen(); time.sleep(600)", stdin=-3, stdout=-3, stderr=-3)
    wait_until("somebody has the port", lambda: ":8089" in inside("n2", "ss", "-ltn").stdout)
    moved = migrate("n1", published, "n2")
    assert moved.status == 0, moved.why()
    assert "somebody has that port" in str(moved.json["notes"]), moved.json["notes"]
    assert "8089" not in inside("n2", "nft", "list", "ruleset").stdout
    holder.kill()
    holder.wait()
    inside("n2", "sh", "-c", "pkill -9 -f '^/usr/bin/python3 -c import socket'", check=False)
    back = migrate("n2", published, "n1")
    assert back.status == 0, back.why()
    assert "table ip godwit" not in inside("n1", "nft", "list", "ruleset").stdout
    wait_until("its port at home leads to it", lambda: fetches("n2", "10.66.0.1:8089"), 5)


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


def test_ip_netns_exec(lab2):
    """Its mounts are a copy of the host's, with one for each namespace that ip netns keeps: these are the host's."""
    inside("n1", "sh", "-ec", "ip netns add gwns; ip netns add gwns2; ip -n gwns link set lo up; ip -n gwns addr add 10.99.7.1/24 dev lo")
    inside("n2", "ip", "netns", "add", "gwother")
    inside("n1", "sh", "-c", "ip netns exec gwns sleep 66.125 </dev/null >/dev/null 2>&1 &")
    unit = wait_until("the unit", lambda: next((q for q in processes("n1") if q.cmdline == "sleep 66.125"), None)).host_pid
    for here, there, strategy in (("n1", "n2", "freeze-free"), ("n2", "n1", "stop-copy")):
        moved = migrate(here, unit, there, strategy)
        assert moved.status == 0, moved.why()
        assert here != "n1" or "/run/netns/gwns2" in str(moved.json["notes"]), moved.json["notes"]
        unit = moved.json["pid"]
        assert "10.99.7.1/24" in inside(there, "nsenter", "-t", str(unit), "-n", "ip", "addr").stdout
        assert "net:[" not in inside(there, "cat", f"/proc/{unit}/mountinfo").stdout or there == "n1"
    inside("n1", "kill", "-9", str(unit))
    inside("n1", "sh", "-c", "ip netns del gwns; ip netns del gwns2")
    inside("n2", "ip", "netns", "del", "gwother")


def slirp_of(host):
    return [p for p in processes(host) if p.cmdline.startswith(("slirp4netns", "/usr/bin/slirp4netns")) and "tap7" in p.cmdline]


# As root, and as a user in a user namespace, from where podman starts it.
TAP_UNITS = [("", "sleep 66.5", ""), ("setpriv --reuid 1500 --regid 1500 --clear-groups", "sleep 66.5", "-Ur")]


@pytest.mark.parametrize("user, command, flags", TAP_UNITS, ids=["root", "rootless"])
def test_slirp4netns(lab2, user, command, flags):
    """The process outside that carries a tap interface's packets stays; there is another one where the unit goes, and it ends with the unit."""
    enter = "-U --preserve-credentials" if flags else ""
    for host in ("n1", "n2"):
        inside(host, "chmod", "666", "/dev/net/tun") # as udev has it
    inside("n1", "sh", "-c", f"{user} sh -c 'unshare {flags} -n {command} </dev/null >/dev/null 2>&1 &'") # its parent and session leader are gone
    unit = wait_until("the unit", lambda: next((q for q in processes("n1") if q.cmdline == command), None)).host_pid
    carrier = popen("n1", "sh", "-c", f"exec {user} nsenter -t {unit} {enter or '--'} slirp4netns -c --mtu=9000 --enable-sandbox --enable-seccomp --netns-type=path /proc/{unit}/ns/net tap7",
                    stdin=-3, stdout=-3, stderr=-3)

    def within(host, *what):
        return inside(host, "nsenter", "-t", str(unit_at), *(["-U"] if flags else []), "-n", *what, check=False)

    def answers(host):
        return within(host, "ping", "-c1", "-W1", "10.0.2.2").returncode == 0

    def look(host):
        return within(host, "sh", "-c", "ip -d link show dev tap7; ip -4 -o addr; ip route").stdout

    unit_at = unit
    wait_until("its network", lambda: answers("n1"))
    before = look("n1")
    assert "10.0.2.100/24" in before and "mtu 9000" in before and "persist off" in before
    moved = migrate("n1", unit, "n2")
    assert moved.status == 0, moved.why()
    unit_at = moved.json["pid"]
    wait_until("its network at n2", lambda: answers("n2"), 10)
    assert re.sub("state [A-Z]+", "", look("n2")) == re.sub("state [A-Z]+", "", before)
    assert len(slirp_of("n2")) == 1
    back = migrate("n2", unit_at, "n1", "stop-copy")
    assert back.status == 0, back.why()
    unit_at = back.json["pid"]
    wait_until("slirp4netns has ended with the unit", lambda: not slirp_of("n2"), 10)
    wait_until("its network at n1", lambda: answers("n1"), 10)
    inside("n1", "kill", "-9", str(unit_at))
    carrier.kill()
    carrier.wait()
    inside("n1", "sh", "-c", "pkill -9 -f '^slirp4netns.*tap7'", check=False)
