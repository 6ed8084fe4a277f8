# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened in moves is remembered where they began, and shown to whom it is for; godwit top."""

import json
import os
import re
import subprocess
import sys

import pytest
from lab_driver import DEV, environment, inside, migrate, popen, wait_until

USER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def start_as(*ids):
    pid = int(inside("n1", *ids, "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    wait_until("it sleeps", lambda: "sleep" in inside("n1", "cat", f"/proc/{pid}/comm", check=False).stdout)
    return pid


def trace(host, *options, user=()):
    return json.loads(inside(host, *user, "godwit", "trace", "--json", *options).stdout)


def test_trace(lab2):
    """A unit goes to n2 and n3: the whole of it is known on each node, also when it has ended; what is another's is not."""
    theirs, roots = start_as(*USER), start_as("setpriv", "--reuid=0")
    unit = f"n1:{theirs}"
    try:
        for source, dest in (("n1", "n2"), ("n2", "n3")):
            inside(source, "godwit", "migrate", unit, dest)
        migrate("n1", roots, "n2", "pre-copy")
    finally:
        inside("n3", "kill", str(theirs))
        inside("n2", "kill", str(roots))
    for host in ("n1", "n2", "n3"):
        said = trace(host, "--all", unit)
        assert [(m["node"], m["from"], m["to"], m["outcome"]) for m in said["moves"]] == [("n1", "n1", "n2", "moved"), ("n2", "n2", "n3", "moved")], said
        assert not said["silent"] and not said["running"], said
    first = trace("n3", "--all", unit)["moves"][0]
    spans = {s["name"]: s for s in first["spans"]}
    steps = ["begin", "hello", "offer", "agent", "content", "prepare", "rounds", "freeze", "go", "commit", "home", "push", "release"]
    assert list(spans) == ["migrate", *steps, "frozen"], spans
    ends = [spans[s]["end_ns"] for s in steps]
    assert ends == sorted(ends) and [spans[s]["start_ns"] for s in steps[1:]] == ends[:-1], spans
    whole, frozen = spans["migrate"], spans["frozen"]
    assert whole["start_ns"] == spans["begin"]["start_ns"] and ends[-1] <= whole["end_ns"], spans
    assert spans["freeze"]["start_ns"] <= frozen["start_ns"] <= spans["freeze"]["end_ns"] and spans["go"]["start_ns"] < frozen["end_ns"] < whole["end_ns"], spans
    assert {"parked", "go sent"} <= {e["name"] for e in first["events"]}, first["events"]
    assert [m["unit"] for m in trace("n2", "--last", "100", user=USER)["moves"]].count(f"n1:{roots}") == 0
    assert [m["unit"] for m in trace("n2", "--last", "100", user=USER)["moves"]].count(unit) == 2
    assert [m["strategy"] for m in trace("n3", f"n1:{roots}")["moves"]] == ["pre-copy"]


class Screen:
    """godwit top on n1, in a terminal of tmux."""

    def __init__(self, columns, lines):
        self.width = columns
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), f"{DEV} lab exec n1 -- godwit top --interval 200ms; echo ended; sleep 60")

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-L", f"godwit-{os.getpid()}", *arguments], env=environment(), capture_output=True, text=True, check=True).stdout

    def text(self):
        return self.tmux("capture-pane", "-p")

    def lines(self):
        return self.text().rstrip("\n").split("\n")

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def resize(self, columns, lines):
        self.width = columns
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def shows(self, *words):
        """All of these, in one picture; it is printed when that does not come."""
        try:
            wait_until(f"{words} on the screen", lambda: all(w in self.text() for w in words))
        except AssertionError:
            print(self.text())
            raise

    def line_of(self, word):
        return next(line for line in self.lines() if line.startswith(word))


@pytest.fixture
def screen(lab2):
    made = Screen(80, 24)
    yield made
    made.tmux("kill-server")


def test_top(screen):
    """What there is, at each size; a unit is moved from there, a node emptied and opened again."""
    pid, other = start_as(), start_as()
    unit = f"n1:{pid}"
    for p in (pid, other):
        inside("n1", "godwit", "migrate", str(p), "n3")
    screen.shows("n1 *", "n2 ", "n3 ", unit, f"n1:{other}", "m move", "nodes 3/3")
    for columns, lines in ((40, 10), (132, 40), (80, 24)):
        screen.resize(columns, lines)
        screen.shows("godwit top", "NODE", "UNIT")
        wait_until("all of it fits", lambda c=columns: max(map(len, screen.lines())) <= c)
    screen.keys("/", unit, "Enter")
    screen.shows(f"/{unit}", "units 1/2")
    assert screen.line_of(unit).split()[1] == "n3" and f"n1:{other}" not in screen.text()
    screen.keys("m", "Tab", "Tab")
    screen.shows(f"move {unit} to (Tab: next node): n2")
    screen.keys("Enter")
    screen.shows(f"{unit} to n2: it runs there, frozen for ")
    wait_until("it is there", lambda: screen.line_of(unit).split()[1] == "n2")
    screen.keys("m", "nowhere", "Enter")
    screen.shows(f"{unit} to nowhere: ")
    screen.keys("d")
    screen.shows("drain n2: move everything away")
    screen.keys("y")
    screen.shows("drain n2: 1 moved, 0 stay")
    wait_until("it says so", lambda: screen.line_of("n2").split()[1:3] == ["drained", "0"])
    screen.keys("Tab", "u")
    screen.shows("let n2 take units again?")
    screen.keys("y")
    wait_until("it is open", lambda: screen.line_of("n2").split()[1] == "ok")
    screen.keys("Escape")
    screen.shows("units 2/2")
    screen.keys("?")
    screen.shows("Any key goes back")
    screen.keys("x", "q")
    screen.shows("ended")
    once = inside("n1", "godwit", "top", "--once").stdout
    assert [line.split()[0] for line in once.splitlines()[:4]] == ["NODE", "n1", "n2", "n3"] and unit in once, once
    assert "--once" in inside("n1", "godwit", "top", check=False).stderr
    for host in ("n1", "n2", "n3"):
        inside(host, "sh", "-c", f"kill {pid} {other}; true")


TOUCHER = "import time\na=bytearray(40<<20)\nfor i in range(0,len(a),4096): a[i]=i>>12&255|1\nprint(flush=True)\nwhile 1:\n for i in range(0,len(a),4096*37): a[i]^=1\n time.sleep(0.001)"


def test_faults(lab2):
    """A program that touches its memory while that arrives waits for some pages: so long as is counted where it has come to."""
    def counted():
        text = inside("n2", "godwit", "metrics").stdout
        return [float(re.search(rf"^godwit_fault_seconds_{what} (\S+)$", text, re.M)[1]) for what in ("count", "sum")]
    before = counted()
    process = popen("n1", "sh", "-c", "echo $$; exec \"$0\" -c \"$1\"", sys.executable, TOUCHER, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    pid = int(process.stdout.readline())
    process.stdout.readline()
    process.stdout.close()
    inside("n1", "godwit", "migrate", str(pid), "n2", "--quiet", "--strategy", "copy-on-reference")
    wait_until("it has touched", lambda: trace("n1", "--last", "1")["running"][0]["pages_faulted"] > 100)
    inside("n2", "kill", str(pid))
    wait_until("they are counted", lambda: counted()[0] > before[0] + 10)
    count, seconds = (a - b for a, b in zip(counted(), before))
    assert 1e-6 < seconds / count < 0.1, (count, seconds)
    process.wait()
