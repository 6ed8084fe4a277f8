# SPDX-License-Identifier: GPL-2.0-or-later
"""A unit that comes home takes its stub's place; where that fails, it goes on where it was, and the stub is a stub."""

import hashlib
import os
import signal
import threading
import time

import pytest

from lab_driver import find_process, inside, migrate, processes, read, wait_until
from test_home import HOMEBODY, Family, family, nothing_left, relations  # noqa: F401 (a fixture)
from test_home_relay import ECHO, piped  # noqa: F401


@pytest.mark.parametrize("step, action", [("prepare", "error"), ("content", "kill"), ("rounds", "kill"), ("go", "error"), ("restore", "kill"), ("commit", "kill"),
                                          ("commit", "error"), ("pull", "kill")])
def test_fails(lab2, family, step, action):
    """At every step. Before the commit it stays where it was, and its parent has seen nothing."""
    f = family()
    before = relations(f.stub().pid)
    f.migrate("n2")
    f.wait_stub()
    inside("n1", "sh", "-c", f"echo dest:{step}:{action} >/run/godwit/fault")
    try:
        moved = migrate("n2", f.there, "home")
    finally:
        inside("n1", "rm", "-f", "/run/godwit/fault")
    if step != "pull":
        assert moved.status != 0
        wait_until("a stub", lambda: f.stub().cmdline.startswith("godwit-stub") and " n2:" in f.stub().cmdline)
        f.send(signal.SIGUSR1)
        f.wait_log("signal 10 ")
        assert read(f.log).splitlines()[-1].endswith(" n2")
        moved = migrate("n2", f.there, "home")
    assert moved.status == 0 or step == "pull", moved.why()
    assert relations(nothing_left(f).pid) == before
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    assert "stopped" not in read(f.news) and "continued" not in read(f.news)


def test_killed_on_the_way(lab2, family):
    """SIGKILL to what is no stub any more and not the program as yet."""
    f = family()
    f.migrate("n2")
    f.wait_stub()
    inside("n1", "sh", "-c", "echo dest:rounds:stop >/run/godwit/fault")
    mover = threading.Thread(target=migrate, args=("n2", f.there, "home"))
    try:
        mover.start()
        wait_until("the skeleton", lambda: not f.stub().cmdline.startswith("godwit-stub"))
        f.send(signal.SIGKILL)
    finally:
        inside("n1", "rm", "-f", "/run/godwit/fault")
        for p in processes("n1"):
            if p.state == "T" and p.name.startswith("godwit"):
                os.kill(p.pid, signal.SIGCONT)
    mover.join()
    f.wait_news("killed 9 clean")
    wait_until("all gone", lambda: not find_process("n2", f.there))


def test_other_user(lab2, family):
    """A program without rights: what its place takes it does not keep."""
    f = family(program="/usr/bin/setpriv", before=["--reuid", "65534", "--regid", "65534", "--clear-groups", HOMEBODY])
    status = lambda: [line for line in read(f"/proc/{f.stub().pid}/status").splitlines() if line.split(":")[0] in ("Uid", "Gid", "Groups", "CapEff", "CapPrm")]
    before = status()
    f.migrate("n2")
    f.wait_stub()
    inside("n1", "sh", "-c", "echo dest:rounds:kill >/run/godwit/fault")
    try:
        assert migrate("n2", f.there, "home").status != 0
    finally:
        inside("n1", "rm", "-f", "/run/godwit/fault")
    wait_until("a stub", lambda: f.stub().cmdline.startswith("godwit-stub") and status() == before)
    moved = migrate("n2", f.there, "home")
    assert moved.status == 0, moved.why()
    nothing_left(f)
    assert status() == before
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")


def pipes(p):
    return [os.readlink(f"/proc/{find_process('n1', p.pid).pid}/fd/{fd}") for fd in (0, 1)]


def test_pipes(lab2, piped):
    """It has its own pipes again, in which it finds what it had not read."""
    p = piped("/usr/bin/python3", "-c", ECHO)
    before = pipes(p)
    p.line()
    for turn in range(3):
        p.migrate("n2")
        p.say(f"away {turn}")
        assert p.line() == f"n2 away {turn}"
        moved = migrate("n2", p.pid, "home")
        assert moved.status == 0, moved.why()
        p.host = "n1"
        wait_until("no relay", lambda: not [q for h in lab2.hosts for q in processes(h) if q.name in ("godwit-home", "godwit-away")])
        assert pipes(p) == before
        p.say(f"home {turn}")
        assert p.line() == f"n1 home {turn}"
    p.shell.stdin.close()
    assert p.status() == 7
    lab2.assert_clean()


@pytest.mark.parametrize("slow", ["reader", "unit"])
def test_stream(lab2, piped, slow):
    """In the middle of a stream, with full pipes on either side of the unit."""
    program = "import os, sys, time\nwhile data := os.read(0, 4096):\n    os.write(1, data)\n    time.sleep(%s)\n" % (0.0005 if slow == "unit" else 0)
    p = piped("/usr/bin/python3", "-c", program)
    sent, got, failed = hashlib.sha256(), hashlib.sha256(), []
    over = threading.Event()

    def feed():
        i = 0
        while not over.is_set():
            block = "".join("%07d\n" % k for k in range(i, i + (1 << 13)))
            p.shell.stdin.write(block)
            sent.update(block.encode())
            i += 1 << 13
        p.shell.stdin.close()

    def move():
        try:
            for _ in range(2):
                p.migrate("n2")
                time.sleep(0.1)
                moved = migrate("n2", p.pid, "home")
                assert moved.status == 0, moved.why() + lab2.log_tail("n1")
                p.host = "n1"
        except AssertionError as e:
            failed.append(e)
        finally:
            over.set()
    threads = [threading.Thread(target=feed), threading.Thread(target=move)]
    for t in threads:
        t.start()
    while data := p.shell.stdout.read(1 << 14):
        if threads[1].is_alive() and slow == "reader":
            time.sleep(0.004)
        got.update(data.encode())
    for t in threads:
        t.join()
    assert not failed, "\n".join(str(e) for e in failed)
    assert sent.hexdigest() == got.hexdigest()
    assert p.status() == 0
    lab2.assert_clean()
