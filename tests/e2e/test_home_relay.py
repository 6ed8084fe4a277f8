# SPDX-License-Identifier: GPL-2.0-or-later
"""Pipes and FIFOs whose other end stays at home: data, end of file, broken pipes and back-pressure pass."""

import hashlib
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from lab_driver import STRATEGIES, find_process, inside, kill, migrate, popen, processes, read, wait_until

ECHO = """import os, sys
print(os.uname().nodename, "ready", flush=True)
for line in sys.stdin:
    print(os.uname().nodename, line.strip(), flush=True)
sys.exit(7)
"""
FLOOD = """import os
i = 0
while True:
    data = b"".join(b"%015d\\n" % k for k in range(i, i + 256))
    os.write(1, data)
    i += 256
"""


class Piped:
    """A command in a shell in n1, with its standard input and output on pipes to this process."""

    def __init__(self, lab_, *command):
        self.lab, self.directory = lab_, lab_.directory("relay")
        self.status_file, self.pid_file = os.path.join(self.directory, "status"), os.path.join(self.directory, "pid")
        self.shell = popen("n1", "sh", "-c", f'( echo $$ >/dev/null; sh -c \'echo $$ >{self.pid_file}; exec "$@"\' sh "$@" ); echo $? >{self.status_file}',
                           "sh", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.host, self.pid = "n1", int(wait_until("pid", lambda: read(self.pid_file).strip()))

    def migrate(self, dest, strategy="freeze-free"):
        moved = migrate(self.host, self.pid, dest, strategy)
        assert moved.status == 0, f"{moved.why()}\n{self.lab.log_tail(self.host)}\n{self.lab.log_tail(dest)}"
        self.host, self.pid = dest, moved.json["pid"]

    def line(self):
        return self.shell.stdout.readline().strip()

    def say(self, text):
        self.shell.stdin.write(text + "\n")
        self.shell.stdin.flush()

    def status(self):
        return int(wait_until("status", lambda: read(self.status_file).strip(), 20))

    def clean(self):
        self.shell.kill()
        for host in self.lab.hosts:
            for p in processes(host):
                if self.directory in p.cmdline or (p.host_pid == self.pid and host == self.host):
                    kill(p.pid, signal.SIGKILL)


@pytest.fixture
def piped(lab2):
    made = []

    def make(*command):
        made.append(Piped(lab2, *command))
        return made[-1]
    yield make
    for p in made:
        p.clean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lines_and_end(lab2, piped, strategy):
    p = piped("/usr/bin/python3", "-c", ECHO)
    assert p.line() == "n1 ready"
    p.say("one")
    assert p.line() == "n1 one"
    p.migrate("n2", strategy)
    p.say("two")
    assert p.line() == "n2 two"
    p.say("three")
    p.shell.stdin.close()
    assert p.line() == "n2 three"
    assert p.shell.stdout.read() == ""
    assert p.status() == 7
    lab2.assert_clean()


def test_reader_goes(lab2, piped):
    """SIGPIPE, as at home."""
    p = piped("/usr/bin/python3", "-c", "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n" + FLOOD)
    p.shell.stdout.read(1000)
    p.migrate("n2")
    p.shell.stdout.read(100000)
    p.shell.stdout.close()
    assert p.status() == 128 + signal.SIGPIPE
    lab2.assert_clean()


def test_back_pressure(lab2, piped):
    """A reader that does not read holds the writer up; nothing is lost or comes twice."""
    p = piped("/usr/bin/python3", "-c", FLOOD)
    p.shell.stdout.read(16)
    p.migrate("n2")

    def stands_still():
        there = find_process("n2", p.pid)
        return read(f"/proc/{there.pid}/wchan") in ("anon_pipe_write", "pipe_write")
    wait_until("the writer waits", stands_still)
    got = p.shell.stdout.read(16 * 30000)
    p.migrate("n3")
    got += p.shell.stdout.read(16 * 30000)
    assert got == "".join("%015d\n" % i for i in range(1, 60001))
    there = find_process("n3", p.pid)
    kill(there.pid, signal.SIGTERM)
    p.shell.stdout.read()
    assert p.status() == 128 + signal.SIGTERM


@pytest.mark.parametrize("strategy", ["freeze-free", "stop-copy"])
def test_stream_through_moves(lab2, piped, strategy):
    """cat, moved twice while data goes through it."""
    p = piped("cat")
    block = os.urandom(1 << 20).hex()
    sent, got, size = hashlib.sha256(), hashlib.sha256(), 0

    def feed():
        for _ in range(30):
            p.shell.stdin.write(block)
            sent.update(block.encode())
        p.shell.stdin.close()
    feeder = threading.Thread(target=feed)
    feeder.start()
    failed = []

    def move():
        try:
            for host in ("n2", "n3"):
                p.migrate(host, strategy)
        except AssertionError as e:
            failed.append(e)
    mover = threading.Thread(target=move)
    mover.start()
    while True:
        data = p.shell.stdout.read(1 << 16)
        if not data:
            break
        if mover.is_alive():
            time.sleep(0.004)
        got.update(data.encode())
        size += len(data)
    feeder.join()
    mover.join()
    assert not failed and p.host == "n3", failed
    assert size == 30 * len(block) and sent.hexdigest() == got.hexdigest()
    assert p.status() == 0


def test_pipeline_at_home(lab2):
    """The middle of a pipeline moves; its neighbours stay."""
    d = lab2.directory("pipeline")
    inside("n1", "setsid", "-f", "bash", "-c", f"""exec >/dev/null 2>&1 </dev/null
for i in $(seq 2000); do echo line $i; sleep 0.001; done | sh -c 'echo $$ >{d}/pid; exec sed -u "s/line/row/"' | sha256sum >{d}/sum
echo ${{PIPESTATUS[*]}} >{d}/status""")
    pid = int(wait_until("pid", lambda: read(f"{d}/pid").strip()))
    moved = migrate("n1", pid, "n2")
    assert moved.status == 0, moved.why()
    wait_until("the end", lambda: read(f"{d}/status"), 120)     # two thousand processes, one after the other
    expected = hashlib.sha256("".join(f"row {i}\n" for i in range(1, 2001)).encode()).hexdigest()
    assert read(f"{d}/sum").split()[0] == expected
    assert read(f"{d}/status").split() == ["0", "0", "0"]
    lab2.assert_clean()


def test_fifo(lab2):
    d = lab2.directory("fifo")
    os.mkfifo(f"{d}/fifo")
    inside("n1", "setsid", "-f", "bash", "-c", f"""exec >/dev/null 2>&1 </dev/null
sh -c 'echo $$ >{d}/pid; exec sed -u "s/^/got /" <{d}/fifo >{d}/out' & exec 3>{d}/fifo; echo one >&3
while [ ! -e {d}/go ]; do sleep 0.05; done; echo two >&3; exec 3>&-; wait $!; echo $? >{d}/status""")
    pid = int(wait_until("pid", lambda: read(f"{d}/pid").strip()))
    wait_until("one", lambda: read(f"{d}/out") == "got one\n")
    moved = migrate("n1", pid, "n2")
    assert moved.status == 0, moved.why()
    open(f"{d}/go", "w").close()
    wait_until("the end", lambda: read(f"{d}/status"), 30)
    assert read(f"{d}/out") == "got one\ngot two\n" and read(f"{d}/status") == "0\n"
    lab2.assert_clean()


def test_run(lab2):
    """godwit run --node: pipes, status and signals of a program that runs elsewhere from the start."""
    done = popen("n1", "sh", "-c", """printf 'a\\nb\\n' | godwit run --node n2 -- /usr/bin/python3 -c '
import os, sys, time
end = time.time() + 20
while os.uname().nodename != "n2" and time.time() < end: time.sleep(0.02)
for line in sys.stdin: print(os.uname().nodename, line.strip())
sys.exit(3)'; echo status $?""", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=40)
    assert re.fullmatch("n2 a\nn2 b\nstatus 3\n", out), (out, err)
    lab2.assert_clean()


def test_parent_is_outside_of_the_pid_namespace(lab2):
    """Who has entered the host (podman exec, nsenter, ip netns exec) waits as any parent, but no process of the host has its number."""
    done = inside("n1", "godwit", "run", "--node", "n2", "--", "sh", "-c", "while [ $(hostname) != n2 ]; do sleep 0.05; done; echo moved; exit 3", check=False)
    assert (done.returncode, done.stdout) == (3, "moved\n"), done
    lab2.assert_clean()


SERVER = """import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
while True:
    c = listener.accept()[0]
    if os.fork() == 0:
        f = c.makefile("rwb", buffering=0)
        total = 0
        for line in f:
            total += len(line)
            if line.startswith(b"say"): f.write(os.uname().nodename.encode() + b" " + line)
            if line.startswith(b"flood"): f.write(b"x" * 3000000 + bytes([10]))
            if line.startswith(b"bye"): sys.exit(0)
        f.write(b"total %d" % total)
        sys.exit(0)
    c.close()
"""
CLIENT = """import array, errno, os, signal, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rb")
print("ready", flush=True)
for line in sys.stdin:
    word, answer = line.split()[0], ""
    try:
        if word in ("say", "flood"):
            s.sendall(line.encode())
            got = f.readline()
            answer = got.decode().strip() if word == "say" else str(len(got))
        elif word == "pour":
            for i in range(3000): s.sendall(b"%0999d" % i + bytes([10]))
        elif word == "rights":
            s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        elif word == "half":
            s.shutdown(socket.SHUT_WR)
            answer = f.read().decode()
        elif word == "bye":
            s.sendall(line.encode())
            answer = repr(f.read())
            while True: s.sendall(b"lost")
    except OSError as e:
        answer += errno.errorcode[e.errno]
    print(os.uname().nodename, word, answer, flush=True)
sys.exit(9)
"""


@pytest.fixture
def served(lab2, piped):
    """A client at a service of n1."""
    path = f"{lab2.directory('unix')}/socket"
    server = popen("n1", "/usr/bin/python3", "-c", SERVER, path)
    wait_until("the service", lambda: os.path.exists(path))

    def client():
        p = piped("/usr/bin/python3", "-c", CLIENT, path)
        assert p.line() == "ready"
        return p

    def ask(p, text):
        p.say(text)
        return p.line()
    yield client, ask
    for q in processes("n1"):
        if path in q.cmdline and SERVER[:20] in q.cmdline:
            kill(q.pid, signal.SIGKILL)
    server.wait()
    lab2.assert_clean()


@pytest.mark.parametrize("strategy", ["freeze-free", "stop-copy"])
def test_unix_stream(lab2, served, strategy):
    """A connection to a service at home: data both ways, half a shutdown, and home again."""
    client, ask = served
    p = client()
    p.migrate("n2", strategy)
    assert ask(p, "say a") == "n2 say n1 say a"
    assert ask(p, "flood") == "n2 flood 3000001"
    assert ask(p, "pour") == "n2 pour"
    assert ask(p, "rights") == "n2 rights EPERM"
    p.migrate("n3", strategy)
    assert ask(p, "say b") == "n3 say n1 say b"
    moved = migrate("n3", p.pid, "home", strategy)
    assert moved.status == 0, moved.why()
    wait_until("no relay", lambda: not [q for h in lab2.hosts for q in processes(h) if q.name in ("godwit-home", "godwit-away")])
    assert ask(p, "say c") == "n1 say n1 say c"
    p.host = "n1"
    p.migrate("n2", strategy)
    assert ask(p, "half") == f"n2 half total {6 * 3 + 6 + 3000 * 1000}"
    p.shell.stdin.close()
    assert p.status() == 9


def test_unix_peer_goes(lab2, served):
    """End of file and EPIPE."""
    client, ask = served
    p = client()
    p.migrate("n2")
    assert ask(p, "bye") == "n2 bye b''EPIPE"
    p.shell.stdin.close()
    assert p.status() == 9


# Answers what begins with "say", and writes down all that comes, with whose it is.
LOGGER = """import os, socket, struct, sys
kind, path, log = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, getattr(socket, kind))
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)     # before anybody can send: what is accepted has it, too
s.bind(path)
if kind == "SOCK_SEQPACKET":
    s.listen(1)
    s = s.accept()[0]
out = open(log, "w", buffering=1)
while True:
    data, more, flags, sender = s.recvmsg(500000, 1000)
    if not more:
        break
    pid = struct.unpack("3i", more[0][2][:12])[0]
    print(pid, len(data), data[:40].decode(), file=out)
    if data.startswith(b"say"):
        answer = [os.uname().nodename.encode() + b" " + data]
        s.sendmsg(answer, [], 0, sender) if kind == "SOCK_DGRAM" else s.sendmsg(answer)
    if data.startswith(b"bye"):
        break
print("end", file=out)
"""
TALKER = """import errno, os, signal, socket, sys
kind, path = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, getattr(socket, kind))
if kind == "SOCK_DGRAM":
    s.bind(path + ".client")
s.connect(path)
print("ready", flush=True)
for line in sys.stdin:
    word, answer = line.split()[0], ""
    try:
        if word == "many":
            for i in range(2000): s.send(b"message %d " % i + b"x" * (i % 700))
        elif word == "large":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 500000)
            s.send(b"large" + b"y" * 150000)
            s.send(b"")
            s.send(b"after")
        elif word == "lost":
            for i in range(100000): s.send(b"lost")
        else:
            s.send(line.strip().encode())
            if word == "say": answer = s.recv(1000).decode()
    except OSError as e:
        answer += errno.errorcode[e.errno]
    print(os.uname().nodename, word, answer, s.getpeername() == path if word == "say" else "", flush=True)
sys.exit(9)
"""


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_unix_messages(lab2, piped, kind):
    """A service at home that takes messages (/dev/log): they stay whole and in order, wherever the program is, and are its own."""
    d = lab2.directory("messages")
    path, log = f"{d}/socket", f"{d}/log"
    server = popen("n1", "/usr/bin/python3", "-c", LOGGER, kind, path, log)
    wait_until("the service", lambda: os.path.exists(path))
    p = piped("/usr/bin/python3", "-c", TALKER, kind, path)
    assert p.line() == "ready"
    pid, hosts = p.pid, []

    def ask(text):
        p.say(text)
        return p.line().split()
    try:
        for dest in (None, "n2", "n3", "home", "n2"):
            if dest:
                moved = migrate(p.host, p.pid, dest)
                assert moved.status == 0, f"{moved.why()}\n{lab2.log_tail('n1')}"
                p.host, p.pid = moved.json["to"], moved.json["pid"]
            if dest == "home":
                wait_until("no relay", lambda: not [q for h in lab2.hosts for q in processes(h) if q.name in ("godwit-home", "godwit-away")])
            hosts.append(p.host)
            assert ask(f"say {dest}") == [p.host, "say", "n1", "say", str(dest), "True"]
            assert ask("many") == [p.host, "many"] and ask("large") == [p.host, "large"]
        assert ask("bye") == ["n2", "bye"]
        wait_until("the end", lambda: read(log).endswith("end\n"), 30)
        server.wait()
        answer = ask("lost")
        assert answer[:2] == ["n2", "lost"] and answer[2] in ("ECONNREFUSED", "EPIPE", "ECONNRESET"), answer
    finally:
        server.kill()
        server.wait()
    lines = [line.split() for line in read(log).splitlines()]
    expected = []
    for dest in (None, "n2", "n3", "home", "n2"):
        expected += [["say", str(dest)]] + [["message", str(i), "x" * (i % 700)] for i in range(2000)] + [["large" + "y" * 150000], [], ["after"]]
    expected += [["bye"]]
    assert [line[1:3] for line in lines[:-1]] == [[str(len(" ".join(w))), *" ".join(w)[:40].split()[:1]] for w in expected]
    assert {line[0] for line in lines[:-1]} == {str(pid)}
    p.shell.stdin.close()
    assert p.status() == 9
    lab2.assert_clean()
