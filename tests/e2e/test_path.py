# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors about packets of a moved socket come to the host that has its address, and reach the socket where it is: a path that takes smaller packets only, and a peer that is not there."""

import itertools
import subprocess

import pytest

from lab_driver import inside, kill, migrate, popen, processes, wait_until
from test_connections import ADDRESSES, NODES, hosts  # noqa: F401 (a fixture)

OUTSIDE = "x1"
ROUTER = {4: "10.66.0.101", 6: "fd66::4"}
FAR = {4: "10.99.0.2", 6: "fd99::2"}
NETWORK = {4: "10.99.0.0/24", 6: "fd99::/64"}
MTU = 1300      # of the router's other device: the client says that it takes more
ports = itertools.count(7900)

SERVER = """
import errno, socket, sys
own, port, far = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in own else socket.AF_INET
nobody = socket.socket(family, socket.SOCK_DGRAM)
nobody.connect((far, 9))
nobody.settimeout(5)
s = socket.create_server((own, port), family=family)
c, _ = s.accept()
f = c.makefile("rb")
for line in f:
    n = int(line)
    if n:
        c.sendall(b"%09d\\n" % n * (n // 10))
        continue
    try:
        nobody.send(b"x")
        said = str(nobody.recv(10))
    except OSError as e:
        said = errno.errorcode.get(e.errno, repr(e))
    c.sendall(b"%10s" % said[:10].encode())
"""
CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.settimeout(20)
f = s.makefile("rb")
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    s.sendall(b"%d\\n" % n)
    got = f.read(n // 10 * 10 or 10)
    print("ok" if n and got == b"%09d\\n" % n * (n // 10) else got.decode().strip()[:20] or "nothing", flush=True)
"""


@pytest.fixture
def far(hosts):  # noqa: F811
    """A host behind the one outside, which forwards, over a link with small packets."""
    inside(OUTSIDE, "sh", "-c", "setsid -f unshare -n sleep 777.9 </dev/null >/dev/null 2>&1")
    there = wait_until("the far host", lambda: next((p for p in processes(OUTSIDE) if p.cmdline == "sleep 777.9"), None))
    enter = ["nsenter", "-t", str(there.host_pid), "-n"]
    inside(OUTSIDE, "sh", "-ec", f"""
        ip link add far type veth peer name near netns {there.host_pid}
        ip addr add 10.99.0.1/24 dev far; ip addr add fd99::1/64 dev far nodad; ip link set far mtu {MTU} up
        echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        {' '.join(enter)} sh -ec 'ip link set lo up; ip link set near up; ip addr add {FAR[4]}/24 dev near; ip addr add {FAR[6]}/64 dev near nodad
            ip route add default via 10.99.0.1; ip -6 route add default via fd99::1'""")
    for host in NODES:
        inside(host, "sh", "-c", f"ip route replace {NETWORK[4]} via {ROUTER[4]}; ip -6 route replace {NETWORK[6]} via {ROUTER[6]}")
    yield enter
    kill(there.pid, 9)
    inside(OUTSIDE, "sh", "-c", "ip link del far; echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
    for host in NODES:
        inside(host, "sh", "-c", f"ip route del {NETWORK[4]}; ip -6 route del {NETWORK[6]}", check=False)


@pytest.mark.parametrize("family", [4, 6])
def test_errors_reach_the_socket(far, family):
    port = next(ports)
    inside("n1", "setsid", "-f", "sh", "-c", 'exec "$0" "$@" </dev/null >/dev/null 2>&1', "/usr/bin/python3", "-c", SERVER, ADDRESSES[family], str(port), FAR[family])
    server = wait_until("the server", lambda: next((p for p in processes("n1") if p.cmdline.startswith("/usr/bin/python3") and f" {port} " in p.cmdline), None))
    wait_until("it listens", lambda: f":{port}" in inside("n1", "ss", "-Hlnt").stdout)
    client = popen(OUTSIDE, *far, "/usr/bin/python3", "-c", CLIENT, ADDRESSES[family], str(port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def ask(n):
        client.stdin.write(f"{n}\n")
        client.stdin.flush()
        return client.stdout.readline()

    assert client.stdout.readline() == "ready\n"
    assert ask(100) == "ok\n"
    moved = migrate("n1", server.host_pid, "n2")
    assert moved.status == 0, moved.why()
    assert ask(0) == "ECONNREFUS\n"
    assert ask(400000) == "ok\n"
    assert f"mtu {MTU}" in inside("n2", "ip", "route", "get", FAR[family]).stdout
    client.stdin.close()
    client.wait(20)
