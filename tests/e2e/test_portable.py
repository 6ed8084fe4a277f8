# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that say what their state is move between hosts of several architectures (qemu's user emulation stands in for two of them)."""

import os
import subprocess

import pytest
from lab_driver import BUILD, STATE, inside, popen, read, wait_until

PROGRAMS = os.path.join(BUILD, "tests/portable")
STEPS = 600
ARCHITECTURES = {"n2": "aarch64", "n3": "s390x"}


@pytest.fixture(scope="module")
def lab3(whole_lab):
    """n1 as it is, n2 and n3 of other architectures."""
    whole_lab.mend()
    paths = {host: os.path.join(STATE, f"hosts/{host}/etc/godwit.conf") for host in ARCHITECTURES}
    before = {}
    for host, path in paths.items():
        with open(path, encoding="ascii") as f:
            before[host] = f.read()
        arch = ARCHITECTURES[host]
        with open(path, "w", encoding="ascii") as f:
            f.write(before[host].replace("[node]\n", f"[node]\narch = {arch}\nemulator = /usr/bin/qemu-{arch}-static\n"))
        whole_lab.restart_daemon(host)
    yield whole_lab
    for host, path in paths.items():
        with open(path, "w", encoding="ascii") as f:
            f.write(before[host])
    whole_lab.mend()
    for host in paths:
        whole_lab.restart_daemon(host)


@pytest.fixture(scope="module")
def alone(lab3):
    """What the program says that never moves."""
    where = lab3.directory("alone")
    done = subprocess.run([f"{PROGRAMS}/travel", str(STEPS), f"{where}/log"], capture_output=True, text=True, check=True, timeout=60)
    with open(f"{where}/log", encoding="ascii") as f:
        return done.stdout, f.read()


class Traveller:
    def __init__(self, lab, name, pace_us=2000, prefix=()):
        self.where = lab.directory(name)
        self.lab = lab
        inside("n1", *prefix, "sh", "-c", f"cd {self.where}; TRAVEL_PACE_US={pace_us} {PROGRAMS}/travel {STEPS} log >out 2>err </dev/null & echo $! >pid")
        self.pid = self.read("pid").strip()
        self.unit = f"n1:{self.pid}"
        self.host = "n1"
        wait_until("it has begun", lambda: self.read("log"), 10)

    def read(self, name):
        try:
            with open(f"{self.where}/{name}", encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def move(self, to, *options, check=True):
        done = inside(self.host, "godwit", "migrate", *options, self.unit, to, check=check, timeout=60)
        if done.returncode == 0:
            self.host = to
        return done

    def finish(self):
        wait_until(f"{self.where}/out", lambda: self.read("out").endswith("\n"), 30)
        return self.read("out"), self.read("log")


def test_round(lab3, alone):
    """x86-64, aarch64, s390x and back, and nothing of the result has changed."""
    t = Traveller(lab3, "round", 4000)
    for to in ("n2", "n3", "n1", "n3", "n2"):
        said = t.move(to)
        assert "(portable)" in said.stdout, said.stdout
    assert f"{t.unit} " in inside("n2", "godwit", "ps").stdout
    assert t.finish() == alone
    assert t.read("err") == ""


def test_asked_for(lab3, alone):
    """Between hosts of one architecture the engine does it, and the program's own state where that is wanted; as a user without privileges, too."""
    t = Traveller(lab3, "asked", 4000, ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"))
    refused = inside("n1", "setpriv", "--reuid=games", "--regid=games", "--clear-groups", "godwit", "migrate", "--portable", t.pid, "n2", check=False)
    assert refused.returncode == 3 and "task.not-yours" in refused.stderr, refused.stderr
    t.move("n2", "--portable")
    assert inside("n2", "sh", "-c", f"stat -c %U /proc/$(pgrep -f '^/usr/bin/qemu-aarch64-static.*travel.aarch64 {STEPS}')").stdout == "nobody\n"
    assert t.finish() == alone


def test_refused(lab3):
    """What has no library, or is not installed there, or is more than a program of its user."""
    sleeper = popen("n1", "sh", "-c", "echo $$; exec sleep 77.75", stdin=-3, stdout=-1)
    pid = sleeper.stdout.readline().strip()
    done = inside("n1", "godwit", "migrate", pid, "n2", check=False)
    assert done.returncode == 3 and "[task.portable]" in done.stderr and "libgodwit-portable" in done.stderr, done.stderr
    sleeper.kill()
    inside("n1", "kill", pid)
    t = Traveller(lab3, "refused")
    hidden = f"{PROGRAMS}/travel.aarch64"
    os.rename(hidden, f"{hidden}.hidden")
    try:
        done = t.move("n2", check=False)
    finally:
        os.rename(f"{hidden}.hidden", hidden)
    assert done.returncode == 3 and "[node.program]" in done.stderr and "travel for aarch64 on n2" in done.stderr, done.stderr
    os.remove(f"{t.where}/log")
    done = t.move("n2", check=False)
    assert done.returncode == 1 and "has been removed" in done.stderr, done.stderr
    wait_until("the program knows why", lambda: "has been removed" in t.read("err"), 10)
    inside("n1", "kill", t.pid)


FAULTS = [("n1", f"psource:{step}:{action}") for step in ("point", "state", "go", "gone") for action in ("kill", "error") if (step, action) != ("gone", "error")]
FAULTS += [("n2", f"pdest:{step}:{action}") for step in ("state", "prepared", "commit", "committed", "resumed") for action in ("kill", "error") if (step[-2:], action) != ("ed", "error")]


def try_fault(lab, alone, host, fault, pace_us):
    """Whether it came to the fault before the program's end."""
    t = Traveller(lab, "fault", pace_us)
    seen = read(lab.log(host)).count("event=fault")
    inside(host, "sh", "-c", f"echo {fault} >/run/godwit/fault")
    done = t.move("n2", check=False)
    inside(host, "rm", "-f", "/run/godwit/fault")
    assert t.finish() == alone, f"{fault}: {done.stderr}"
    wait_until(f"{fault}: nothing runs on either", lambda: all(inside(h, "pgrep", "-f", f"travel.* {STEPS} log", check=False).returncode for h in ("n1", "n2")), 10)
    return read(lab.log(host)).count("event=fault") == seen + 1


def test_faults(lab3, alone):
    """Whatever dies, the program goes on once, on one of both hosts, and comes to its result."""
    for host, fault in FAULTS:
        assert any(try_fault(lab3, alone, host, fault, pace_us) for pace_us in (500, 4000)), fault


FLOW = os.path.join(BUILD, "examples/flow/flow")
SIZE = ("96", "48", "300")


def fields(where):
    """What all parts have computed, without what says which of them."""
    whole = []
    for i in range(3):
        with open(f"{where}/field.{i}", encoding="ascii") as f:
            whole += f.readlines()[1:]
    return whole


def test_flow(lab3):
    """Parts of a computation move between hosts of three architectures while they compute, asked from outside and by themselves."""
    still, moved = lab3.directory("flow-still"), lab3.directory("flow-moved")
    for i in range(3):
        inside("n1", "sh", "-c", f"{FLOW} run {still} {i} 3 {' '.join(SIZE)} >{still}/out.{i} 2>&1 </dev/null &")
        wishes = ("60:n3", "120:n1 180:n2", "")[i]
        inside("n1", "sh", "-c", f"FLOW_PACE_US=2000 {FLOW} run {moved} {i} 3 {' '.join(SIZE)} {wishes} >{moved}/out.{i} 2>&1 </dev/null & echo $! >{moved}/pid.{i}")
    unit = "n1:" + read(f"{moved}/pid.2").strip()
    wait_until("a neighbour", lambda: read(f"{moved}/part.1"))
    for host, to in (("n1", "n2"), ("n2", "n3"), ("n3", "n1")):
        inside(host, "godwit", "migrate", unit, to)
    for where in (still, moved):
        wait_until(f"the end in {where}", lambda: all(os.path.exists(f"{where}/field.{i}") for i in range(3)), 60)
    wait_until("all has been written", lambda: fields(moved) == fields(still), 10)
    assert "120: not to n1" in read(f"{moved}/out.1") and read(f"{moved}/out.0") + read(f"{moved}/out.2") == "", [read(f"{moved}/out.{i}") for i in range(3)]
    log = read(lab3.log("n1")) + read(lab3.log("n3"))
    assert log.count("the program asked for it") == 2, log
    subprocess.run([FLOW, "draw", moved, f"{moved}/flow.ppm"], check=True, timeout=60)
    with open(f"{moved}/flow.ppm", "rb") as f:
        picture = f.read()
    assert picture.startswith(b"P6\n96 48\n255\n") and len(picture) == 13 + 3 * 96 * 48 and len(set(picture)) > 50
