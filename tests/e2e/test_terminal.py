# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on a terminal moves with the program that shows it: shells with their jobs, editors, tmux."""

import os
import re
import shutil

import pytest

from lab_driver import ROOT, STRATEGIES, copies, inside, kill, migrate, read, residue, wait_until

SCREEN = os.path.join(ROOT, "tests/victims/screen.py")


class Screen:
    """screen.py with a command, and what is typed there."""

    def __init__(self, lab, name, *command):
        self.lab, self.host, self.typed = lab, "n1", 0
        self.directory = lab.directory(name)
        inside("n1", "setsid", "-f", "sh", "-c", 'exec "$0" "$@" </dev/null >/dev/null 2>&1', "/usr/bin/python3", "-I", SCREEN, self.directory,
               *command)
        self.pid = int(wait_until("pid of screen.py", lambda: read(os.path.join(self.directory, "pid"))))

    def text(self):
        return read(os.path.join(self.directory, "screen")).replace("\r", "")

    def type(self, keys):
        path = os.path.join(self.directory, f"keys.{self.typed}")
        with open(path + ".new", "w") as f:
            f.write(keys)
        os.rename(path + ".new", path)
        self.typed += 1

    def expect(self, pattern, seconds=20):
        """The first place of the pattern behind what has been expected before."""
        def there():
            m = re.search(pattern, self.text()[self.seen:], re.M)
            return m and (m.end(), m.group(0))
        try:
            end, found = wait_until(pattern, there, seconds)
        except AssertionError:
            raise AssertionError(f"expected {pattern!r} behind {self.text()[self.seen:]!r}") from None
        self.seen += end
        return found

    seen = 0

    def move(self, strategy, dest="n2"):
        source, self.host = self.host, dest
        result = migrate(source, self.pid, dest, strategy)
        assert result.status == 0, f"{result.why()}\n{self.lab.log_tail(source)}\n{self.lab.log_tail(dest)}"
        assert result.json.get("pid") == self.pid, result.text

    def clean(self):
        for _, p in copies(self.lab.hosts, self.directory):
            kill(p.pid, 9)


@pytest.fixture
def screen(lab2):
    made = []

    def start(name, *command):
        made.append(Screen(lab2, name, *command))
        return made[-1]
    yield start
    for s in made:
        s.clean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shell(screen, strategy):
    """A job in the background, one in the foreground with a line half typed; Ctrl-C, Ctrl-Z, fg, and the status at the end."""
    s = screen("shell", "bash", "--norc", "--noediting", "-i")
    s.expect(r"\$ $")
    s.type("sleep 1000 &\n")
    s.expect(r"^\[1\] \d+\n\$ $")
    s.type("cat\n")
    s.expect(r"cat$")
    s.type("one\n")
    s.expect(r"one\none\n")
    s.type("two")
    s.expect("two")
    s.move(strategy)
    s.type("three\n")
    s.expect(r"three\ntwothree\n")
    s.type("\x1a")
    s.expect(r"^\[2\]\+\s+Stopped\s+cat$")
    s.type("jobs; tty; stty size; uname -n\n")
    s.expect(r"^\[1\]-\s+Running\s+sleep 1000 &\n\[2\]\+\s+Stopped\s+cat\n/dev/pts/\d+\n33 111\nn2$")
    s.type("fg\n")
    s.expect(r"^cat$")
    s.type("four\n")
    s.expect(r"four\nfour\n")
    s.type("\x03")
    s.expect(r"\^C")
    s.type("\nkill %1; wait %1; echo done $?; exit 7\n")
    s.expect(r"done 143$")
    s.expect(r"\[status 7\]")


def test_shell_there_and_back(screen):
    s = screen("shell", "bash", "--norc", "--noediting", "-i")
    s.expect(r"\$ $")
    for dest in ["n2", "n1", "n2"]:
        s.move("freeze-free", dest)
        s.type("echo on $(uname -n) $?\n")
        s.expect(rf"^on {dest} 0$")


@pytest.mark.skipif(not shutil.which("vim"), reason="vim is not installed")
def test_editor(screen):
    s = screen("editor", "vim", "-u", "NONE", "-n")
    s.expect("VIM|~")
    s.type("ifirst line\nsecond")
    wait_until("what was typed", lambda: "second" in s.text())
    s.move("freeze-free")
    file = os.path.join(s.directory, "text")
    s.type(f" line\x1b:w {file}\n")
    wait_until("the file", lambda: read(file) == "first line\nsecond line\n")
    s.type(":q\n")
    s.expect(r"\[status 0\]")


def test_prompt_of_python(screen):
    """A terminal in raw mode, with a line in its editor."""
    s = screen("python", "/usr/bin/python3", "-I", "-q")
    s.expect(">>> $")
    s.type("x = 6\n")
    s.expect(">>> $")
    s.type("x *")
    s.expect(r"x \*")
    s.move("freeze-free")
    s.type(" 7\n")
    s.expect("^42$")
    s.type("import os; os.uname().nodename\n")
    s.expect("^'n2'$")
    s.type("exit(3)\n")
    s.expect(r"\[status 3\]")


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
@pytest.mark.parametrize("strategy", ["freeze-free", "pre-copy", "stop-copy"])
def test_tmux(lab2, strategy):
    """The server, with the shells in its windows; clients come and go."""
    def tmux(host, *words):
        return inside(host, "timeout", "10", "tmux", "-S", "/tmp/tm/s", *words, check=False)

    for host in ("n1", "n2"):
        inside(host, "rm", "-rf", "/tmp/tm")
        inside(host, "mkdir", "-m", "700", "/tmp/tm")
    inside("n1", "sh", "-c", "exec tmux -S /tmp/tm/s new-session -d -x 80 -y 24 'bash --norc -i' </dev/null >/dev/null 2>&1")
    tmux("n1", "new-window", "bash --norc -i")
    pid = int(tmux("n1", "display-message", "-p", "#{pid}").stdout)
    try:
        result = migrate("n1", pid, "n2", strategy)
        assert result.status == 0, result.why()
        for window in ("0", "1"):
            tmux("n2", "send-keys", "-t", window, "echo window $(uname -n) $(tty) $((6 * 7))", "Enter")
            wait_until(f"window {window}", lambda w=window: re.search(r"^window n2 /dev/pts/\d+ 42$", tmux("n2", "capture-pane", "-p", "-t", w).stdout, re.M))
        ttys = tmux("n2", "list-panes", "-a", "-F", "#{pane_tty}").stdout.split()
        assert len(set(ttys)) == 2 and all(not residue(p.pid) for _, p in copies(["n2"], "tmux")), ttys
    finally:
        for host in ("n1", "n2"):
            tmux(host, "kill-server")
