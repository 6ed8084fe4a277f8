# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that a signal has stopped: they move, stay stopped, and go on when they are continued."""

import ctypes
import os
import re
import signal
import time
from threading import Thread, Timer

import pytest

from lab_driver import CHECK_FILE, STRATEGIES, Victim, copies, inside, kill, migrate, read, runs, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)


def state(pid):
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]


def stop(v, number=signal.SIGSTOP):
    pid = v.process().pid
    os.kill(pid, number)
    wait_until(f"{v.name} stopped", lambda: state(pid) == "T" and all(state(f"{pid}/task/{t}") == "T" for t in os.listdir(f"/proc/{pid}/task")))


def cpu_time(pid):
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:13]


def assert_stays_stopped(v):
    pid = v.process().pid
    tasks = os.listdir(f"/proc/{pid}/task")
    wait_until(f"{v.name} stopped at the destination", lambda: all(state(f"{pid}/task/{t}") == "T" for t in tasks), 2)
    before = cpu_time(pid)
    time.sleep(0.05)
    assert cpu_time(pid) == before and state(pid) == "T", f"{v.name} ran although it is stopped"


def queue(pid, number, value):
    """sigqueue(3) from here."""
    assert LIBC.sigqueue(pid, number, ctypes.c_void_p(value)) == 0


def pending(pid):
    return re.findall(r"^(?:SigPnd|ShdPnd):\s*(\S+)$", read(f"/proc/{pid}/status"), re.M)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stopped(lab2, strategy):
    v = Victim(lab2, "stop_signals", 1, flags=CHECK_FILE).wait_ready()
    stop(v)
    for host in ("n2", "n3"):
        v.migrate(host, strategy)
        assert_stays_stopped(v)
        if strategy != "copy-on-reference":
            v.assert_untouched_by_godwit()
        else:
            break
    pid = v.process().pid
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    queue(pid, signal.SIGRTMIN + 4, 5)
    queue(pid, signal.SIGRTMIN + 4, 7)
    os.kill(pid, signal.SIGCONT)
    v.assert_ok()


@pytest.mark.parametrize("strategy", ["freeze-free", "stop-copy"])
def test_signals_sent_while_stopped(lab2, strategy):
    """They are pending before the move, and are delivered when the process goes on at the destination; not before."""
    v = Victim(lab2, "stop_signals", 1, flags=CHECK_FILE).wait_ready()
    stop(v)
    pid = v.process().pid
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    queue(pid, signal.SIGRTMIN + 4, 5)
    queue(pid, signal.SIGRTMIN + 4, 7)
    before = pending(pid)
    v.migrate("n2", strategy)
    assert_stays_stopped(v)
    assert pending(v.process().pid) == before
    os.kill(v.process().pid, signal.SIGCONT)
    v.assert_ok()


@pytest.mark.parametrize("name", ["thread_ident", "ws_random", "signal_deliver", "seccomp_strict", "thread_spawn", "mem_anon"])
def test_kinds_of_victims_stopped(lab2, name):
    flags = CHECK_FILE if name.startswith("signal") else 0
    v = Victim(lab2, name, *([16] if name == "ws_random" else []), flags=flags).wait_ready()
    stop(v)
    v.migrate("n2")
    assert_stays_stopped(v)
    os.kill(v.process().pid, signal.SIGCONT)
    v.assert_ok()


def test_stopped_and_refused(lab2):
    """What fails before the commit leaves it stopped where it was, with nobody the wiser."""
    v = Victim(lab2, "stop_signals", flags=CHECK_FILE, expect_move=False).wait_ready()
    stop(v)
    for fault in ("dest:restore:error", "source:go:error", "dest:rounds:error", "source:freeze:error"):
        host = "n2" if fault.startswith("dest") else "n1"
        inside(host, "sh", "-c", f"echo {fault} > /run/godwit/fault")
        result = migrate("n1", v.pid, "n2")
        inside(host, "rm", "-f", "/run/godwit/fault")
        assert result.status not in (0, 99), result.text
        assert_stays_stopped(v)
    v.assert_untouched_by_godwit()
    os.kill(v.process().pid, signal.SIGCONT)
    v.assert_ok()


@pytest.mark.parametrize("step", ["freeze", "go"])
def test_worker_dies_while_it_holds_a_stopped_process(lab2, step):
    v = Victim(lab2, "stop_signals", flags=CHECK_FILE, expect_move=False).wait_ready()
    stop(v)
    inside("n1", "sh", "-c", f"echo source:{step}:kill > /run/godwit/fault")
    migrate("n1", v.pid, "n2", timeout=30)
    inside("n1", "rm", "-f", "/run/godwit/fault")
    wait_until("stopped where it was", lambda: state(v.process().pid) == "T", 5)
    os.kill(v.process().pid, signal.SIGCONT)
    v.assert_ok()


@pytest.mark.parametrize("strategy", ["freeze-free", "stop-copy"])
def test_stopped_while_it_moves(lab2, strategy):
    """SIGSTOP at any moment of a move: it ends up stopped, wherever it is then. (One that comes when the copy here has ended finds nobody.)"""
    stopped = 0
    for tries in range(12):
        v = Victim(lab2, "ws_random", 16).wait_ready()
        pid = v.process().pid
        timer = Timer(0.005 * tries + 0.02, lambda: kill(pid, signal.SIGSTOP))
        timer.start()
        v.migrate("n2", strategy)
        timer.join()
        moved = v.process()
        time.sleep(0.02)
        stopped += state(moved.pid) == "T"
        os.kill(moved.pid, signal.SIGCONT)
        v.assert_ok()
    assert stopped, "none of the stops has come in time: this test tests nothing"


@pytest.mark.parametrize("strategy", ["freeze-free", "stop-copy"])
def test_signals_while_it_moves(lab2, strategy):
    """A stream of numbered signals to the process, sent until its number is gone here: all of them arrive there, in order."""
    for _ in range(4):
        v = Victim(lab2, "signal_numbers", 1, flags=CHECK_FILE).wait_ready()
        pid, sent = v.process().pid, [0]

        def shower():
            while LIBC.sigqueue(pid, signal.SIGRTMIN + 7, ctypes.c_void_p(sent[0])) == 0:
                sent[0] += 1
                time.sleep(0.0001)

        thread = Thread(target=shower)
        thread.start()
        v.migrate("n2", strategy)
        thread.join()
        with open(v.status + ".sent", "w") as f:
            f.write(str(sent[0]))
        v.assert_ok()


def test_stopped_with_a_parent_that_waits(lab2):
    """Its number at home becomes a stub that is stopped, too; who continues that continues the process."""
    from test_home import Family
    f = Family(lab2)
    try:
        os.kill(f.unit().pid, signal.SIGSTOP)
        f.wait_news("stopped 19")
        f.migrate("n2")
        f.wait_stub()
        wait_until("stopped there", lambda: state(f.unit().pid) == "T", 5)
        wait_until("the stub stopped", lambda: state(f.stub().pid) == "T", 5)
        time.sleep(0.1)
        assert state(f.unit().pid) == "T", "the stub's making has continued it"
        f.send(signal.SIGCONT)
        wait_until("going on there", lambda: state(f.unit().pid) != "T", 5)
        f.send(signal.SIGTERM)
        f.wait_news("exited 42")
    finally:
        f.clean()


# What happens to a filtered process whose worker dies may not be worse than its filter's verdict; and there are never two of it.
@pytest.mark.parametrize("name, fault", [(name, fault) for name in ("seccomp_tsync", "seccomp_strict")
                                         for fault in ("source:freeze:kill", "source:go:kill", "source:commit:kill", "dest:restore:kill",
                                                       "dest:commit:kill", "source:rounds:kill")
                                         # strict mode allows nobody to set a signal mask
                                         if not (name == "seccomp_strict" and fault in ("source:freeze:kill", "source:go:kill"))])
def test_filtered_and_a_worker_dies(lab2, name, fault):
    v = Victim(lab2, name, flags=CHECK_FILE if name == "seccomp_tsync" else 0, expect_move=False).wait_ready()
    host = "n1" if fault.startswith("source") else "n2"
    inside(host, "sh", "-c", f"echo {fault} > /run/godwit/fault")
    migrate("n1", v.pid, "n2", timeout=40)
    inside(host, "rm", "-f", "/run/godwit/fault")

    def places():
        return [h for h, p in copies(["n1", "n2"], v.status) if runs(p.pid)]

    wait_until("one copy that runs, or an end", lambda: len(places()) == 1 or v.verdict_line(), 20)
    v.host = places()[0]
    v.pid = next(p.host_pid for _, p in copies([v.host], v.status))
    v.assert_ok()
