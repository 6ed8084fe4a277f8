# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of processes under faults: all of a unit's processes live in one place, whoever dies at whatever step, and know each other as before.

The victims are tests/victims/tree.c; test_victims.py moves each of them undisturbed.
"""

import os
import random
import signal
import time

import pytest

from lab_driver import STRATEGIES, Lab, Victim, copies, kill, main_daemon, processes, residue, wait_until, workers
from test_faults import LISTED, MOVED, PEER_TIMEOUT_MS, Disturbed, clear_faults, held, left_behind, restart_daemons, set_fault

SIZE = 10                   # of tree_family
ACTIONS = ["kill", "killall", "error"]
CASES = [(side, step) for side, step, _ in LISTED]


@pytest.fixture(scope="module")
def tree_lab():
    os.environ["GODWIT_LAB_PEER_TIMEOUT_MS"] = str(PEER_TIMEOUT_MS)
    made = Lab(2)
    yield made
    made.down()
    del os.environ["GODWIT_LAB_PEER_TIMEOUT_MS"]


@pytest.fixture
def lab2(tree_lab):
    tree_lab.mend()
    clear_faults()
    yield tree_lab
    clear_faults()
    tree_lab.mend()


def start(lab_):
    v = Victim(lab_, "tree_family", expect_move=False).wait_ready()
    assert len(copies(("n1",), v.status)) == SIZE
    return v


def settle(v, seconds=15):
    """The host where all of them are, once they are in nobody's hands any more; none is anywhere else."""
    def settled():
        found = copies(("n1", "n2"), v.status)
        hosts = {h for h, _ in found}
        return hosts.pop() if len(found) == SIZE and len(hosts) == 1 and not any(held(p) for _, p in found) else None

    try:
        host = wait_until("", settled, seconds, 0.03)
    except AssertionError:
        raise AssertionError(f"expected {SIZE} live processes on one host, got {[(h, p.host_pid, p.state, held(p)) for h, p in copies(('n1', 'n2'), v.status)]}; "
                             f"status {v.lines()}") from None
    root = [p for _, p in copies((host,), v.status) if not any(q.pid == p.parent for _, q in copies((host,), v.status))]
    assert len(root) == 1, f"roots: {root}"
    v.host, v.pid = host, root[0].host_pid
    return host


def judge(v, result, known, destination="n2"):
    host = settle(v)
    if result.status == MOVED:
        assert host == destination, result.why()
    for h in ("n1", "n2"):
        try:
            wait_until("", lambda h=h: not left_behind(h, v, known), 8, 0.03)
        except AssertionError:
            raise AssertionError(f"left behind on {h}: {left_behind(h, v, known)}; {result.why()}") from None
    return host


@pytest.mark.parametrize("side,step", CASES, ids=["-".join(c) for c in CASES])
def test_tree_fault(lab2, side, step):
    v, failures = None, []
    for action in ACTIONS:
        v = v or start(lab2)
        known = {p.pid for h in ("n1", "n2") for p in processes(h)}
        set_fault(side, step, action)
        try:
            result = Disturbed(v, "freeze-free").end()
            restart_daemons(lab2)
            if judge(v, result, known) == "n2":
                v.assert_ok(20)
                v = None
        except AssertionError as e:
            failures.append(f"{action}: {e}\nn1: {lab2.log_tail('n1')}\nn2: {lab2.log_tail('n2')}")
            v.clean()
            v = None
            lab2.mend()
        clear_faults()
    if v is not None:
        v.assert_ok(20)
    assert not failures, f"{side} {step}: {len(failures)} of {len(ACTIONS)}:\n" + "\n\n".join(failures)


def test_tree_killed_at_random(lab2):
    """A worker, or a daemon with its workers, is killed at a moment that no step table knows: about the commit most of all."""
    random.seed(17)
    v = start(lab2)
    for i in range(16):
        side, what, delay = random.choice(("n1", "n2")), random.choice(("worker", "daemon")), 0.05 + random.random() * 0.25
        known = {p.pid for h in ("n1", "n2") for p in processes(h)}
        moving = Disturbed(v, random.choice(STRATEGIES[:4]))
        time.sleep(delay)
        for p in [p for p in workers(side) if p.name != "godwit-init"] + ([main_daemon(side)] if what == "daemon" else []):
            kill(p.pid, signal.SIGKILL)
        result = moving.end()
        restart_daemons(lab2)
        try:
            judge(v, result, known, moving.destination)
        except AssertionError as e:
            raise AssertionError(f"round {i}, {what} of {side} after {delay:.3f} s: {e}; {result.why()}\nn1: {lab2.log_tail('n1')}\nn2: {lab2.log_tail('n2')}") from None
    v.assert_ok(20)


def test_tree_back_and_forth(lab2):
    """Twelve moves of a tree with threads, each with another strategy."""
    v = Victim(lab2, "tree_threads", expect_move=False).wait_ready()
    random.seed(5)
    for i in range(12):
        strategy = random.choice(STRATEGIES[:4])
        try:
            v.migrate("n2" if v.host == "n1" else "n1", strategy)
        except AssertionError as e:
            raise AssertionError(f"move {i}: {e}") from None
    for _, p in copies((v.host,), v.status):
        assert not residue(p.pid), f"left in process {p.host_pid}: {residue(p.pid)}"
    v.assert_ok(20)
