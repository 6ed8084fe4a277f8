# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that only the first host has: served from home, copied, or refused."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import textwrap

import pytest

from lab_driver import EXIT_REFUSED, STRATEGIES, Victim, inside, init_of, kill, lab, migrate, popen, processes, read, wait_until

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "victims", "relayed.py")


def at(host, path):
    """A path of a host as this side reaches it."""
    return f"/proc/{init_of(host)}/root{path}"


def relays(host):
    return [p for p in processes(host) if p.state not in "ZX" and read(f"/proc/{p.pid}/comm").strip() in ("godwit-files", "godwit-relay")]


class Relayed(Victim):
    def __init__(self, lab_, directory, before=()):
        self.private = directory
        inside("n1", "mkdir", "-p", directory)
        super().__init__(lab_, "relayed", command=[*before, "python3", SCRIPT, directory, "STATUS"])
        self.wait_ready()
        self.asked = 0

    def check(self, word):
        self.asked += 1
        with open(self.status + ".ask", "a") as f:
            f.write(word + "\n")
        wait_until(f"answer to {word}", lambda: re.search(rf"^(done {self.asked}|FAIL.*|ok.*)$", read(self.status), re.M), 40)
        assert not self.failure(), f"{word} on {self.host}: {self.failure()}"

    def failure(self):
        m = re.search(r"^FAIL.*$", read(self.status), re.M)
        return m and m.group(0)

    def home(self, name):
        return at("n1", f"{self.private}/{name}")

    def count(self):
        lines = read(self.home("log")).splitlines()
        return int(lines[-1]) if lines else 0


def test_everything_away_and_on_and_home_again(lab2):
    v = Relayed(lab2, "/tmp/relayed")
    checks = ["names", "attributes", "contents", "locks", "database"]
    for word in checks:
        v.check(word)
    for dest, strategy in (("n2", "freeze-free"), ("n3", "pre-copy"), ("n1", "freeze-free")):
        v.migrate(dest, strategy)
        for word in checks:
            v.check(word)
        # Both sides see what the other one has written, and hold each other's locks.
        with open(v.home("news"), "w") as f:
            f.write("from home\n")
        v.check("news")
        assert read(v.home("news")) == "from away\n"
        with open(v.home("lock"), "a+") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            fcntl.flock(f, fcntl.LOCK_EX)
            v.check("busy")
        with open(v.home("held"), "r+") as f, open(v.home("whole"), "r+") as g, pytest.raises(BlockingIOError):
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)
        with open(v.home("whole"), "r+") as g, pytest.raises(BlockingIOError):
            fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        n = v.count()
        wait_until("more of the log at home", lambda: v.count() > n)
        assert dest == "n1" or not os.path.exists(at(dest, "/tmp/relayed")), "made on a host that was only passed"
    assert " - fuse" not in read(f"/proc/{v.process().pid}/mountinfo")
    v.check("end")
    n = int(re.search(r"^ok (\d+)$", read(v.status), re.M).group(1))
    assert read(v.home("log")).splitlines()[-1] == str(n)
    with open(v.home("map"), "rb") as f:
        assert struct.unpack("Q", f.read(8)) == (n,)
    wait_until("the relay's end", lambda: not any(relays(h) for h in lab2.hosts))
    lab2.assert_clean()


def test_what_was_closed_is_at_home_whichever_host_dies(lab2):
    v = Relayed(lab2, "/run/relayed")
    with open(v.home("news"), "w") as f:
        f.write("from home\n")
    v.migrate("n2")
    v.check("news")
    lab("kill", "n2")
    assert read(v.home("news")) == "from away\n"
    lab("start", "n2")

    v = Relayed(lab2, "/run/relayed2")
    v.migrate("n2")
    with open(v.home("news"), "w") as f:
        f.write("from home\n")
    v.check("news")
    lab("kill", "n1")
    lab("start", "n1")
    wait_until("an error in the program", lambda: "Errno 5" in (v.failure() or ""), 30)
    wait_until("the relay's end", lambda: not relays("n2"))
    lab2.assert_clean()


def test_with_a_network_of_its_own(lab2):
    """Home cannot be reached from where the unit is."""
    v = Relayed(lab2, "/tmp/relayed-net", before=("unshare", "-n"))
    v.migrate("n2")
    for word in ["names", "contents", "locks"]:
        v.check(word)
    lab("cut", "n1", "n2")
    n = v.count()
    lab("heal", "n1", "n2")
    wait_until("more of the log at home", lambda: v.count() > n, 30)
    v.check("end")
    assert re.search(r"^ok \d+$", read(v.status), re.M)


def test_a_cut_link_is_waited_for(lab2):
    v = Relayed(lab2, "/tmp/cut")
    v.migrate("n2")
    lab("cut", "n1", "n2")
    n = v.count()
    lab("heal", "n1", "n2")
    wait_until("more of the log at home", lambda: v.count() > n, 20)
    v.check("end")
    lab2.assert_clean()


def test_other_ways_with_files(lab2):
    """--files=copy leaves nothing to home, --files=refuse refuses; a relay that a failed attempt has begun ends."""
    v = Relayed(lab2, "/tmp/ways")
    refused = migrate("n1", v.pid, "n2", options=["--files=refuse"])
    assert refused.status == EXIT_REFUSED, refused.why()
    inside("n2", "mkdir", "-p", "/tmp/ways")
    with open(at("n2", "/run/godwit/fault"), "w") as f:
        f.write("dest:restore:error\n")
    failed = migrate("n1", v.pid, "n2")
    assert failed.status not in (0, EXIT_REFUSED), failed.why()
    inside("n2", "rm", "-f", "/run/godwit/fault")
    wait_until("the relay's end", lambda: not any(relays(h) for h in lab2.hosts))
    v.check("names")
    moved = migrate("n1", v.pid, "n2", options=["--files=copy"])
    assert moved.status == 0, moved.why()
    v.host = "n2"
    assert not any(relays(h) for h in lab2.hosts)
    n = v.count()
    v.check("names")
    v.check("end")
    assert v.count() == n, "a copy was asked for"
    assert len(read(at("n2", "/tmp/ways/log")).splitlines()) >= n
    lab2.assert_clean()


PROJECT = 40


def make_project(directory):
    for i in range(PROJECT):
        work = "\n".join(f"static int g{k}(int x, char *b) {{ int s = x; for (int i = 0; i < 50; i++) {{ s = s * {k + 3} + i; b[i] = (char)s; "
                         f"if (s % 7 == {k % 7}) s ^= {i * 31 + k}; }} return s; }}" for k in range(50))
        calls = " ".join(f"s += g{k}(s, b);" for k in range(50))
        with open(os.path.join(directory, f"f{i}.c"), "w") as f:
            f.write(f"{work}\nint f{i}(int x) {{ char b[64]; int s = x; {calls} return s; }}\n")
    with open(os.path.join(directory, "main.c"), "w") as f:
        f.write("#include <stdio.h>\n" + "".join(f"int f{i}(int);\n" for i in range(PROJECT)) + "int main(void) { unsigned s = 1;\n" +
                "".join(f"s = s * 31 + (unsigned)f{i}((int)(s & 255));\n" for i in range(PROJECT)) + 'printf("%u\\n", s); return 0; }\n')
    objects = " ".join([f"f{i}.o" for i in range(PROJECT)] + ["main.o"])
    with open(os.path.join(directory, "Makefile"), "w") as f:
        f.write(textwrap.dedent(f"""\
            prog: {objects}
            \tgcc -o $@ {objects}
            %.o: %.c
            \tgcc -O2 -c -o $@ $<
            """))


def test_make_with_private_temporary_files(lab2):
    """The compilers' temporary files are at home; those begun there are found after the move."""
    directory = lab2.directory("make")
    make_project(directory)
    inside("n1", "mkdir", "-p", "/tmp/compile")
    inside("n1", "env", "TMPDIR=/tmp/compile", "setsid", "-f", "sh", "-c",
           'exec </dev/null >/dev/null 2>&1; cd "$1" && sh -c \'echo $$ >pid; exec make -j4\' >out 2>&1; echo "status $?" >>out', "sh", directory)
    out = os.path.join(directory, "out")
    wait_until("compilers at work", lambda: len(os.listdir(at("n1", "/tmp/compile"))) >= 2)
    pid, host = int(read(os.path.join(directory, "pid"))), "n1"
    for dest in ("n2", "n3"):
        moved = migrate(host, pid, dest)
        assert moved.status == 0, f"{moved.why()}\n{lab2.log_tail(host)}\n{lab2.log_tail(dest)}"
        host = dest
    wait_until("temporary files at home", lambda: os.listdir(at("n1", "/tmp/compile")) or "status" in read(out))
    assert not os.path.exists(at("n2", "/tmp/compile")) and not os.path.exists(at("n3", "/tmp/compile"))
    wait_until("make's end", lambda: "status" in read(out), 120)
    assert "status 0" in read(out), read(out)[-2000:]
    assert inside("n1", os.path.join(directory, "prog")).stdout.strip() == inside("n2", os.path.join(directory, "prog")).stdout.strip() != ""
    assert not os.listdir(at("n1", "/tmp/compile")), "temporary files were left"
    lab2.assert_clean()


@pytest.mark.parametrize("how", [">", ">>"])
def test_a_position_that_a_shell_shares(lab2, how):
    """(program; echo end) >file: the shell has the program's description, too, and goes on where it was. That is told; with >> there is nothing to tell."""
    path = f"/tmp/shared-position-{len(how)}"
    shell = popen("n1", "sh", "-c", f"(sleep 3333; echo end) {how}{path}", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sleeper = wait_until("the program runs", lambda: [p for p in processes("n1") if p.cmdline.startswith("sleep") and "3333" in p.cmdline])[0]
    moved = migrate("n1", sleeper.host_pid, "n2")
    told = [n for n in (moved.json or {}).get("notes") or [] if path in n]
    assert moved.status == 0, moved.why()
    assert len(told) == (how == ">") and all("(sh)" in n and "(fd 1)" in n for n in told), moved.json
    for p in processes("n2"):
        if p.cmdline.startswith("sleep") and "3333" in p.cmdline:
            kill(p.pid, signal.SIGKILL)
    shell.wait(20)
    assert read(at("n1", path)) == "end\n"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_watches_tmp_sees_nothing(lab2, strategy):
    """Where Godwit itself looks for files of the unit. With an event waiting it would not move."""
    v = Victim(lab2, "watch_tmp").wait_ready()
    v.migrate("n2", strategy)
    v.assert_ok()
