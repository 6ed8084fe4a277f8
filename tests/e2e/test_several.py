# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that do not descend from each other and move as one unit: a program and the daemons that have left its tree and still share memory and sockets with it."""

import json
import os

import pytest
from lab_driver import EXIT_REFUSED, Moved, find_process, inside, lab, popen, processes, read, wait_until

# Its daemon has left by a double fork, keeps the session or begins one, and has a child. It is asked by a file, and asks the daemon by a socket and by memory.
PROGRAM = r"""
import mmap, os, socket, sys, time
directory, own_session = sys.argv[1], sys.argv[2] == "setsid"
shared = mmap.mmap(-1, 4096)
mine, its = socket.socketpair()
if os.fork() == 0:
    if own_session: os.setsid()
    if os.fork(): os._exit(0)
    mine.close()
    daemon = os.getpid()
    if os.fork() == 0:
        while os.getppid() == daemon:
            shared[1] = (shared[1] + 1) % 256
            time.sleep(0.01)
    for line in its.makefile("r"):
        shared[0] += 1
        its.sendall(f"{os.getpid()} {os.uname().nodename}\n".encode())
    os._exit(0)
os.wait()
its.close()
answers = mine.makefile("r")
with open(f"{directory}/pid", "w") as f: f.write(str(os.getpid()))
def ask():
    mine.sendall(b"?\n")
    answer, before = answers.readline().strip(), shared[1]
    time.sleep(0.1)
    daemon = int(answer.split()[0])
    return f"{shared[0]} {shared[1] != before} {os.uname().nodename} {answer} {os.getsid(daemon) == os.getsid(0)} {os.getpgid(daemon) == os.getpgid(0)}\n"
n = 0
while True:
    if n == 0 or os.path.exists(f"{directory}/ask{n}"):
        with open(f"{directory}/new", "w") as f: f.write(ask())
        os.rename(f"{directory}/new", f"{directory}/answer{n}")
        n += 1
    if os.path.exists(f"{directory}/end"): sys.exit(7)
    time.sleep(0.02)
"""


class Family:
    def __init__(self, lab_, session):
        self.directory, self.asked = lab_.directory(f"several-{session}"), 0
        with open(f"{self.directory}/program.py", "w") as f:
            f.write(PROGRAM)
        self.shell = popen("n1", "sh", "-c", f"python3 {self.directory}/program.py {self.directory} {session} </dev/null >/dev/null 2>&1; exit $?")
        self.first = self.answer()
        self.daemon = int(self.first[3])
        self.pid = int(read(f"{self.directory}/pid"))

    def answer(self):
        path = f"{self.directory}/answer{self.asked}"
        wait_until("an answer", lambda: os.path.exists(path), 30)
        return read(path).split()

    def ask(self):
        self.asked += 1
        open(f"{self.directory}/ask{self.asked}", "w").close()
        return self.answer()

    def whole(self, host):
        """All of them are there, and are who they were to each other."""
        count, alive, *rest = self.ask()
        assert (int(count), alive) == (self.asked + 1, "True")
        assert rest == [host, self.first[3], host, *self.first[5:]], (rest, self.first)


def migrate_several(source, pids, dest, *options):
    return Moved(inside(source, "godwit", "migrate", "--json", *options, ",".join(map(str, pids)), dest, check=False))


@pytest.mark.parametrize("session", ["setsid", "stays"])
def test_program_and_daemon(lab2, session):
    f = Family(lab2, session)
    alone = migrate_several("n1", [f.pid], "n2")
    assert alone.status == EXIT_REFUSED and f"godwit migrate {f.pid},{f.daemon} HOST" in alone.text, alone.text
    checked = json.loads(inside("n1", "godwit", "check", "--json", f"{f.pid},{f.daemon}").stdout)
    assert checked["ok"], checked
    child = next(p.host_pid for p in processes("n1") if p.parent == find_process("n1", f.daemon).pid)
    pids = [f.pid, child, f.daemon] # what is below another one comes with that
    for source, dest, strategy in (("n1", "n2", "freeze-free"), ("n2", "n3", "pre-copy"), ("n3", "n2", "stop-copy"), ("n2", "home", "freeze-free"), ("n1", "n2", "hybrid")):
        moved = migrate_several(source, pids, dest, "--strategy", strategy)
        assert moved.status == 0, f"{source} to {dest}: {moved.why()}\n{lab2.log_tail(source)}"
        f.whole("n1" if dest == "home" else dest)
        pids = [moved.json["pid"], f.daemon]
    open(f"{f.directory}/end", "w").close()
    assert f.shell.wait(30) == 7
    lab2.assert_clean()


def test_whose_parent_waits(lab2):
    """Nobody outside of the unit may see one of them end: its parent has to come along."""
    inside("n1", "sh", "-c", "setsid -f sleep 1000 </dev/null >/dev/null 2>&1; setsid -f sh -c 'sleep 2000; true' </dev/null >/dev/null 2>&1")
    number = lambda text: next(p.host_pid for p in processes("n1") if p.cmdline == text)
    wait_until("they sleep", lambda: any(p.cmdline == "sleep 2000" for p in processes("n1")))
    one, child, parent = number("sleep 1000"), number("sleep 2000"), number("sh -c sleep 2000; true")
    refused = migrate_several("n1", [one, child], "n2")
    assert refused.status == EXIT_REFUSED and f"child of process {parent}, sh" in refused.text, refused.text
    moved = migrate_several("n1", [one, parent], "n2")
    assert moved.status == 0, moved.text
    assert {p.cmdline for p in processes("n2")} >= {"sleep 1000", "sleep 2000", "sh -c sleep 2000; true"}
    inside("n2", "pkill", "sleep")
    lab2.assert_clean()


@pytest.mark.parametrize("side, step, action", [("source", "go", "kill"), ("dest", "restore", "kill"), ("dest", "commit", "error"), ("source", "commit", "kill")])
def test_faults(lab2, side, step, action):
    """Whoever dies: all of them are in one place, and go on."""
    f = Family(lab2, "setsid")
    host = "n1" if side == "source" else "n2"
    inside(host, "sh", "-c", f"echo {side}:{step}:{action} >/run/godwit/fault")
    migrate_several("n1", [f.pid, f.daemon], "n2")
    inside(host, "rm", "-f", "/run/godwit/fault")
    where = f.ask()[2]
    f.whole(where)
    open(f"{f.directory}/end", "w").close()
    assert f.shell.wait(30) in (7, 137) # its stub may not have been made
    wait_until("the daemon has seen its end", lambda: not find_process(where, f.daemon))
    for name in lab2.hosts:
        wait_until("it is clean", lambda: not any(f.directory in p.cmdline for p in processes(name)), 10)
