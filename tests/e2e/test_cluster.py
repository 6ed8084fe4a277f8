# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster acts: a node gives everything away and stays empty; what cannot move stays and is named."""

import glob
import json
import os
import re
import shutil
import time

import pytest
from lab_driver import BUILD, NAME, RUN, STATE, copies, inside, lab, popen, read, wait_until


def ask(host, *command, check=True):
    done = inside(host, "godwit", *command, "--json", check=check)
    return json.loads(done.stdout)


def state_of(host, node):
    return next(n["state"] for n in ask(host, "nodes")["nodes"] if n["name"] == node)


def start(host, mark, n, *, run=True):
    """n programs at once, children of a shell that waits for them; returns it."""
    how = "godwit run --" if run else ""
    return popen(host, "bash", "-c", f"for i in $(seq {n}); do {how} sleep {mark} & done; wait", stdin=-3, stdout=-3, stderr=-3)


def where(mark):
    found = [host for host, p in copies(["n1", "n2", "n3"], f"sleep {mark}") if p.name == "sleep"]
    return {host: found.count(host) for host in ("n1", "n2", "n3")}


@pytest.fixture
def balanced(lab2):
    """n1 has half a CPU, so that two programs are a load."""
    lab("limit", "n1", "--cpu", "0.5")
    yield lab2
    inside("n1", "godwit", "balance", "off", "--all", check=False)
    lab("limit", "n1", "none", "--cpu", "none")


@pytest.fixture
def undrained(lab2):
    yield lab2
    for host in lab2.hosts:
        inside(host, "godwit", "undrain", check=False)


def end(mark, shell):
    for host in ("n1", "n2", "n3"):
        inside(host, "pkill", "-f", f"sleep {mark}", check=False)
    shell.wait()


def test_drain(undrained):
    """From another node: units that came and units that were started there leave, an ordinary process stays; nothing comes until it is undrained, also after a restart of godwitd."""
    shell, plain = start("n1", "91.25", 6), start("n1", "91.5", 1, run=False)
    try:
        wait_until("all have begun", lambda: where("91.25")["n1"] == 6 and where("91.5")["n1"] == 1)
        wait_until("all are units", lambda: len(ask("n1", "ps")["units"]) == 6)
        said = inside("n2", "godwit", "drain", "n1").stdout
        moved = re.findall(r"^(n1:\d+) to n[23] \([\d.]+ ms\)$", said, re.M)
        assert len(moved) == 6 and "not to" not in said, said
        assert "n1 is drained: 6 moved, 0 cannot." in said, said
        assert "files are here): 6\n" in said, "their shell waits for them at home"
        places = where("91.25")
        assert places["n2"] + places["n3"] == 6, places      # which is better is a matter of what else they do
        assert where("91.5")["n1"] == 1
        assert {u["reason"] for h in ("n2", "n3") for u in ask(h, "ps")["units"]} == {"drain: its node is emptied"}
        lab("restart-daemon", "n1")
        assert state_of("n3", "n1") == "drained"
        back = ask("n2" if places["n2"] else "n3", "migrate", moved[0], "home", check=False)
        assert back["outcome"] == "refused" and "undrain" in back["error"]["message"], back
        assert ask("n3", "undrain", "n1") == {"node": "n1", "state": "ok", "was_drained": True}
        assert ask("n2", "migrate", moved[0], "home")["outcome"] == "moved"
    finally:
        end("91.25", shell)
        end("91.5", plain)


def test_drain_what_cannot(undrained):
    """What cannot move stays, and the reason is the engine's; a process that is no unit is taken when it is named."""
    shell = popen("n1", "sh", "-c", "godwit run -- python3 -c 'import mmap, os, time; f = os.open(\"/dev/fuse\", os.O_RDWR); time.sleep(92.25)' & sleep 92.5 & echo $!; wait",
                  stdin=-3, stdout=-1, stderr=-3)
    try:
        plain = shell.stdout.readline().strip()
        wait_until("the unit", lambda: len(ask("n1", "ps")["units"]) == 1)
        wait_until("its file", lambda: inside("n1", "sh", "-c", "ls -l /proc/[0-9]*/fd | grep /dev/fuse", check=False).stdout)
        done = inside("n1", "godwit", "drain", "--json", "--also", plain, check=False)
        result = json.loads(done.stdout)
        assert done.returncode == 3 and [m["pid"] for m in result["moved"]] == [int(plain)], result
        assert len(result["stayed"]) == 1 and result["stayed"][0]["error"]["refusals"][0]["way_out"], result
        assert where("92.5")["n1"] == 0 and ask("n1", "ps")["units"], "it runs on"
    finally:
        inside("n1", "pkill", "-f", "92.25", check=False)
        end("92.5", shell)


def test_drain_nowhere(undrained):
    """When all nodes are drained, nothing moves, and what is known of the nodes is why."""
    shell = start("n1", "93.25", 1)
    try:
        wait_until("the unit", lambda: len(ask("n1", "ps")["units"]) == 1)
        ask("n2", "drain")
        ask("n3", "drain")
        result = json.loads(inside("n1", "godwit", "drain", "--json", check=False).stdout)
        assert result["stayed"][0]["error"]["code"] == "no-node" and "n2 is drained" in result["stayed"][0]["error"]["message"], result
        assert where("93.25")["n1"] == 1
    finally:
        end("93.25", shell)


def test_shutdown(undrained):
    """godwitd that is told to end gives everything away first, where its configuration says so."""
    inside("n1", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && sed -i 's/^name = /drain_at_stop = yes\\n&/' /etc/godwit/godwit.conf")
    shell = None
    try:
        lab("restart-daemon", "n1")
        shell = start("n1", "94.25", 3)
        wait_until("the units", lambda: len(ask("n1", "ps")["units"]) == 3)
        inside("n1", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
        lab("restart-daemon", "n1")
        places = where("94.25")
        assert places["n1"] == 0 and places["n2"] + places["n3"] == 3, places
        wait_until("n1 among the nodes again", lambda: state_of("n2", "n1") == "ok", 10)
    finally:
        inside("n1", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
        if shell:
            end("94.25", shell)


SPIN = "import sys\nwhile sys.argv[1]: pass"


def spinners(mark):
    return {host: sum(p.name.startswith("python") for _, p in copies([host], mark)) for host in ("n1", "n2", "n3")}


def test_balance(balanced):
    """Programs that compute, started on one node, spread; each says why it moved, and explain why it moves no more. One that sleeps stays."""
    mark = "spin95"
    shell = popen("n1", "bash", "-c", f"for i in 1 2; do godwit run -- python3 -c '{SPIN}' {mark} & done; godwit run -- sleep 95.75 & wait", stdin=-3, stdout=-3, stderr=-3)
    try:
        wait_until("the programs", lambda: spinners(mark)["n1"] == 2 and where("95.75")["n1"] == 1)
        before = ask("n1", "balance", "status")
        assert not before["balance"] and before["moves"] == 0 and len(before["units"]) == 3, "it is off until somebody says so"
        ask("n1", "balance", "on")
        wait_until("one has left", lambda: spinners(mark)["n1"] < 2 and sum(spinners(mark).values()) == 2, 40, 0.1)
        unit = next(u for u in ask("n1", "ps")["units"] if u["on"] != "n1")
        assert where("95.75")["n1"] == 1 and [u["goes"] for u in before["units"] if "95.75" in u["command"]] == [False]
        said = ask("n1", "balance", "explain", unit["unit"])
        assert said["node"] == unit["on"] and not said["balance"] and said["moves"] == 1 and len(said["nodes"]) == 3, said
        assert said["last_reason"].startswith("balance: ") and "times slower than alone on n1" in said["last_reason"] and said["cpu_s"] > 0, said
    finally:
        for host in ("n1", "n2", "n3"):
            inside(host, "pkill", "-f", mark, check=False)
        end("95.75", shell)


def moved_count(host, reason):
    return sum("event=moved" in line and f'reason="{reason}' in line for line in read(os.path.join(STATE, "hosts", host, "godwitd.log")).splitlines())


def test_receiver(balanced):
    """A node that begins no moves itself gives to one that has room and asks."""
    mark = "spin97"
    inside("n1", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && printf '[balance]\ntransfer = receiver\n' >>/etc/godwit/godwit.conf")
    shell = None
    try:
        lab("restart-daemon", "n1")
        shell = popen("n1", "bash", "-c", f"for i in 1 2 3; do godwit run -- python3 -c '{SPIN}' {mark} & done; wait", stdin=-3, stdout=-3, stderr=-3)
        wait_until("the programs", lambda: spinners(mark)["n1"] == 3)
        status = ask("n1", "balance", "on")
        assert (status["transfer"], status["location"]) == ("receiver", "opportunity")
        time.sleep(3)
        assert spinners(mark)["n1"] == 3, "nobody has asked"
        ask("n2", "balance", "on")
        wait_until("n2 has one", lambda: spinners(mark)["n2"] > 0, 40, 0.1)
        assert spinners(mark)["n3"] == 0
    finally:
        inside("n1", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
        for host in ("n1", "n2", "n3"):
            inside(host, "pkill", "-f", mark, check=False)
        lab("restart-daemon", "n1")
        if shell:
            shell.wait()


TALKER = """
import socket, sys, time
if sys.argv[1] == 'server':
    s = socket.create_server(('', 7198))
    c, _ = s.accept()
    while True:
        c.sendall(bytes(1 << 20))
        time.sleep(0.02)
c = socket.create_connection(('10.66.0.3', 7198))
while c.recv(1 << 20):
    pass
"""


def test_talks(balanced):
    """A unit that reads much from a program on another node goes there, though no CPU is short; and it says why."""
    mark = "talks98"
    lab("limit", "n1", "none", "--cpu", "none")
    server = popen("n3", "python3", "-c", TALKER, "server", mark, stdin=-3, stdout=-3, stderr=-3)
    client = None
    try:
        wait_until("the server", lambda: "7198" in inside("n3", "ss", "-ltn").stdout)
        client = popen("n1", "sh", "-c", f'godwit run -- python3 -c "$0" client {mark} & wait', TALKER, stdin=-3, stdout=-3, stderr=-3)
        ask("n1", "balance", "on")
        unit = wait_until("it is on n3", lambda: next((u for u in ask("n1", "ps")["units"] if mark in u["command"] and u["on"] == "n3"), None), 60, 0.5)
        assert "exchanges" in unit["reason"] and "MiB/s with n3" in unit["reason"], unit
        assert unit["moves"] == 1, unit
    finally:
        for host in ("n1", "n2", "n3"):
            inside(host, "pkill", "-f", mark, check=False)
        for p in (server, client):
            if p:
                p.wait()


def group_text(host, v1, v2):
    """What the kernel says of a host's memory group."""
    root = "/sys/fs/cgroup/memory" if os.path.isdir("/sys/fs/cgroup/memory") else "/sys/fs/cgroup"
    path = next(p for p in glob.glob(f"{root}/**/{host}", recursive=True) if NAME in p)
    return read(os.path.join(path, v2 if root.endswith("cgroup") else v1))


def test_memory(balanced):
    """Programs on one node grow beyond its memory, while others have some: none is killed, all end well, and why they moved is told."""
    shell = None
    lab("limit", "n1", "160M", "--cpu", "none")
    try:
        burn = os.path.join(BUILD, "bench/burn")
        ask("n1", "balance", "on")
        wait_until("n1 knows its limit", lambda: 150 < next(n["indices"]["maxmem"] for n in ask("n1", "nodes")["nodes"] if n["name"] == "n1") < 170)
        script = f"for i in 1 2 3 4; do godwit run -- {burn} 1000000 50 8 & pids+=($!); done; bad=0; for p in ${{pids[@]}}; do wait $p || bad=$((bad+1)); done; echo $bad"
        shell = popen("n1", "bash", "-c", script, stdin=-3, stdout=-1, stderr=-3)
        said, _ = shell.communicate(timeout=60)
        assert said == "0\n", "all have ended, and found what they had written"
        assert "oom_kill 0" in group_text("n1", "memory.oom_control", "memory.events")
        assert moved_count("n1", "memory: n1 has") >= 1
    finally:
        lab("limit", "n1", "none")
        for host in ("n1", "n2", "n3"):
            inside(host, "pkill", "-f", burn, check=False)
        if shell:
            shell.wait()


MAKEFILE = """
all: $(patsubst %.c,%.o,$(wildcard *.c))
"""
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
int f{n}(const char *p, int x)
{{
	char b[{n}00];
#define A x = x * 33 + (int)strlen(p) % (x | 1); if (x & 4) snprintf(b, sizeof(b), "%s %d", p, x); else x ^= b[x & 63];
#define B A A A A A A A A
	B B B B B B B B B B B B B B B B B B B B
	return x + (int)strlen(b);
}}
"""


def test_make(balanced):
    """make -j over the cluster: the compilers run on all nodes, the result is that of a local build, what does not compile fails it, and nothing is left."""
    directory = os.path.join(RUN, "make")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    for n in range(1, 7):
        with open(os.path.join(directory, f"f{n}.c"), "w") as f:
            f.write(SOURCE.format(n=n))
    with open(os.path.join(directory, "Makefile"), "w") as f:
        f.write(MAKEFILE)

    def make(cc):
        return inside("n1", "make", "-s", "-k", "-j6", "-C", directory, f"CC={cc}", "CFLAGS=-O2", check=False, timeout=120)

    def objects():
        return {name: open(os.path.join(directory, name), "rb").read() for name in os.listdir(directory) if name.endswith(".o")}
    assert make("gcc").returncode == 0
    local = objects()
    for name in local:
        os.unlink(os.path.join(directory, name))
    ask("n1", "balance", "on")
    before = moved_count("n1", "run: ")
    done = make("godwit run -- gcc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    assert objects() == local and len(local) == 6
    assert moved_count("n1", "run: ") > before
    with open(os.path.join(directory, "f7.c"), "w") as f:
        f.write("int f(void) { return nothing_known; }\n")
    done = make("godwit run -- gcc")
    assert done.returncode == 2 and "nothing_known" in done.stderr and "f7.o] Error 1" in done.stderr, done
    assert not [p for _, p in copies(["n1", "n2", "n3"], "gcc")]
    wait_until("no unit is left", lambda: not ask("n1", "ps")["units"])
    assert sorted(os.listdir(directory)) == sorted(["Makefile", *(f"f{n}.c" for n in range(1, 8)), *local])
    shutil.rmtree(directory)


def test_make_interrupted(balanced):
    """Ctrl-C on the terminal of a make whose programs run here and elsewhere ends all of them."""
    directory, mark = os.path.join(RUN, "interrupted"), "spin99"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    with open(os.path.join(directory, "Makefile"), "w") as f:
        f.write(f"all: 1 2 3 4\n1 2 3 4:\n\tgodwit run -- python3 -c 'while True: pass' {mark}$@\n")
    ask("n1", "balance", "on")
    make = popen("n1", "script", "-qec", f"make -s -j4 -C {directory}", "/dev/null", stdin=-1, stdout=-1, stderr=-2)
    try:
        wait_until("they run, some elsewhere", lambda: sum(spinners(mark).values()) == 4 and spinners(mark)["n1"] < 4, 60, 0.2)
        make.stdin.write("\x03")
        make.stdin.flush()
        said, _ = make.communicate(timeout=60)
        assert make.returncode != 0 and "Interrupt" in said, said
        wait_until("none is left", lambda: not [p for _, p in copies(["n1", "n2", "n3"], mark)], 30, 0.2)
        wait_until("no unit is left", lambda: not ask("n1", "ps")["units"], 30, 0.2)
    finally:
        for host in ("n1", "n2", "n3"):
            inside(host, "pkill", "-f", mark, check=False)
        make.wait()
        shutil.rmtree(directory)


LOGIN = """
import struct, sys
open('/dev/shm/key', 'w').close()
record = struct.pack('<hxxi32s4s32s256s', 7, 1, b'shm/key', b'1', b'owner', b'')
open('/run/utmp', 'wb').write(record.ljust(384, bytes(1)) if sys.argv[1] == 'in' else b'')
"""


def test_owner(undrained):
    """Somebody logs in at a workstation, or touches a terminal: the units of other nodes leave, those of its own stay; nothing comes as long as the person works there."""
    inside("n2", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && sed -i 's/^name = /workstation = yes\\n&/' /etc/godwit/godwit.conf")
    theirs, own, terminal = start("n1", "96.25", 1), None, None
    try:
        lab("restart-daemon", "n2")
        own = start("n2", "96.5", 1)
        wait_until("the units", lambda: sorted(u["on"] for u in ask("n1", "ps")["units"]) == ["n1", "n2"])
        unit = next(u for u in ask("n1", "ps")["units"] if u["on"] == "n1")
        assert ask("n1", "migrate", str(unit["pid"]), "n2")["outcome"] == "moved"
        inside("n2", "python3", "-c", LOGIN, "in")
        wait_until("it has left", lambda: where("96.25")["n2"] == 0 and sum(where("96.25").values()) == 1, 15, 0.1)
        assert where("96.5")["n2"] == 1
        found = next(u for u in ask("n1", "ps")["units"] if u["unit"] == unit["unit"])
        assert found["on"] != "n2" and found["reason"].startswith("owner: a person works on n2"), found
        wait_until("others know", lambda: state_of("n3", "n2") == "busy")
        back = ask("n1", "migrate", unit["unit"], "n2", check=False)
        assert back["outcome"] == "refused" and "a person works there" in back["error"]["message"], back
        inside("n2", "python3", "-c", LOGIN, "out")
        wait_until("the person has gone", lambda: state_of("n2", "n2") == "ok")
        # Nobody is logged in, and a terminal is touched.
        assert ask("n1", "migrate", unit["unit"], "n2")["outcome"] == "moved"
        time.sleep(2)
        assert where("96.25")["n2"] == 1, "nobody is there"
        terminal = popen("n2", "script", "-qec", "cat", "/dev/null", stdin=-1, stdout=-3, stderr=-3)
        terminal.stdin.write("a key\n")
        terminal.stdin.flush()
        wait_until("it has left again", lambda: where("96.25")["n2"] == 0 and sum(where("96.25").values()) == 1, 15, 0.1)
        assert next(n["indices"]["ls"] for n in ask("n2", "nodes")["nodes"] if n["self"]) == 0
    finally:
        if terminal:
            terminal.stdin.close()
            inside("n2", "pkill", "-x", "script", check=False)
            terminal.wait()
        inside("n2", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf; rm -f /run/utmp")
        lab("restart-daemon", "n2")
        end("96.25", theirs)
        if own:
            end("96.5", own)
