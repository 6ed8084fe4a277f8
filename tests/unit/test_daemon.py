#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""godwitd on loopback, without migrations: peers and clients, good and bad. Usage: test_daemon.py GODWITD GODWIT"""

import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

GODWITD, GODWIT = sys.argv[1:3]
HELLO, ANSWER, ERROR, NODE_INFO = 1, 12, 14, 15
ROLE_CONTROL, ROLE_GO, ROLE_NODE_INFO, ROLE_ASK = 0, 1, 8, 9


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def hello(role, version=1, mig=bytes(16), name=b"peer"):
    payload = field(1, version) + field(3, mig) + (field(4, role) if role else b"") + field(5, name)
    return b"GDW1" + struct.pack("<HHII", HELLO, 0, len(payload), 0) + payload


KEY_TEXT = b"a key that is long enough"
PACKET, MAC_AT = 1000, 968
NEWS, PROBE, ANSWER_KIND, QUESTION, FACTS = range(5)


def fnv(name):
    value = 0xcbf29ce484222325
    for byte in name:
        value = (value ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return value


def gossip(kind, name, key=None, version=1, state=1):
    """A datagram with one entry: its sender's, which does not know its address."""
    entry = struct.pack("<QQIHBB16sII18f", fnv(name), version, 0, 4470, state, 0, bytes(16), 5, 0, *[1.0] * 18)
    body = (b"GWg2" + bytes([1, kind, 0, 0]) + entry).ljust(MAC_AT, b"\0")
    return body + (hmac.digest(hashlib.sha256(key).digest(), body, "sha256") if key else bytes(32))


class Daemon:
    def __init__(self, extra="", start=True):
        self.dir = tempfile.TemporaryDirectory(prefix="godwit-test-")
        self.port = free_port()
        self.conf = os.path.join(self.dir.name, "godwit.conf")
        self.socket = os.path.join(self.dir.name, "run", "godwitd.sock")
        self.log = os.path.join(self.dir.name, "log")
        with open(self.conf, "w") as f:
            f.write(f"[node]\nname = t1\nlisten = 127.0.0.1\nport = {self.port}\nspeed = 2\nlabels = gpu zone=east\n[nodes]\nt1 = 127.0.0.1:{self.port}\n{extra}")
        if start:
            self.start()

    def start(self, before=(), **how):
        """before: a command that becomes godwitd; how: as Popen has it."""
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([*before, GODWITD, "--config", self.conf, "--socket", self.socket], stderr=log, **how)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.client().close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError("godwitd does not come up: " + self.text())

    def text(self):
        with open(self.log) as f:
            return f.read()

    def client(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        try:
            s.connect(self.socket)
        except OSError:
            s.close()
            raise
        return s

    def peer(self):
        s = socket.create_connection(("127.0.0.1", self.port))
        s.settimeout(20)
        return s

    def ask(self, line):
        with self.client() as s:
            s.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
            return [json.loads(x) for x in s.makefile() if x.strip()]

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(10)

    def stop(self):
        status = self.end()
        self.dir.cleanup()
        return status


def read_frame(s):
    header = b""
    while len(header) < 16:
        piece = s.recv(16 - len(header))
        if not piece:
            return None, header
        header += piece
    magic, kind, _, length, _ = struct.unpack("<4sHHII", header)
    assert magic == b"GDW1"
    payload = b""
    while len(payload) < length:
        payload += s.recv(length - len(payload))
    return kind, payload


class Gossip(unittest.TestCase):
    def talk(self, daemon, packet):
        """What comes back, b"" for nothing: the answer to a request behind it says that it has been read."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            s.settimeout(0.3)
            s.sendto(packet, ("127.0.0.1", daemon.port))
            try:
                return s.recv(2000)
            except TimeoutError:
                return b""

    def nodes(self, daemon):
        return {n["name"]: n["state"] for n in daemon.ask({"verb": "nodes"})[0]["result"]["nodes"]}

    def test_without_key(self):
        """Only the nodes of the configuration are believed, from where they are."""
        daemon = Daemon("t2 = 127.0.0.1:1\nt3 = 127.0.0.2:1\n")
        try:
            self.assertEqual(self.nodes(daemon), {"t1": "ok", "t2": "unreachable", "t3": "unreachable"})
            self.assertEqual(self.talk(daemon, gossip(PROBE, b"t9")), b"")
            self.assertEqual(self.talk(daemon, gossip(PROBE, b"t3")), b"")
            self.assertEqual(self.talk(daemon, gossip(PROBE, b"t2"))[:6], b"GWg2\2" + bytes([ANSWER_KIND]))
            self.assertEqual(self.nodes(daemon), {"t1": "ok", "t2": "ok", "t3": "unreachable"})
            facts = self.talk(daemon, gossip(QUESTION, b"t2", version=2))
            self.assertEqual(facts[:8] + facts[16:19] + facts[81:94], b"GWg2\0" + bytes([FACTS, 0, 0]) + b"t1\0" + b"gpu zone=east")
            self.talk(daemon, gossip(NEWS, b"t2", version=3, state=3))
            self.assertEqual(self.nodes(daemon)["t2"], "drained")
            self.assertEqual(daemon.text().count("event=gossip-refused"), 1)
        finally:
            self.assertEqual(daemon.stop(), 0)

    def test_with_key(self):
        """Everybody who has it is believed and nobody else; a node that is new is asked what it is."""
        path = os.path.join(tempfile.gettempdir(), f"godwit-key-{os.getpid()}")
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as f:
            f.write(KEY_TEXT + b"\n")
        daemon = Daemon(f"[cluster]\nkey_file = {path}\nseed = 127.0.0.1:1\n")
        try:
            self.assertEqual(self.talk(daemon, gossip(PROBE, b"t2")), b"")
            self.assertEqual(self.talk(daemon, gossip(PROBE, b"t2", b"another key, as long as that")), b"")
            answer = self.talk(daemon, gossip(PROBE, b"t2", KEY_TEXT))
            self.assertEqual((len(answer), answer[5]), (PACKET, ANSWER_KIND))
            self.assertEqual(hmac.digest(hashlib.sha256(KEY_TEXT).digest(), answer[:MAC_AT], "sha256"), answer[MAC_AT:])
            self.assertEqual(self.talk(daemon, answer[:-1] + bytes([answer[-1] ^ 1])), b"")
            os.chmod(path, 0o644)
            daemon.process.terminate()
            daemon.process.wait(10)
            with self.assertRaises(AssertionError) as refused:
                daemon.start()
            self.assertIn(f"chmod 600 {path}", str(refused.exception))
        finally:
            os.unlink(path)
            daemon.stop()


class Peers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()

    @classmethod
    def tearDownClass(cls):
        status = cls.daemon.stop()
        assert status == 0, f"godwitd ended with {status}"

    def exchange(self, data):
        with self.daemon.peer() as s:
            s.sendall(data)
            return read_frame(s)

    def test_node_info(self):
        kind, payload = self.exchange(hello(ROLE_NODE_INFO))
        self.assertEqual(kind, NODE_INFO)
        self.assertIn(b"t1", payload)

    def test_ask_about_unknown_migration(self):
        kind, payload = self.exchange(hello(ROLE_ASK, mig=bytes(range(16))))
        self.assertEqual((kind, payload[:1]), (ANSWER, b"\x12"))  # no field 1: outcome 0, unknown
        with open("/proc/sys/kernel/random/boot_id") as f:
            self.assertIn(f.read().strip().encode(), payload)

    def test_hello_in_pieces(self):
        with self.daemon.peer() as s:
            for byte in hello(ROLE_NODE_INFO):
                s.sendall(bytes([byte]))
            self.assertEqual(read_frame(s)[0], NODE_INFO)

    def test_garbage(self):
        kind, payload = self.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(kind, ERROR)
        self.assertIn(b"not a Godwit peer", payload)

    def test_too_long(self):
        kind, payload = self.exchange(b"GDW1" + struct.pack("<HHII", HELLO, 0, 1 << 30, 0))
        self.assertEqual(kind, ERROR)
        self.assertIn(b"at most 4096", payload)

    def test_other_version(self):
        kind, payload = self.exchange(hello(ROLE_CONTROL, version=2))
        self.assertEqual(kind, ERROR)
        self.assertIn(b"version 2", payload)

    def test_unknown_migration(self):
        kind, payload = self.exchange(hello(ROLE_GO, mig=bytes(range(16))))
        self.assertEqual(kind, ERROR)
        self.assertIn(b"no migration 00010203", payload)

    def test_silent_peers_block_nobody(self):
        silent = [self.daemon.peer() for _ in range(100)]
        self.assertEqual(self.exchange(hello(ROLE_NODE_INFO))[0], NODE_INFO)
        for s in silent:
            s.close()

    def test_silent_peer_is_dropped(self):
        with self.daemon.peer() as s:
            began = time.monotonic()
            self.assertEqual(s.recv(1), b"")
            self.assertLess(time.monotonic() - began, 8)

    def test_control_starts_a_worker(self):
        with self.daemon.peer() as s:
            s.sendall(hello(ROLE_CONTROL, mig=b"0123456789abcdef"))
            s.shutdown(socket.SHUT_WR)
            while s.recv(4096):
                pass
        self.assertIn("event=arriving mig=30313233 from=peer", self.daemon.text())


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("gone = 127.0.0.1:1\n")

    @classmethod
    def tearDownClass(cls):
        assert cls.daemon.stop() == 0

    def godwit(self, *arguments):
        return subprocess.run([GODWIT, "--socket", self.daemon.socket, *arguments], capture_output=True, text=True, timeout=30)

    def error(self, line):
        answer = self.daemon.ask(line)
        self.assertEqual(answer[-1]["event"], "error", answer)
        return answer[-1]["error"]

    def test_ps(self):
        self.assertEqual(self.daemon.ask({"verb": "ps"})[0]["result"]["units"], [])
        self.assertEqual(self.godwit("ps").returncode, 0)
        self.assertIn("gone: it is unreachable", self.godwit("ps").stderr)
        self.assertEqual(self.godwit("ps", "--here").stderr, "")

    def test_nodes(self):
        nodes = {n["name"]: n for n in json.loads(self.godwit("nodes", "--json").stdout)["nodes"]}
        self.assertEqual(nodes["t1"]["state"], "ok")
        self.assertTrue(nodes["t1"]["self"])
        self.assertEqual(nodes["gone"]["state"], "unreachable")
        self.assertIn("does godwitd run there?", nodes["gone"]["error"])
        indices = nodes["t1"]["indices"]
        self.assertEqual(indices["speed"], 2)
        self.assertEqual(nodes["t1"]["labels"], "gpu zone=east")
        self.assertTrue(indices["maxmem"] > indices["mem"] > 0 and indices["cores"] > 0)
        text = self.godwit("nodes").stdout
        for word in ("r15s", "ut", "swp", "t1", "gone", "unreachable", "gpu zone=east"):
            self.assertIn(word, text)

    def test_load_is_measured(self):
        """A program that computes: the run queue and the utilisation say so, and it is forgotten when it has ended."""
        def indices():
            return {n["name"]: n for n in json.loads(self.godwit("nodes", "--json").stdout)["nodes"]}["t1"]["indices"]

        def wait(what, holds):
            deadline = time.monotonic() + 60
            while not holds(indices()):
                self.assertLess(time.monotonic(), deadline, f"{what}: {indices()}")
                time.sleep(0.2)

        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                wait("a busy host", lambda i: i["r15s"] > 0.05 and i["ut"] > 0.005 and i["run"] > 0)
            finally:
                busy.kill()

    def test_select(self):
        for text, found in (("", ["t1"]), ("gpu", ["t1"]), ("zone==west", []), ("select[zone==east && cores>0] order[ut] rusage[mem=1]", ["t1"]),
                            ("name==gone", []), ("mem>1000T", [])):
            done = self.godwit("select", "-R", text)
            self.assertEqual((done.stdout.split(), done.returncode), (found, 0 if found else 1), text)
        done = self.godwit("select", "-R", "order[memory]")
        self.assertEqual(done.returncode, 2)
        self.assertIn("column 7: an index was expected", done.stderr)
        done = self.godwit("run", "-R", "fpga", "--", "true")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing has been started", done.stderr)
        self.assertEqual(self.godwit("run", "-R", "gpu", "--", "echo", "here").stdout, "here\n")

    def test_config_check(self):
        """All that is wrong, by line; what godwitd would refuse is refused, and nothing else."""
        path = os.path.join(self.daemon.dir.name, "wrong.conf")
        with open(path, "w") as f:
            f.write("[node]\nname = a b\nport = 99999\nlabels = gpu\n[nodes]\nn1 = 10.0.0\n[cluster]\nkey_file = /nonexistent/key\n")
        done = self.godwit("config", "check", path)
        self.assertEqual(done.returncode, 1)
        for line, word in ((2, "a b"), (3, "99999"), (6, "10.0.0")):
            self.assertRegex(done.stderr, f"(?m)^{path}:{line}: .*{word}")
        self.assertIn("/nonexistent/key", done.stderr)
        answer = json.loads(self.godwit("config", "check", path, "--json").stdout)
        self.assertEqual((answer["ok"], [e.get("line") for e in answer["errors"]]), (False, [2, 3, 6, None]))
        done = self.godwit("config", "check", self.daemon.conf)
        self.assertEqual((done.returncode, done.stdout.split(" at ")[0]), (0, f"{self.daemon.conf} is right: node t1"))
        self.assertIn("warning: the cluster has no key", done.stderr)
        self.assertEqual(self.godwit("config", "check", "/nonexistent/godwit.conf").returncode, 1)
        self.assertEqual(self.godwit("config").returncode, 2)

    def test_check_kernel(self):
        done = self.godwit("check", "--json")
        answer = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if answer["ok"] else 1)
        self.assertIn("userfaultfd-move", [f["name"] for f in answer["features"]])

    def test_bad_requests(self):
        for line in (b"junk\n", b"{}\n", b"[]\n", b"x" * 5000, b'{"verb":"cancel"}\n', b'{"verb":"migrate","pid":1}\n',
                     b'{"verb":"drain","parallel":0}\n', b'{"verb":"drain","also":["1"]}\n', b'{"verb":"drain","host":"a b"}\n', b'{"verb":"started"}\n', b'{"verb":"balance"}\n', b'{"verb":"balance","action":"explain"}\n',
                     b'{"verb":"migrate","pid":1,"host":"n2","reason":"a\\nb"}\n'):
            self.assertEqual(self.error(line)["code"], "bad-request")

    def test_hosts(self):
        pid = os.getpid()
        unknown = self.error({"verb": "migrate", "pid": pid, "host": "no-such-host.invalid"})
        self.assertEqual(unknown["code"], "unknown-host")
        self.assertIn("nodes known here: gone", unknown["message"])
        for here in ("t1", f"127.0.0.1:{self.daemon.port}"):
            self.assertEqual(self.error({"verb": "migrate", "pid": pid, "host": here})["code"], "here-already")

    def test_exit_statuses(self):
        pid = str(os.getpid())
        self.assertEqual(self.godwit("migrate", pid).returncode, 2)
        self.assertEqual(self.godwit("migrate", pid, "gone", "--timeout", "soon").returncode, 2)
        self.assertEqual(self.godwit("migrate", pid, "gone", "--strategy", "warp").returncode, 2)
        self.assertEqual(self.godwit("migrate", pid, "t1").returncode, 3)
        done = self.godwit("migrat")
        self.assertEqual(done.returncode, 2)
        self.assertIn("did you mean 'godwit migrate'?", done.stderr)

    def test_migrate_json_on_failure(self):
        child = subprocess.Popen(["sleep", "60"])
        try:
            done = self.godwit("migrate", str(child.pid), "gone", "--json")
            answer = json.loads(done.stdout)
            self.assertNotEqual(done.returncode, 0)
            for key in ("unit from to strategy freeze_us stopped_at_ns total_ms bytes_sent pages_sent pages_skipped_file pages_skipped_zero pages_faulted "
                        "pages_total rounds pid outcome error refusals").split():
                self.assertIn(key, answer)
            self.assertNotEqual(answer["outcome"], "moved")
            self.assertIsNone(child.poll())
        finally:
            child.kill()
            child.wait()

    def test_no_daemon(self):
        done = subprocess.run([GODWIT, "--socket", "/nonexistent/sock", "ps"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("start it, as root: godwitd", done.stderr)


class Lifetime(unittest.TestCase):
    def test_second_daemon_is_refused_and_a_dead_one_replaced(self):
        daemon = Daemon()
        second = subprocess.run([GODWITD, "--config", daemon.conf, "--socket", daemon.socket], capture_output=True, text=True, timeout=20)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another godwitd runs", second.stderr)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        self.assertTrue(os.path.exists(daemon.socket))
        daemon.start()
        self.assertEqual(daemon.stop(), 0)

    def told(self, notify, wanted):
        """What the service manager hears until `wanted`."""
        heard = []
        while wanted not in heard:
            heard += notify.recv(4096).decode().splitlines()
        return heard

    def ready(self, daemon, times):
        """Who can connect to a passed socket does not know yet that anybody listens."""
        deadline = time.monotonic() + 10
        while daemon.text().count("event=ready") < times and time.monotonic() < deadline:
            time.sleep(0.01)

    def test_service_manager(self):
        """sd_notify(3): ready when it can be asked, alive twice in each interval, stopping."""
        daemon = Daemon(start=False)
        self.addCleanup(daemon.dir.cleanup)
        for name in (os.path.join(daemon.dir.name, "notify"), "@godwit-test-" + str(os.getpid())):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.bind(name.replace("@", "\0"))
                notify.settimeout(10)
                daemon.start(env={**os.environ, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"})
                self.assertIn("STATUS=Ready", self.told(notify, "READY=1") + self.told(notify, "WATCHDOG=1"))
                began = time.monotonic()
                for _ in range(5):
                    self.told(notify, "WATCHDOG=1")
                self.assertLess(time.monotonic() - began, 5 * 0.4)
                with open(f"/proc/{daemon.process.pid}/environ", "rb") as f:
                    self.assertIn(b"NOTIFY_SOCKET", f.read())  # what it was started with; its children have it no longer
                self.assertEqual(daemon.end(), 0)
                self.assertNotIn("READY=1", self.told(notify, "STOPPING=1"))

    def test_watchdog_of_another(self):
        daemon = Daemon(start=False)
        self.addCleanup(daemon.dir.cleanup)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(os.path.join(daemon.dir.name, "notify"))
            daemon.start(env={**os.environ, "NOTIFY_SOCKET": notify.getsockname(), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
            time.sleep(0.5)
            self.assertEqual(daemon.end(), 0)
            notify.settimeout(1)
            self.assertNotIn("WATCHDOG=1", self.told(notify, "STOPPING=1"))

    def test_passed_socket(self):
        """sd_listen_fds(3): who asks while it is started anew waits, and is answered."""
        daemon = Daemon(start=False)
        self.addCleanup(daemon.dir.cleanup)
        os.mkdir(os.path.dirname(daemon.socket))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(daemon.socket)
            listener.listen(16)
            inode = os.stat(daemon.socket).st_ino
            how = {"before": ["sh", "-c", f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3<&{listener.fileno()}'], "pass_fds": [listener.fileno()]}
            daemon.start(**how)
            self.ready(daemon, 1)
            self.assertEqual(daemon.end(), 0)
            self.assertEqual(os.stat(daemon.socket).st_ino, inode)
            early = subprocess.Popen([GODWIT, "--socket", daemon.socket, "nodes", "--json"], stdout=subprocess.PIPE, text=True)
            time.sleep(0.2)
            self.assertIsNone(early.poll())
            daemon.start(**how)
            out, _ = early.communicate(timeout=20)
            self.assertEqual(early.returncode, 0)
            self.assertEqual(json.loads(out)["nodes"][0]["name"], "t1")
            self.assertEqual(daemon.end(), 0)

    def test_passed_socket_elsewhere(self):
        daemon = Daemon(start=False)
        self.addCleanup(daemon.dir.cleanup)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(daemon.dir.name, "other"))
            listener.listen(16)
            daemon.start(["sh", "-c", f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3<&{listener.fileno()}'], pass_fds=[listener.fileno()])
            self.assertEqual(daemon.end(), 0)
            self.assertIn("event=socket-ignored", daemon.text())

    def test_socket_is_for_everybody(self):
        """Who may ask for what is looked at when they ask (tests/e2e/test_access.py)."""
        daemon = Daemon()
        self.assertEqual(os.stat(daemon.socket).st_mode & 0o777, 0o666)
        daemon.stop()

    def test_wrong_config(self):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as f:
            f.write("[node]\nnmae = x\n")
            f.flush()
            done = subprocess.run([GODWITD, "--config", f.name, "--socket", "/nonexistent/s"], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn(":2: unknown key 'nmae'", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
