#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./dev storm [--faults N] [--seed S] [--only KIND,...]: a self-checking program moves again and again between two hosts, and each move is disturbed at random.

Every time there must be exactly one copy, which goes on computing correctly, with nothing left behind; or none, where a host died that held a part of it, or the
kernel has ended it for want of memory. What can be lost, and when, is in godwit(1). One line a fault, a table in the end; status 1 when anything else has happened.
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import time

os.environ.setdefault("GODWIT_LAB_PEER_TIMEOUT_MS", "1000")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "tests/e2e"))
import lab_driver  # noqa: E402
import test_faults as faults  # noqa: E402
from lab_driver import copies, init_of, inside, kill, lab, main_daemon, wait_until, workers  # noqa: E402

HOSTS = ("n1", "n2")
PROGRAMS = [("ws_random", 8), ("ws_threads", 8), ("ws_random", 48), ("block", "all"), ("file_writer",), ("mem_churn",), ("tcp_busy",), ("unix_churn",)]
DISK_KIB = 32 << 10
PATIENCE_SECONDS = 120     # for a verdict, on a machine that may be busy
FAULTS = {}


def fault(function):
    """Something that happens to a move under way; the name of the function is that of the kind."""
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


class Round:
    """One move from `here` to `there`, disturbed. A fault may name hosts that died (dead) or are short of memory (poor): only then may the program be lost."""

    def __init__(self, victim, strategy):
        self.here = victim.host
        self.there = "n2" if self.here == "n1" else "n1"
        self.victim, self.strategy, self.dead, self.poor, self.detail, self.moving = victim, strategy, set(), set(), "", None

    def begin(self):
        self.moving = faults.Disturbed(self.victim, self.strategy)

    def at_random(self, most=0.6):
        """Some moment of the move."""
        delay = random.random() * most
        self.detail += f" after {delay * 1000:.0f} ms"
        self.wait(delay)

    def wait(self, seconds):
        """For the end of the move, so long at most."""
        try:
            self.moving.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def host(self):
        name = random.choice(HOSTS)
        self.detail += f" {name}"
        return name


def end_workers(host, number):
    for p in workers(host):
        if p.name not in ("godwit-init", "godwit-guard"):
            kill(p.pid, number)


@fault
def worker_killed(r):
    host = r.host()
    r.begin()
    r.at_random()
    end_workers(host, signal.SIGKILL)


@fault
def daemon_killed(r):
    host = r.host()
    r.begin()
    r.at_random()
    main = main_daemon(host)
    if random.random() < 0.5:
        r.detail += " with its workers"
        end_workers(host, signal.SIGKILL)
    if main:
        kill(main.pid, signal.SIGKILL)


@fault
def worker_stopped(r):
    host = r.host()
    r.begin()
    r.at_random()
    end_workers(host, signal.SIGSTOP)
    time.sleep(random.random() * 4)
    for p in faults.stopped_workers(host):
        kill(p.pid, signal.SIGCONT)


@fault
def step(r):
    side, name = random.choice(faults.STEPS)
    action = random.choice(("kill", "killall", "error", "garbage"))
    r.detail += f" {side} {name} {action}"
    host = r.here if side == "source" else r.there
    inside(host, "sh", "-c", f"echo {side}:{name}:{action} >/run/godwit/fault")
    r.begin()


@fault
def link_cut(r):
    r.begin()
    r.at_random()
    lab("cut", *HOSTS)
    seconds = random.choice((0.1, 0.5, 3, 6)) * random.random()
    r.detail += f" for {seconds:.1f} s"
    time.sleep(seconds)
    lab("heal", *HOSTS)


@fault
def link_delays(r):
    """It works for moments only."""
    r.begin()
    for _ in range(random.randint(3, 8)):
        lab("cut", *HOSTS)
        time.sleep(random.random() * 0.4)
        lab("heal", *HOSTS)
        time.sleep(random.random() * 0.2)


@fault
def link_loses(r):
    """What arrives damaged is dropped by who receives it: so it is with these packets."""
    percent = random.choice((1, 5, 20))
    r.detail += f" {percent} % of its packets"
    switch = ["ip", "netns", "exec", f"{lab_driver.NAME}-net", "nft"]
    subprocess.run([*switch, f"add chain bridge lab damage {{ type filter hook forward priority 1; }}; add rule bridge lab damage numgen random mod 100 < {percent} drop"], check=True)
    try:
        r.begin()
        r.wait(20)
    finally:
        subprocess.run([*switch, "delete chain bridge lab damage"], check=True)


def fill(host):
    """The disk with what godwitd keeps there. What it holds already stays."""
    with open(os.path.join(disk(host), "full"), "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError:
            pass


@fault
def disk_full(r):
    host = r.host()
    fill(host)
    try:
        r.begin()
        r.wait(10)
    finally:
        os.unlink(os.path.join(disk(host), "full"))


@fault
def out_of_memory(r):
    size = random.choice(("16M", "32M", "48M"))
    r.detail += f" {r.there}: {size}"
    r.poor.add(r.there)
    if lab("limit", r.there, size, check=False).returncode:     # it has more in use
        r.detail += ", which is too little for what runs there: 96M"
        lab("limit", r.there, "96M")
    try:
        r.begin()
        r.wait(30)
    finally:
        lab("limit", r.there, "none", check=False)


@fault
def power_cut(r):
    host = r.host()
    r.begin()
    r.at_random()
    r.dead.add(host)
    lab("kill", host)
    time.sleep(random.random() * 3)
    lab("start", host)


@fault
def interrupted(r):
    r.begin()
    r.at_random()
    r.moving.process.send_signal(signal.SIGINT)


def disk(host):
    return os.path.join(lab_driver.STATE, "hosts", host, "lib")


def give_disks():
    """Disks of their own for what godwitd keeps, small enough to be filled; they outlive a host's death as its disk does."""
    for host in HOSTS:
        lab("kill", host)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k,mode=755", "storm", disk(host)], check=True)
        lab("start", host)


def take_disks():
    for host in HOSTS:
        subprocess.run(["umount", "-l", disk(host)], check=False, stderr=subprocess.DEVNULL)


def heal(made):
    for host in HOSTS:
        if init_of(host) is None:
            lab("start", host)
        inside(host, "rm", "-f", "/run/godwit/fault")
    faults.restart_daemons(made)


def may_be_lost(r, result):
    """The process was at a host that died, or some of its pages were: before the commit only the source's death ends it; or the kernel wanted memory where it has arrived."""
    if r.here in r.dead or r.poor:
        return True
    return r.there in r.dead and (result is None or result.status in (faults.MOVED, faults.IN_DOUBT))


RELAYS = ("godwit-home", "godwit-away")    # for what a unit has at home, as long as it lives


def left_behind(host, r, known):
    return [p for p in faults.left_behind(host, r.victim, known) if p.name not in RELAYS or r.victim.verdict_line()]


def nothing_left(r, known):
    for h in HOSTS:
        try:
            wait_until("", lambda h=h: not left_behind(h, r, known), 15, 0.05)
        except AssertionError:
            raise AssertionError(f"left behind on {h}: {[(p, p.name) for p in left_behind(h, r, known)]}") from None


def judge(made, r, known):
    """The only copy, as (host, process), which Godwit has let go."""
    host, p = faults.one_live_copy(made, r.victim)
    r.victim.host, r.victim.pid = host, p.host_pid
    if r.strategy == "copy-on-reference":     # pages wait at the source, and who keeps them there: the program's own check asks for all
        r.victim.assert_ok(PATIENCE_SECONDS)
    nothing_left(r, known)
    sharing = lab_driver.tasks_sharing_memory(p.pid, host)
    assert not sharing, f"tasks that share the memory of the copy on {host}: {sharing}"
    return host, p


def run_round(made, r, known, act):
    """What came of it: "moved", "stayed" or "lost". AssertionError for everything that must not be."""
    result = None
    act(r)
    if init_of(r.here) and r.here not in r.dead:
        result = r.moving.end(90)
    else:
        r.moving.process.communicate(timeout=30)
    heal(made)
    try:
        host, p = judge(made, r, known)
    except AssertionError:
        if not may_be_lost(r, result) or copies(HOSTS, r.victim.status):
            raise
        nothing_left(r, known)
        return "lost"
    if result and result.status == faults.MOVED:
        assert host == r.there, f"it was said to have moved, and is on {host}"
    elif result and result.status in (faults.FAILED, faults.REFUSED, faults.CANCELLED):
        assert host == r.here, f"{result.why()}, and it is on {host}"
    r.victim.host, r.victim.pid = host, p.host_pid
    return "moved" if host == r.there else "stayed"


def storm(made, options):
    table, bad, victim, left = collections.defaultdict(collections.Counter), 0, None, 0
    for number in range(1, options.faults + 1):
        if victim is None:
            victim, left = faults.start(made, *random.choice(PROGRAMS)), random.randint(3, 12)
        kind = random.choice(options.only)
        r = Round(victim, random.choice(lab_driver.STRATEGIES))
        known = {p.pid for h in HOSTS for p in lab_driver.processes(h) if victim.status not in p.cmdline}
        begun = time.monotonic()
        try:
            outcome = run_round(made, r, known, FAULTS[kind])
            left -= 1
            if left <= 0 and outcome != "lost" and victim.verdict_line() is None:
                victim.assert_ok(PATIENCE_SECONDS)
            if left <= 0 or outcome == "lost" or victim.verdict_line():
                victim = None
        except (AssertionError, subprocess.TimeoutExpired, OSError) as e:
            outcome, bad = "WRONG", bad + 1
            print(f"{number} {kind}:{r.detail}: {e}\nn1: {made.log_tail('n1', 20)}\nn2: {made.log_tail('n2', 20)}", flush=True)
            victim.clean()
            victim = None
            made.mend()
            heal(made)
        table[kind][outcome] += 1
        print(f"{number:4} {r.victim.name:12} {r.here} to {r.there} {r.strategy:18} {kind}{r.detail}: {outcome}, {time.monotonic() - begun:.1f} s", flush=True)
    if victim:
        victim.assert_ok(PATIENCE_SECONDS)
    return table, bad


def main():
    parser = argparse.ArgumentParser(prog="./dev storm", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default=",".join(FAULTS), help="kinds of faults: " + " ".join(FAULTS))
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = [k for k in options.only if k not in FAULTS]
    if unknown:
        parser.error(f"no such fault: {' '.join(unknown)}")
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)
    made = lab_driver.Lab(2)
    try:
        give_disks()
        table, bad = storm(made, options)
    finally:
        made.down()
        take_disks()
    print(f"\n{'fault':16} {'times':>6} {'moved':>6} {'stayed':>6} {'lost':>6} {'wrong':>6}")
    for kind, counted in sorted(table.items()):
        print(f"{kind:16} {sum(counted.values()):6} " + " ".join(f"{counted[k]:6}" for k in ("moved", "stayed", "lost", "WRONG")))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
