# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that somebody at home waits for: its number there stays a live process that forwards signals and ends as it ends."""

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from lab_driver import (BUILD, ROOT, STRATEGIES, VICTIMS, find_process, inside, kill, lab, main_daemon, migrate, processes, read, residue, strangers, wait_until)

HOMEBODY = os.path.join(VICTIMS, "homebody")
WAITER = os.path.join(ROOT, "tests/victims/waiter.py")


def relations(pid):
    """Parent, group and session of a process, as this host numbers them."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1:4]


class Family:
    """A parent in n1 that waits for a child, and the child wherever it is."""

    def __init__(self, lab_, program=HOMEBODY, host="n1", group=False, before=()):
        self.lab, self.directory = lab_, lab_.directory("home")
        self.log, self.news = os.path.join(self.directory, "log"), os.path.join(self.directory, "news")
        os.chmod(self.directory, 0o777)
        inside(host, *(["env", "WAITER_GROUP=1"] if group else []), "setsid", "-f", WAITER, self.news, program, *before, self.log)
        words = wait_until("ready", lambda: re.search(r"^ready (\d+) (\d+) (\d+) (\d+)$", read(self.log), re.M))
        self.pid, self.ppid, self.pgid, self.sid = map(int, words.groups())
        wait_until("parent", lambda: f"child {self.pid}" in read(self.news))
        self.host, self.home = host, host
        self.there = self.pid

    def migrate(self, dest, strategy="freeze-free", **options):
        moved = migrate(self.host, self.there, dest, strategy, **options)
        assert moved.status == 0, f"{moved.why()}\n{self.lab.log_tail(self.host)}\n{self.lab.log_tail(dest)}"
        self.host, self.there = dest, moved.json["pid"]
        return moved

    def stub(self):
        """The process with its number at home."""
        p = find_process(self.home, self.pid)
        assert p, f"no process {self.pid} on {self.home}: {read(self.news)}\n{self.lab.log_tail(self.home)}"
        return p

    def wait_stub(self):
        wait_until("stub", lambda: self.stub().cmdline.startswith("godwit-stub"), 5)
        return self.stub()

    def unit(self):
        p = find_process(self.host, self.there)
        assert p, f"no process {self.there} on {self.host}"
        return p

    def send(self, number):
        os.kill(self.stub().pid, number)

    def wait_log(self, line, count=1):
        wait_until(f"{line!r} {count} times in {read(self.log)!r}", lambda: read(self.log).count(line) >= count)

    def wait_news(self, line, count=1):
        wait_until(f"{line!r} {count} times in {read(self.news)!r}", lambda: read(self.news).count(line + "\n") >= count)

    def clean(self):
        for host in self.lab.hosts:
            for p in processes(host):
                if self.log in p.cmdline or self.news in p.cmdline:
                    kill(p.pid, signal.SIGKILL)


@pytest.fixture
def family(lab2):
    made = []

    def make(**options):
        made.append(Family(lab2, **options))
        return made[-1]
    yield make
    for f in made:
        f.clean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_signals_and_status(lab2, family, strategy):
    f = family()
    f.migrate("n2", strategy)
    stub = f.wait_stub()
    assert "homebody" in stub.cmdline and " n2:" in stub.cmdline and stub.name == "homebody"
    assert len(os.listdir(f"/proc/{stub.pid}/fd")) == 2
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3):
        f.send(number)
        f.wait_log(f"signal {int(number)} ")
    assert " n2" in read(f.log).splitlines()[-1]
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    wait_until("all gone", lambda: not find_process("n2", f.there))
    lab2.assert_clean()


@pytest.mark.parametrize("number, news", [(signal.SIGALRM, f"killed {int(signal.SIGSEGV)} clean"), (signal.SIGQUIT, f"killed {int(signal.SIGQUIT)} clean"),
                                          (signal.SIGKILL, f"killed {int(signal.SIGKILL)} clean")])
def test_death_by_signal(lab2, family, number, news):
    f = family()
    f.migrate("n2")
    f.wait_stub()
    f.send(number)
    f.wait_news(news)
    wait_until("the unit has ended", lambda: not find_process("n2", f.there))
    lab2.assert_clean()


def test_killed_there(lab2, family):
    f = family()
    f.migrate("n2")
    f.wait_stub()
    os.kill(f.unit().pid, signal.SIGKILL)
    f.wait_news("killed 9 clean")
    lab2.assert_clean()


def test_siginfo(lab2, family):
    """A queued value arrives, in order."""
    f = family()
    f.migrate("n2")
    stub = f.wait_stub()
    for value in range(5):
        inside("n1", "python3", "-c", f"""import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.sigqueue({stub.host_pid}, 40, ctypes.c_void_p({value + 100})) == 0""")
    f.wait_log("signal 40 -1 104 n2")
    assert [int(v) for v in re.findall(r"^signal 40 -1 (\d+) n2$", read(f.log), re.M)] == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("group", [False, True])
def test_stop_and_continue(lab2, family, group):
    f = family(group=group)
    f.migrate("n2")
    f.wait_stub()
    f.send(signal.SIGSTOP)
    f.wait_news("stopped 19")
    wait_until("the unit is stopped", lambda: f.unit().state == "T")
    f.send(signal.SIGCONT)
    f.wait_news("continued")
    wait_until("the unit goes on", lambda: f.unit().state != "T")
    f.wait_log("signal 18 ")
    f.send(signal.SIGUSR1)
    f.wait_log("signal 10 ")
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")


@pytest.mark.parametrize("filtered", [False, True])
def test_continued_at_once(lab2, family, filtered):
    """As soon as it has stopped it is continued: that it has stopped is still on its way home then."""
    f = family(group=True, before=["filtered"] if filtered else [])
    f.migrate("n2")
    f.wait_stub()
    for i in range(15):
        f.send(signal.SIGSTOP)
        wait_until("the unit is stopped", lambda: f.unit().state == "T")
        f.send(signal.SIGCONT)
        wait_until("the unit goes on", lambda: f.unit().state != "T")
        f.wait_log("signal 18 ", i + 1)
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    assert read(f.news).count("stopped") <= 15


def test_stops_itself(lab2, family):
    """SIGTSTP at the unit's host stops the stub by the same signal; it is continued at home."""
    f = family(group=True)
    f.migrate("n2")
    f.wait_stub()
    f.send(signal.SIGUSR2)
    f.wait_news(f"stopped {int(signal.SIGTSTP)}")
    assert f.unit().state == "T"
    f.send(signal.SIGCONT)
    f.wait_news("continued")
    wait_until("the unit goes on", lambda: f.unit().state != "T")
    # stopped and continued where it is: seen at home as well
    os.kill(f.unit().pid, signal.SIGSTOP)
    f.wait_news("stopped 19")
    os.kill(f.unit().pid, signal.SIGCONT)
    f.wait_news("continued", 2)
    wait_until("the stub goes on", lambda: f.stub().state != "T")


def test_same_relations(lab2, family):
    f = family(group=True)
    before = (f.pid, f.ppid, f.pgid)
    f.migrate("n2")
    f.wait_stub()
    there = f.unit()
    stat = read(f"/proc/{there.pid}/stat").rpartition(")")[2].split()
    parent = next(p for p in processes("n2") if p.pid == int(stat[1]))
    assert (there.host_pid, parent.host_pid) == before[:2] and parent.name == "godwit-away"


def test_moves_on(lab2, family):
    """From n2 to n3: the stub follows."""
    f = family()
    f.migrate("n2")
    f.wait_stub()
    f.migrate("n3")
    wait_until("the stub has followed", lambda: " n3:" in f.stub().cmdline)
    f.send(signal.SIGUSR1)
    f.wait_log("signal 10 ")
    assert read(f.log).splitlines()[-1].endswith(" n3")
    wait_until("nothing left on n2", lambda: not strangers("n2"))
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    lab2.assert_clean()


def nothing_left(f, pages=True):
    """At home it is a process as any other."""
    wait_until("an ordinary process", lambda: not [p for h in f.lab.hosts for p in processes(h) if p.name in ("godwit-home", "godwit-away")])
    p = find_process("n1", f.pid)
    assert "homebody" in p.cmdline and not p.cmdline.startswith("godwit-stub"), p.cmdline
    assert not pages or not residue(p.pid)
    return p


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_comes_back(lab2, family, strategy):
    """`godwit migrate PID home`: it takes the place of its stub, and is a child of its parent again."""
    f = family(group=strategy == "freeze-free")
    before = relations(f.stub().pid)
    f.migrate("n2")
    f.wait_stub()
    f.migrate("n3")
    f.send(signal.SIGUSR1)
    f.wait_log("signal 10 ")
    moved = migrate("n3", f.there, "home", strategy)
    assert moved.status == 0 and moved.json["to"] == "n1", moved.why() + lab2.log_tail("n1")
    assert relations(nothing_left(f, strategy != "copy-on-reference").pid) == before
    f.send(signal.SIGUSR1)
    f.wait_log("signal 10 ", 2)
    assert read(f.log).splitlines()[-1].endswith(" n1")
    f.host, f.there = "n1", f.pid
    f.migrate("n2")
    assert f.wait_stub()
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    lab2.assert_clean()


def test_by_name(lab2, family):
    """HOME:PID on any node, and the stub's number at home, mean the unit, wherever it is."""
    f = family()
    unit = f"n1:{f.stub().host_pid}"

    def move(host, what, dest, to=None):
        moved = migrate(host, what, dest)
        assert moved.status == 0 and moved.json["to"] == (to or dest) and moved.json["unit"] == unit, moved.why()
        f.host, f.there = to or dest, moved.json["pid"]

    def listed(host, on):
        return [u for u in json.loads(inside(host, "godwit", "ps", "--here", "--json").stdout)["units"] if u["unit"] == unit and u["on"] == on]
    move("n1", unit, "n2")
    assert f.wait_stub().host_pid == listed("n1", "n2")[0]["pid"] and listed("n2", "n2") and not listed("n3", "n2")
    move("n1", f.stub().host_pid, "n3")
    wait_until("the stub has followed", lambda: listed("n1", "n3"))
    move("n2", unit, "n2")
    wait_until("the stub has followed", lambda: listed("n1", "n2"))
    here = migrate("n1", unit, "n2")
    assert here.status == 3 and "on n2 already" in here.text, here.text
    move("n3", unit, "home", "n1")
    nothing_left(f)
    assert not listed("n1", "n2")
    away = migrate("n2", "n1:99999", "n3")
    assert away.status == 1 and "nobody knows of a unit n1:99999 (asked: n2, n1, n3)" in away.text, away.text
    assert migrate("n1", "n9:1:2", "n2").status == 2
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    lab2.assert_clean()


def test_daemons_restart(lab2, family):
    f = family()
    f.migrate("n2")
    f.wait_stub()
    lab2.restart_daemon("n1")
    lab2.restart_daemon("n2")
    f.send(signal.SIGUSR1)
    f.wait_log("signal 10 ")
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    lab2.assert_clean()


def test_cut_link(lab2, family):
    """A signal that is sent while the hosts do not reach each other arrives afterwards, once; so does the end."""
    f = family()
    f.migrate("n2")
    f.wait_stub()
    lab("cut", "n1", "n2")
    f.send(signal.SIGUSR1)
    f.send(signal.SIGRTMIN + 1)
    lab("heal", "n1", "n2")
    wait_until("both", lambda: read(f.log).count("signal ") == 2, 60)
    lab("cut", "n1", "n2")
    os.kill(f.unit().pid, signal.SIGTERM)
    lab("heal", "n1", "n2")
    wait_until("the end", lambda: "exited 42\n" in read(f.news), 60)


def test_moves_on_unseen(lab2, family):
    """It moves on while home cannot be reached, for longer than anything waits: the stub follows when it can."""
    f = family()
    f.migrate("n2")
    f.wait_stub()
    lab("cut", "n1", "n2")
    try:
        f.migrate("n3")
        time.sleep(12)
        assert f.stub() and f.unit()
    finally:
        lab("heal", "n1", "n2")
    wait_until("the stub has followed", lambda: " n3:" in f.stub().cmdline, 60)
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    lab2.assert_clean()


def test_home_dies(lab2, family):
    """The unit lives on when its home loses its power."""
    f = family()
    f.migrate("n2")
    f.wait_stub()
    lab("kill", "n1")
    try:
        os.kill(f.unit().pid, signal.SIGUSR1)
        f.wait_log("signal 10 ")
        assert not residue(f.unit().pid)
    finally:
        kill(f.unit().pid, signal.SIGKILL)
        lab("start", "n1")


def test_pending_signals_once(lab2, family):
    """Signals pending at the freeze travel, those behind it are forwarded: each arrives once."""
    f = family()
    os.kill(f.unit().pid, signal.SIGSTOP)
    kill(f.unit().pid, signal.SIGCONT)
    f.wait_log("signal 18 ")
    sender = subprocess.Popen(["bash", "-c", f"for i in $(seq 300); do kill -44 {f.stub().pid}; done"])
    f.migrate("n2")
    sender.wait()
    f.wait_log("signal 44 ", 300)
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    assert read(f.log).count("signal 44 ") == 300


@pytest.fixture
def filtered(family):
    """homebody with a system call filter that kills it for what a stub does."""
    made = family(before=["filtered"], group=True)
    assert "Seccomp:\t2" in read(f"/proc/{made.stub().pid}/status")
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_filtered(lab2, filtered, strategy):
    """The stub has the filter too, which is out of force as long as godwit-home traces it."""
    f = filtered
    before = relations(f.stub().pid)
    f.migrate("n2", strategy)
    assert "Seccomp:\t2" in read(f"/proc/{f.wait_stub().pid}/status") and relations(f.stub().pid) == before
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3):
        f.send(number)
        f.wait_log(f"signal {int(number)} ")
    f.send(signal.SIGSTOP)
    f.wait_news("stopped 19")
    wait_until("the unit is stopped", lambda: f.unit().state == "T")
    f.send(signal.SIGCONT)
    f.wait_news("continued")
    wait_until("the unit goes on", lambda: f.unit().state != "T")
    f.send(signal.SIGUSR2)
    f.wait_news(f"stopped {int(signal.SIGTSTP)}")
    f.send(signal.SIGCONT)
    f.wait_news("continued", 2)
    f.migrate("n3", strategy)
    wait_until("the stub has followed", lambda: " n3:" in f.stub().cmdline)
    moved = migrate("n3", f.there, "home", strategy)
    assert moved.status == 0, moved.why()
    f.host, f.there = "n1", moved.json["pid"]
    f.send(signal.SIGINT)
    f.wait_log("signal 2 ")
    assert read(f.log).splitlines()[-1].endswith(" n1")
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    lab2.assert_clean()


@pytest.mark.parametrize("number, news", [(signal.SIGALRM, f"killed {int(signal.SIGSEGV)} clean"), (signal.SIGKILL, f"killed {int(signal.SIGKILL)} clean")])
def test_filtered_death(lab2, filtered, number, news):
    f = filtered
    f.migrate("n2")
    f.wait_stub()
    f.send(number)
    f.wait_news(news)
    wait_until("the unit has ended", lambda: not find_process("n2", f.there))
    lab2.assert_clean()


def goes_on_and_ends(lab2, f):
    """What has been stopped once and told to continue: both sides learn of it, and of its end."""
    f.wait_news("continued")
    f.wait_log("signal 18 ")
    f.send(signal.SIGTERM)
    f.wait_news("exited 42")
    assert read(f.news).count("stopped") == 1
    lab2.assert_clean()


def test_filtered_stopped(lab2, filtered):
    """It was stopped when it moved: so is its stub."""
    f = filtered
    f.send(signal.SIGSTOP)
    f.wait_news("stopped 19")
    f.migrate("n2")
    f.wait_stub()
    wait_until("a stopped stub", lambda: f.stub().state in "Tt")
    assert f.unit().state == "T"
    f.send(signal.SIGCONT)
    goes_on_and_ends(lab2, f)


def while_it_becomes_a_stub(lab2, f, act):
    """Calls act between the commit and the making of the stub."""
    inside("n1", "sh", "-c", "echo source:home:stop >/run/godwit/fault")
    mover = threading.Thread(target=f.migrate, args=("n2",))
    try:
        mover.start()
        worker = wait_until("the worker has stopped", lambda: next((p for p in processes("n1") if p.state == "T" and p.name == "godwit-source"), None))
        act()
    finally:
        inside("n1", "rm", "-f", "/run/godwit/fault")
    os.kill(worker.pid, signal.SIGCONT)
    mover.join()


@pytest.mark.parametrize("filters", [False, True])
def test_continued_before_the_stub(lab2, family, filters):
    f = family(group=True, before=["filtered"] if filters else [])
    f.send(signal.SIGSTOP)
    f.wait_news("stopped 19")
    while_it_becomes_a_stub(lab2, f, lambda: f.send(signal.SIGCONT))
    goes_on_and_ends(lab2, f)


@pytest.mark.parametrize("filters", [False, True])
def test_stopped_before_the_stub(lab2, family, filters):
    f = family(group=True, before=["filtered"] if filters else [])
    while_it_becomes_a_stub(lab2, f, lambda: f.send(signal.SIGSTOP))
    f.wait_news("stopped 19")
    wait_until("the unit is stopped", lambda: f.unit().state == "T")
    assert f.stub().state in "Tt"
    f.send(signal.SIGCONT)
    goes_on_and_ends(lab2, f)


def test_killed_before_the_stub(lab2, family):
    f = family()
    while_it_becomes_a_stub(lab2, f, lambda: f.send(signal.SIGKILL))
    f.wait_news("killed 9 clean")
    wait_until("the unit has ended", lambda: not find_process("n2", f.there))
    lab2.assert_clean()


def test_filtered_keeper_dies(lab2, filtered):
    """As without filters: the stub dies by SIGKILL, the unit lives on."""
    f = filtered
    f.migrate("n2")
    f.wait_stub()
    kill(next(p for p in processes("n1") if p.name == "godwit-home").pid, signal.SIGKILL)
    f.wait_news("killed 9 clean")
    assert f.unit()
