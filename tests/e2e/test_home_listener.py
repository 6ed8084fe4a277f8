# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs at home that connect to a unix socket that a unit listens on, wherever it runs: the socket's file is one of a directory that home serves."""

import pytest
from lab_driver import inside, migrate, popen, processes, wait_until

# Says where it is and who asks, then gives back what it gets in capitals until the end of it.
SERVER = r"""
import os, select, socket, struct, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX)
s.bind(name.replace("@", "\0"))
if name[0] == "/":
    os.chmod(name, 0o666)
s.listen(64)
open(sys.argv[2], "w").close()
clients = []
while True:
    for ready in select.select([s, *clients], [], [])[0]:
        if ready is s:
            c = s.accept()[0]
            pid, uid, gid = struct.unpack("3i", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            c.sendall(f"{os.getpid()} {uid} {gid}\n".encode())
            clients.append(c)
            continue
        data = b""
        try:
            data = ready.recv(65536)
            ready.sendall(data.upper() or b"end\n")
        except OSError: # the client has gone
            pass
        if not data:
            clients.remove(ready)
            ready.close()
"""

# Arguments: name, user, how many connections one after the other, bytes. Says what the first line was, and whether all came back.
CLIENT = r"""
import os, socket, sys, threading
name, uid, times, size = sys.argv[1].replace("@", "\0"), *map(int, sys.argv[2:5])
os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
for i in range(times):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(name)
    sent = b"abc%d " % i * (size // 5 + 1)
    threading.Thread(target=lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR)), daemon=True).start()
    got = b""
    while data := s.recv(65536):
        got += data
    first, rest = got.split(b"\n", 1)
    assert rest == sent.upper() + b"end\n", (len(rest), len(sent), rest[:50])
    s.close()
print(first.decode())
"""


class Server:
    def __init__(self, directory, name, cwd="."):
        self.name = name
        inside("n1", "sh", "-c", f"mkdir -p {directory}; cd {directory}; chmod 755 .; cat >server <<'EOF'\n{SERVER}\nEOF\ncat >client <<'EOF'\n{CLIENT}\nEOF\n"
               f"cd {cwd}; setsid -f /usr/bin/python3 {directory}/server {name} {directory}/ready >{directory}/out 2>&1 </dev/null")
        self.directory, self.host = directory, "n1"
        wait_until("it listens", lambda: inside("n1", "ls", f"{directory}/ready", check=False).returncode == 0)
        self.pid = next(p.host_pid for p in processes("n1") if f"/server {name} " in p.cmdline)

    def move(self, dest, strategy="freeze-free"):
        moved = migrate(self.host, self.pid, dest, strategy)
        assert moved.status == 0, moved.text
        self.host, self.pid = dest, moved.json["pid"]

    def ask(self, uid=0, times=1, size=10, host="n1"):
        done = inside(host, "/usr/bin/python3", f"{self.directory}/client", self.name, str(uid), str(times), str(size), check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def test_file_that_home_serves(lab2):
    s = Server("/tmp/listener", "/tmp/listener/socket")
    seen = s.ask(1234)
    for there in ("n2", "n3", "n1", "n2"):
        s.move(there)
        assert s.ask(1234) == seen
        assert s.ask().endswith(" 0 0")
        s.ask(times=40)
        s.ask(1234, size=3000000)
    inside("n2", "kill", str(s.pid))
    wait_until("nobody listens at home", lambda: "refused" in inside("n1", "/usr/bin/python3", f"{s.directory}/client", s.name, "0", "1", "1", check=False).stderr)
    lab2.assert_clean()


def test_elsewhere(lab2):
    """A program that has nothing else there, as a daemon: the directory is served because of its socket."""
    s = Server("/tmp/listener3", "/tmp/listener4/socket", "/; mkdir -p /tmp/listener4")
    inside("n1", "sh", "-c", "touch -d '1 day ago' /tmp/listener3/*; rm -f /tmp/listener3/ready")
    s.move("n2")
    s.ask()
    s.move("n1")
    s.ask()
    inside("n1", "kill", str(s.pid))


@pytest.mark.parametrize("name", ["@abstract", "/run/listener5/socket"])
def test_what_stays_behind_is_said(lab2, name):
    s = Server("/tmp/listener5", name, "/; mkdir -p /run/listener5")
    inside("n2", "mkdir", "-p", "/run/listener5")
    moved = migrate("n1", s.pid, "n2")
    assert moved.status == 0 and name in str(moved.json["notes"]), moved.text
    inside("n2", "kill", str(moved.json["pid"]))


def test_client_before_and_after(lab2):
    """One that connects while the unit moves waits until it is there; one that has connected at home goes on at the next host."""
    s = Server("/tmp/listener2", "/tmp/listener2/socket")
    s.move("n2")
    talks = popen("n1", "/usr/bin/python3", "-c", f"""if True:
        import socket
        s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect("{s.name}"); f = s.makefile("rw")
        print(f.readline(), end="", flush=True)
        while line := input():
            f.write(line + "\\n"); f.flush(); print(f.readline(), end="", flush=True)""", stdin=-1, stdout=-1)
    first = talks.stdout.readline()
    for there in ("n3", "n2", "n1", "n3"):
        many = there != "n1" and s.host != "n1" and popen("n1", "/usr/bin/python3", f"{s.directory}/client", s.name, "0", "40", "10", stdout=-1)
        s.move(there)
        print(there, file=talks.stdin, flush=True)
        assert talks.stdout.readline() == there.upper() + "\n"
        assert not many or many.communicate(timeout=120)[0] == first
    print(file=talks.stdin, flush=True)
    assert talks.wait(20) == 0
    inside("n3", "kill", str(s.pid))
    lab2.assert_clean()
