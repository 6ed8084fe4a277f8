# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs on a terminal that stays at home, while a person types: shells, editors, prompts, jobs."""

import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import termios
import threading
import time

import pytest

from lab_driver import DEV, STRATEGIES, environment, find_process, inside, kill, migrate, processes, read, residue, wait_until

# Takes its standard input as the controlling terminal; the lab has made it the leader of a session.
LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 1); os.execvp(sys.argv[1], sys.argv[1:])"
SHELL = ["bash", "--norc", "-i"]
PROMPT = r"@@ $"


class Terminal:
    """A pseudo-terminal whose master this process has, and a shell on it in n1."""

    def __init__(self, lab, *command):
        self.lab, self.host, self.seen, self.text = lab, "n1", 0, ""
        self.master, slave = os.openpty()
        self.resize(24, 80)
        self.shell = subprocess.Popen([DEV, "lab", "exec", "n1", "--", "env", "PS1=@@ ", "TERM=xterm", "/usr/bin/python3", "-c", LOGIN, *(command or SHELL)],
                                      env=environment(), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        if not command:
            self.expect(PROMPT)
            self.line("bind 'set enable-bracketed-paste off'")
            self.expect(PROMPT)

    def resize(self, lines, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def type(self, keys):
        os.write(self.master, keys.encode())

    def line(self, text):
        self.type(text + "\r")

    def expect(self, pattern, seconds=20):
        """The match behind what has been expected before."""
        end = time.monotonic() + seconds
        while True:
            m = re.search(pattern, self.text[self.seen:], re.M)
            if m:
                self.seen += m.end()
                return m
            left = end - time.monotonic()
            assert left > 0, f"expected {pattern!r} behind {self.text[self.seen:]!r}\n{self.lab.log_tail('n1')}\n{self.lab.log_tail('n2')}"
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace").replace("\r\n", "\n")
                except OSError:
                    self.text += "[hung up]"
                    time.sleep(0.05)

    def find(self, name):
        found = wait_until(name, lambda: [p for p in processes(self.host) if p.name == name and p.state not in "ZX" and "godwit" not in p.cmdline])
        return max(p.host_pid for p in found)

    def move(self, pid, dest, strategy="freeze-free"):
        moved = migrate(self.host, pid, dest, strategy)
        assert moved.status == 0, f"{moved.why()}\n{self.lab.log_tail(self.host)}\n{self.lab.log_tail(dest)}"
        self.host = moved.json["to"]
        return moved.json["pid"]

    def leave(self):
        self.line("exit")
        assert self.shell.wait(20) is not None

    def close(self):
        if self.master >= 0:
            os.close(self.master)
        self.master = -1


@pytest.fixture
def terminal(lab2):
    made = []
    before = {host: {p.host_pid for p in processes(host)} for host in lab2.hosts}

    def start(*command):
        made.append(Terminal(lab2, *command))
        return made[-1]
    yield start
    for t in made:
        t.close()
        t.shell.kill()
        t.shell.wait()
    for host in lab2.hosts:
        for p in processes(host):
            if p.host_pid not in before[host] and "godwit" not in p.cmdline:
                kill(p.pid, 9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_job(lab2, terminal, strategy):
    """A job of a shell that stays, with a line half typed: editing, Ctrl-Z, fg, bg, Ctrl-C, and the shell's own modes between."""
    t = terminal()
    t.line("cat")
    pid = t.find("cat")
    t.type("two")
    t.expect("two")
    t.move(pid, "n2", strategy)
    t.type("three\x7f\x7f\x7f\x7f\x7f\x7four\r")
    t.expect(r"\ntwour\n")
    t.type("\x1a")
    t.expect(r"\[1\]\+\s+Stopped\s+cat\n")
    t.expect(PROMPT)
    t.line("stty -a | grep -c -- ' -icanon' ; fg")
    t.expect(r"fg\n0\ncat\n")
    t.line("three")
    t.expect(r"^three\nthree\n")
    t.type("\x1a")
    t.expect(PROMPT)
    t.line("bg")
    t.expect(r"\[1\]\+ cat &\n")
    t.line("until jobs | grep Stopped; do :; done")  # SIGTTIN
    t.expect(r"\[1\]\+\s+Stopped\s+cat\n")
    t.line("fg")
    t.expect(r"fg\ncat\n")
    t.line("four")
    t.expect(r"^four\nfour\n")
    t.type("\x03")
    t.expect(r"\^C")
    t.expect(PROMPT)
    t.line("echo status $?")
    t.expect(r"^status 130\n")
    t.leave()
    lab2.assert_clean()


def test_typed_ahead(terminal):
    """What is typed while a job runs that does not read is for the shell, in order; a line half typed too."""
    t = terminal()
    t.line("sleep 3")
    pid = t.find("sleep")
    t.type("echo first $((1 + 1))\r")
    t.expect(r"\+ 1\)\)\n")
    t.move(pid, "n2")
    t.type("echo second $((2 + 3))\recho thi")
    t.expect(r"^first 2\n")
    t.expect(r"^second 5\n")
    t.type("rd\r")
    t.expect(r"^third\n")


@pytest.mark.skipif(not shutil.which("vim"), reason="vim is not installed")
def test_editor(lab2, terminal):
    t = terminal()
    t.line("stty -a >/dev/null; vim -u NONE -n")
    t.expect("~")
    t.type("ifirst")
    t.expect("first")
    pid = t.find("vim")
    t.move(pid, "n2")
    t.type(" line\x1b")
    t.expect(" line")
    t.resize(31, 101)
    t.expect(r"\[30;1H")
    t.type(":echo 'size' &lines &columns\r")
    t.expect("size 31 101")
    t.type("\x1a")
    t.expect(r"Stopped\s+vim")
    t.line("echo here $(stty size)")
    t.expect(r"^here 31 101\n")
    t.line("fg")
    t.expect("first line")
    t.move(pid, "n3")
    t.type("o" + "second")
    t.expect("second")
    t.type("\x1b:q!\r")
    t.expect(PROMPT)
    t.line("stty -a | grep -c -- '-echo '; echo status $?")
    t.expect(r"^0\nstatus 1\n")
    t.leave()
    lab2.assert_clean()


@pytest.mark.parametrize("strategy", ["freeze-free", "stop-copy"])
def test_shell(lab2, terminal, strategy):
    """The leader of the session, with its jobs, there, on and back."""
    t = terminal()
    t.line("echo pid $$")
    pid = int(t.expect(r"^pid (\d+)\n").group(1))
    t.line("sleep 1000 &")
    t.expect(r"^\[1\] \d+\n")
    t.line("cat")
    t.find("cat")
    t.type("par")
    t.expect(r"^par")
    pid = t.move(pid, "n2", strategy)
    t.type("tial\r")
    t.expect(r"tial\npartial\n")
    t.type("\x1a")
    t.expect(r"\[2\]\+\s+Stopped\s+cat\n")
    t.line("jobs; tty; uname -n")
    t.expect(r"^\[1\]-\s+Running\s+sleep 1000 &\n\[2\]\+\s+Stopped\s+cat\n/dev/pts/\d+\nn2\n")
    pid = t.move(pid, "n3", strategy)
    t.resize(44, 99)
    t.line("fg; stty size </dev/tty")
    t.expect(r"^cat\n")
    t.line("more")
    t.expect(r"^more\nmore\n")
    t.type("\x04")
    t.expect(r"^44 99\n")
    t.move(pid, "home", strategy)
    t.line("kill %1; echo on $(uname -n)")
    t.expect(r"^on n1\n")
    t.line("exit 7")
    assert t.shell.wait(20) == 7
    lab2.assert_clean()


def test_prompt(terminal):
    """A line in Python's editor, and Ctrl-C."""
    t = terminal()
    t.line("python3 -q")
    t.expect(">>> $")
    t.line("x = 6")
    t.expect(">>> $")
    t.type("x *")
    t.expect(r"x \*")
    t.move(t.find("python3"), "n2")
    t.line(" 7")
    t.expect("^42\n")
    t.line("import os; os.uname().nodename")
    t.expect("'n2'\n")
    # The signal of a key that comes between two lines of Python's editor is not looked at before the next key: so it has to have left it.
    t.line("print('go' + 'ing'); exec('while True: pass')")
    t.expect("^going\n")
    t.type("\x03")
    t.expect("KeyboardInterrupt")
    t.expect(">>> $")
    t.type("\x04")
    t.expect(PROMPT)


@pytest.mark.skipif(not shutil.which("top"), reason="top is not installed")
def test_top(terminal):
    t = terminal()
    t.line("top -d 0.3")
    t.expect("load average")
    t.move(t.find("top"), "n2")
    t.expect("load average")
    t.type("h")
    t.expect("Help for Interactive Commands")
    t.type("q")
    t.expect("load average")
    t.type("q")
    t.expect(PROMPT)


def test_without_descriptor(terminal):
    """A controlling terminal that the program has no descriptor of, and a job of which only one process has moved: the keys' signals are for both."""
    t = terminal()
    t.line("sh -c 'read x </dev/tty; echo got $x >/dev/tty; exec sleep 77' </dev/null >/dev/null 2>&1")
    pid = t.find("sh")
    t.move(pid, "n2")
    t.line("one")
    t.expect(r"^one\ngot one\n")
    t.type("\x1a")
    t.expect(r"Stopped")
    t.expect(PROMPT)
    t.line("kill %1; fg; wait; echo over")
    t.expect(r"^over\n")
    t.host = "n1"
    t.line("sleep 78 | cat")
    t.move(t.find("sleep"), "n2")
    t.type("\x03")
    t.expect(PROMPT)
    t.line("echo both ${PIPESTATUS[*]}")
    t.expect(r"^both 130 130\n")


@pytest.mark.parametrize("nth", range(5))
def test_hang_up(lab2, terminal, nth):
    """The window is closed: a job in the background that writes, one in the foreground. The end of one meets the signals of the other's."""
    t = terminal()
    t.line("(while sleep 0.1; do echo ping; done) &")
    t.expect(r"^\[1\] \d+\n")
    t.move(int(re.search(r"^\[1\] (\d+)\n", t.text, re.M).group(1)), "n2")
    t.expect(r"^ping\nping\n")
    t.host = "n1"
    t.line("cat")
    t.move(t.find("cat"), "n2")
    t.line("pong")
    t.expect(r"pong\n(ping\n)*pong\n")
    t.close()
    lab2.assert_clean()


@pytest.mark.skipif(not shutil.which("less"), reason="less is not installed")
def test_pager(terminal):
    """In a group that another process has begun, with a pipe and the terminal."""
    t = terminal()
    t.line("seq 5000 | less")
    t.expect(r"^5$")
    t.move(t.find("less"), "n2")
    t.type("G")
    t.expect(r"^5000$")
    t.type("q")
    t.expect(PROMPT)


def test_typing(lab2, terminal):
    """Nobody stops typing because a program moves: nothing is lost, doubled or out of order, there and back."""
    t = terminal()
    path = os.path.join(lab2.directory("typing"), "text")
    t.line(f"cat >{path}")
    pid, typed, over = t.find("cat"), [], threading.Event()

    def type_on():
        while not over.wait(0.002):
            typed.append(f"line {len(typed)}\n")
            t.type(typed[-1])
    person = threading.Thread(target=type_on)
    person.start()
    for dest in ["n2", "n3", "home", "n2", "home"]:
        pid = t.move(pid, dest)
        t.expect(rf"^line {len(typed)}\n")
    over.set()
    person.join()
    t.type("\x04")
    t.expect(PROMPT)
    assert read(path) == "".join(typed)


def relations(pid):
    """Parent, group, session and terminal of a process of n1, and what its descriptors are."""
    host = find_process("n1", pid).pid
    return read(f"/proc/{host}/stat").rpartition(")")[2].split()[1:5], {n: os.readlink(f"/proc/{host}/fd/{n}").split(":")[0] for n in os.listdir(f"/proc/{host}/fd")}


def at_home(t, pid, before):
    """It is a process as any other, on the terminal that it had."""
    wait_until("nothing between", lambda: not [p for h in t.lab.hosts for p in processes(h) if p.name in ("godwit-home", "godwit-away")])
    p = find_process("n1", pid)
    assert not p.cmdline.startswith("godwit-stub") and relations(pid) == before and not residue(p.pid)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_comes_home(lab2, terminal, strategy):
    """A job, with a line half typed at each host."""
    t = terminal()
    t.line("cat")
    pid = t.find("cat")
    before = relations(pid)
    t.type("one")
    t.expect("one")
    t.move(pid, "n2", strategy)
    t.type("two")
    t.expect("two")
    t.move(pid, "home", strategy)
    if strategy != "copy-on-reference":
        at_home(t, pid, before)
    t.type("thre\x7f\x7f\x7f\x7f\x7fx\r")
    t.expect(r"\nonetwx\n")
    t.type("\x1a")
    t.expect(r"\[1\]\+\s+Stopped\s+cat\n")
    t.line("stty -a | grep -c -- ' -icanon'; fg")
    t.expect(r"fg\n0\ncat\n")
    t.move(pid, "n3", strategy)
    t.line("four")
    t.expect(r"^four\nfour\n")
    t.move(pid, "home", strategy)
    t.type("\x03")
    t.expect(r"\^C")
    t.expect(PROMPT)
    t.line("echo status $?")
    t.expect(r"^status 130\n")
    t.leave()
    lab2.assert_clean()


def test_typed_ahead_home(lab2, terminal):
    """What was typed while it was away, and it has not read: for the shell, when it has ended at home."""
    t = terminal()
    t.line("sleep 6")
    pid = t.find("sleep")
    before = relations(pid)
    t.type("echo first $((1 + 1))\r")
    t.expect(r"\+ 1\)\)\n")
    t.move(pid, "n2")
    t.type("echo second $((2 + 3))\recho thi")
    t.expect(r"echo thi")
    t.move(pid, "home")
    at_home(t, pid, before)
    t.type("r\x7frd\recho ov")
    t.expect(r"^first 2\n")
    t.expect(r"^second 5\n")
    t.expect(r"^third\n")
    t.type("er\r")
    t.expect(r"^over\n")


def test_output_home(lab2, terminal):
    """All that it writes appears once, in order, wherever it is."""
    t = terminal()
    t.line("python3 -c 'import time;[(print(\"line\", i), time.sleep(0.001)) for i in range(15000)]'")
    t.expect(r"^line 20\n")
    pid = t.find("python3")
    failed = []

    def move():
        try:
            for dest in ("n2", "home", "n3", "n2", "home"):
                t.move(pid, dest)
        except AssertionError as e:
            failed.append(e)
    mover = threading.Thread(target=move)
    mover.start()
    t.expect(r"^line 14999\n", 120)
    mover.join()
    assert not failed, failed
    t.expect(PROMPT)
    assert re.findall(r"^line (\d+)$", t.text, re.M) == [str(i) for i in range(15000)]
    t.leave()
    lab2.assert_clean()


@pytest.mark.skipif(not shutil.which("vim") or not shutil.which("less"), reason="vim or less is not installed")
def test_screens_home(lab2, terminal):
    """An editor in its own modes, and a pager that has /dev/tty open."""
    t = terminal()
    t.line("vim -u NONE -n")
    t.expect("~")
    pid = t.find("vim")
    before = relations(pid)
    t.move(pid, "n2")
    t.type("ifirst")
    t.expect("first")
    t.move(pid, "home")
    at_home(t, pid, before)
    t.resize(31, 101)
    t.expect(r"\[30;1H")
    t.type("\x1b:echo 'size' &lines &columns\r")
    t.expect("size 31 101")
    t.type("\x1a")
    t.expect(r"Stopped\s+vim")
    t.line("fg")
    t.expect("first")
    t.type(":q!\r")
    t.expect(PROMPT)
    t.line("stty -a | grep -c -- '-echo '; echo status $?")
    t.expect(r"^0\nstatus 1\n")
    t.line("seq 5000 | less")
    t.expect(r"^5$")
    pid = t.find("less")
    before = relations(pid)
    t.move(pid, "n2")
    t.type("G")
    t.expect(r"^5000$")
    t.move(pid, "home")
    at_home(t, pid, before)
    t.type("g")
    t.expect(r"M4$")
    t.type("q")
    t.expect(PROMPT)
    t.leave()
    lab2.assert_clean()


NAMESAKE = """if 1:
    import os, sys
    mine, pairs = os.minor(os.fstat(0).st_rdev), [os.openpty()]
    while os.minor(os.fstat(pairs[-1][1]).st_rdev) != mine:
        pairs.append(os.openpty())
    for pair in pairs[:-1]:
        os.closerange(pair[0], pair[1] + 1)
    master, slave = pairs[-1]
    for line in sys.stdin:
        os.write(master, line.encode())
        print(os.uname().nodename, os.read(slave, 100).decode().strip(), os.ttyname(slave) == f"/dev/pts/{mine}", flush=True)
"""


def test_namesakes(lab2, terminal):
    """A program on a terminal of another /dev/pts, as one that came into a container has it, has a terminal of its own with the same number."""
    t = terminal("/usr/bin/python3", "-c", NAMESAKE)
    t.line("one")
    t.expect(r"^n1 one True\n")
    pid = t.find("python3")
    for there, says in (("n2", "n2"), ("n3", "n3"), ("home", "n1")):
        t.move(pid, there)
        t.line(f"at {there}")
        t.expect(rf"^{says} at {there} True\n")
    t.type("\x04")
    assert t.shell.wait(20) == 0
    lab2.assert_clean()


@pytest.mark.parametrize("step", ["restore", "commit"])
def test_shell_stays_away(lab2, terminal, step):
    """A shell in a shell, whose own job is in the foreground: it comes home only at the second try, and the terminal has not been touched by the first."""
    t = terminal()
    t.line("PS1='%% ' bash --norc -i")
    t.expect(r"%% $")
    t.line("bind 'set enable-bracketed-paste off'")
    t.expect(r"%% $")
    t.line("echo pid $$")
    pid = int(t.expect(r"^pid (\d+)\n").group(1))
    before = relations(pid)
    t.line("cat")
    t.find("cat")
    t.move(pid, "n2")
    t.line("one")
    t.expect(r"^one\none\n")
    inside("n1", "sh", "-c", f"echo dest:{step}:error >/run/godwit/fault")
    try:
        assert migrate("n2", pid, "home").status != 0
    finally:
        inside("n1", "rm", "-f", "/run/godwit/fault")
    t.line("two")
    t.expect(r"^two\ntwo\n")
    t.type("\x1a")
    t.expect(r"Stopped\s+cat\n")
    t.line("fg")
    t.expect(r"^cat\n")
    t.move(pid, "home")
    at_home(t, pid, before)
    t.line("three")
    t.expect(r"^three\nthree\n")
    t.type("\x04")
    t.expect(r"%% $")
    t.line("exit 5")
    t.expect(PROMPT)
    t.line("echo status $?")
    t.expect(r"^status 5\n")
    t.leave()
    lab2.assert_clean()
