# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS between nodes: units move, nothing of them can be read on the way, and who has no good certificate is refused before anything happens."""

import base64
import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

import pytest
from lab_driver import BUILD, STATE, Movable, Victim, copies, inside, kill, main_daemon, popen, processes, read, wait_until

GODWIT = os.path.join(BUILD, "src/cli/godwit")
FILES = {"ca": "ca.pem", "certificate": "node.pem", "key": "node.key", "crl": "crl.pem"}
TLS = "\n[tls]\n" + "".join(f"{key} = /etc/godwit/own/{file}\n" for key, file in FILES.items())
PATTERN = b"what nobody on the way is to read "
KEEPER = ("import sys, time\ntext = bytearray(bytes.fromhex(sys.argv[2]) * 120000)\nwith open(sys.argv[1], 'w') as f: f.write('ready')\n"
          "while True: time.sleep(0.05); text[7] = text[7]\n")


def pki(where, *arguments):
    done = subprocess.run([GODWIT, "pki", *arguments, *([] if arguments[0] == "init" else ["--dir", where])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Certificates:
    """A CA, and the files of hosts of a lab."""

    def __init__(self, lab_):
        self.lab, self.where = lab_, lab_.directory("pki") + "/pki"
        pki(self.where, "init", self.where)

    def issue(self, *hosts):
        for host in hosts:
            pki(self.where, "issue", host)
            self.copy(host)

    def copy(self, host, of=None):
        """What the administrator does with scp."""
        shutil.copytree(os.path.join(self.where, "nodes", of or host), os.path.join(STATE, "hosts", host, "etc/own"), dirs_exist_ok=True)


@contextlib.contextmanager
def configured(lab_, hosts):
    """Hosts of which the configuration has [tls], for a while."""
    paths = {host: os.path.join(STATE, "hosts", host, "etc/godwit.conf") for host in ("n1", "n2")}
    before = {host: read(path) for host, path in paths.items()}

    def use(texts):
        for host, text in texts.items():
            if text != read(paths[host]):
                with open(paths[host], "w", encoding="ascii") as f:
                    f.write(text)
                lab_.restart_daemon(host)
    try:
        use({host: before[host].partition("\n[tls]")[0] + TLS * (host in hosts) for host in paths})
        yield
    finally:
        use(before)


@pytest.fixture
def certificates(lab2):
    made = Certificates(lab2)
    made.issue("n1", "n2")
    yield made
    for host in ("n1", "n2"):
        shutil.rmtree(os.path.join(STATE, "hosts", host, "etc/own"), ignore_errors=True)


class Keeper(Movable):
    """A program with megabytes of a text."""

    def __init__(self, lab_):
        self.lab, self.name, self.host = lab_, "keeper", "n1"
        ready = lab_.directory("keeper") + "/ready"
        self.process = popen("n1", sys.executable, "-c", KEEPER, ready, PATTERN.hex(), stdout=subprocess.DEVNULL)
        wait_until("ready", lambda: read(ready) == "ready")
        self.pid = next(p.host_pid for p in processes("n1") if ready in p.cmdline and p.name.startswith("python"))

    def end(self):
        kill(next(p.pid for p in processes(self.host) if p.host_pid == self.pid), 9)
        self.process.wait()


def pattern_on_wire(move):
    """Whether the text is in what comes and goes at the switch meanwhile."""
    with open(f"/proc/{os.getpid()}/ns/net", encoding="ascii") as own, open(f"/var/run/netns/{os.path.basename(STATE).rpartition('-')[2]}-n2", "rb") as there:
        libc = __import__("ctypes").CDLL(None)
        assert libc.setns(there.fileno(), 0x40000000) == 0
        try:
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)   # SO_RCVBUFFORCE
            s.bind(("eth0", 0))
        finally:
            assert libc.setns(own.fileno(), 0x40000000) == 0
    move()
    s.setblocking(False)
    found, total = False, 0
    with contextlib.suppress(BlockingIOError), s:
        while True:
            packet = s.recv(1 << 17)
            total += len(packet)
            found = found or PATTERN * 3 in packet
    assert total > 100000, f"{total} bytes seen"
    return found


def test_nothing_readable(lab2, certificates):
    """The same move without TLS shows that it would be seen; a victim finds nothing changed."""
    keeper = Keeper(lab2)
    with configured(lab2, ()):
        assert pattern_on_wire(lambda: keeper.must_move("n2"))
        keeper.must_move("n1")
    with configured(lab2, ("n1", "n2")):
        assert re.search("with TLS", inside("n1", "godwit", "config", "check").stdout)
        for strategy in ("freeze-free", "pre-copy"):
            assert not pattern_on_wire(lambda: keeper.must_move("n2", strategy=strategy)), strategy      # noqa: B023
            keeper.must_move("n1")
        keeper.end()
        v = Victim(lab2, "mem_anon", 4).wait_ready()
        v.migrate("n2", "hybrid")
        v.assert_ok()
        v.clean()
    lab2.assert_clean()


def refused(lab_, v, here, there):
    """The process stays where it was, and both sides say why."""
    log = len(read(lab_.log("n2")))
    result = inside("n1", "godwit", "migrate", str(v.pid), "n2", check=False)
    assert result.returncode == 1 and re.search(here, result.stderr), result.stderr
    assert [host for host, _ in copies(lab_.hosts, v.status)] == ["n1"]
    wait_until("the log of n2", lambda: re.search("peer-refused.*(" + there + ")", read(lab_.log("n2"))[log:]), 5)


PLAIN = {
    "n1": (r"10\.66\.0\.2:4470 speaks without TLS, and this node has \[tls\]", r"speaks TLS, and this node has no \[tls\]"),
    "n2": (r"takes nothing without TLS: set it where you call from", r"speaks without TLS, and this node has \[tls\]"),
}


@pytest.mark.parametrize("with_tls", PLAIN)
def test_mixed(lab2, certificates, with_tls):
    v = Victim(lab2, "mem_anon", 1, expect_move=False).wait_ready()
    with configured(lab2, (with_tls,)):
        refused(lab2, v, *PLAIN[with_tls])
        v.assert_ok()
        v.clean()


def talk(host, data):
    """What is answered to that on godwitd's port until the connection ends."""
    code = ("import socket, sys\ns = socket.create_connection((sys.argv[1], 4470), 10)\ns.sendall(bytes.fromhex(sys.argv[2]))\nall = b''\n"
            "try:\n  while (b := s.recv(4096)): all += b\nexcept ConnectionResetError: pass\nsys.stdout.buffer.write(all.hex().encode())")
    return bytes.fromhex(inside("x1", sys.executable, "-c", code, f"10.66.0.{host[1:]}", data.hex()).stdout)


def check_no_byte_is_decoded(lab_):
    """What is no TLS is answered with a sentence, or not at all, and godwitd says that nothing of it was read; a frame that would be an error in itself is not found to be one."""
    bad_frame = b"GDW1" + struct.pack("<HHII", 1, 0, 0xffffffff, 0)
    log = len(read(lab_.log("n2")))
    assert b"takes nothing without TLS" in talk("n2", bad_frame)
    talk("n2", os.urandom(500))
    talk("n2", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    found = wait_until("three refusals", lambda: (lines := re.findall("event=peer-refused.*", read(lab_.log("n2"))[log:])) and len(lines) >= 3 and lines, 10)
    assert all(re.search(r"TLS", line) for line in found), found


def key_of(host):
    """The private number in a key file (RFC 5915)."""
    der = base64.b64decode("".join(line for line in read(os.path.join(STATE, "hosts", host, "etc/own/node.key")).splitlines() if "---" not in line))
    at = der.index(b"\x02\x01\x01\x04") + 5
    return der[at:at + der[at - 1]][-24:]


def memory_has(pid, text):
    """In either order of bytes."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in read(f"/proc/{pid}/maps").splitlines():
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if "rw" in line.split()[1]:
                data = os.pread(mem.fileno(), end - start, start)
                assert len(data) == end - start, line
                if text in data or text[::-1] in data:
                    return True
    return False


def starter_of(host):
    """Relays are its children, and have its name at first."""
    return next((p.pid for p in processes(host) if p.name == "godwit-tls" and p.parent == main_daemon(host).pid), None)


def check_relays_have_nothing(v):
    """Neither rights, nor the key, as soon as the other side has been accepted."""
    v.migrate("n2", "copy-on-reference")
    for host in ("n1", "n2"):
        relays = [p for p in processes(host) if p.name == "godwit-tls-link"]
        assert len(relays) >= 2, processes(host)
        assert memory_has(starter_of(host), key_of(host))
        for relay in relays:
            status = read(f"/proc/{relay.pid}/status")
            for line in status and ("Uid:\t65534\t65534\t65534\t65534", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
                assert line in status, status
            wait_until("the end of the key in a relay", lambda: not memory_has(relay.pid, key_of(host)), 3)     # noqa: B023
    v.migrate("n1")


def check_rotation(lab_, certificates, v):
    """A new CA, one host after the other, while a unit goes to and fro. Then the old certificates are worth nothing."""
    old = os.path.join(lab_.directory("old"), "n2")
    own = os.path.join(STATE, "hosts/n2/etc/own")

    def to_and_fro():
        v.migrate("n2")
        v.migrate("n1")
    shutil.copytree(own, old)
    pki(certificates.where, "rotate")
    for host in ("n2", "n1"):
        certificates.issue(host)
        to_and_fro()
    pki(certificates.where, "retire")
    for host in ("n1", "n2"):
        certificates.copy(host)
        to_and_fro()
    shutil.copytree(old, own, dirs_exist_ok=True)
    refused(lab_, v, "is not accepted: it is by no CA that is believed", "TLS|does not accept")
    certificates.copy("n2")


def test_certificates(lab2, certificates):
    """From the first move to the end of the CA, without a restart of godwitd."""
    v = Victim(lab2, "mem_anon", 1, expect_move=False).wait_ready()
    with configured(lab2, ("n1", "n2")):
        daemons = [main_daemon(host).pid for host in ("n1", "n2")]
        check_no_byte_is_decoded(lab2)
        check_relays_have_nothing(v)
        check_rotation(lab2, certificates, v)
        starter = starter_of("n2")
        kill(starter, 9)
        wait_until("another godwit-tls", lambda: starter_of("n2") not in (None, starter))
        v.migrate("n2")
        v.migrate("n1")
        Certificates(lab2).issue("n2")
        refused(lab2, v, "is not accepted: it is by no CA that is believed", "it is by no CA that is believed|does not accept|TLS")
        certificates.copy("n2")
        pki(certificates.where, "revoke", "n2")
        certificates.copy("n1")
        refused(lab2, v, "is not accepted: it has been revoked", "does not accept|TLS")
        assert daemons == [main_daemon(host).pid for host in ("n1", "n2")]
        v.assert_ok()
        v.clean()
    lab2.assert_clean()
