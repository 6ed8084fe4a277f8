# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults at every step of both step tables: always exactly one live copy, which goes on computing correctly, and nothing half restored.

The cases are made from `godwitd --list-steps`, so that a new step is covered by being there. A line SIDE:STEP:ACTION in /run/godwit/fault of a host
makes the next worker of that side do ACTION at that step. `stop` lets the test act at that moment: end the daemon and the worker, cut the link, kill
the host.
"""

import os
import re
import signal
import subprocess
import threading

import pytest

from lab_driver import (BUILD, Moved, Victim, copies, init_of, inside, kill, lab, main_daemon, migrate, popen, read, residue,
                        strangers, tasks_sharing_memory, wait_until, workers)

HOST = {"source": "n1", "dest": "n2"}
LIMIT_SECONDS = 25          # how long a disturbed migration may take to come to its end


def list_steps():
    try:
        out = subprocess.run([os.path.join(BUILD, "src/daemon/godwitd"), "--list-steps"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^(source|dest) (\S+)$", out, re.M)


STEPS = list_steps()
ACTIONS = ["kill", "killall", "error", "garbage", "cut", "freeze"]
CASES = [(side, step, action) for side, step in STEPS for action in ACTIONS]


def test_steps_are_listed():
    sides = {side for side, _ in STEPS}
    assert sides == {"source", "dest"}, "godwitd --list-steps lists no steps of source and dest"


def set_fault(side, step, action):
    inside(HOST[side], "sh", "-c", f"mkdir -p /run/godwit; echo {side}:{step}:{action} >/run/godwit/fault")


def clear_faults():
    for host in ("n1", "n2"):
        if init_of(host):
            inside(host, "rm", "-f", "/run/godwit/fault")


def stopped_worker(side):
    return next((p for p in workers(HOST[side]) if p.state == "T"), None)


class Disturbed:
    """A migration in the background, so that the test can act in the middle of it."""

    def __init__(self, victim, strategy, *options):
        self.process = popen("n1", "godwit", "migrate", "--json", "--strategy", strategy, *options, str(victim.pid), "n2", stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def running(self):
        return self.process.poll() is None

    def end(self, seconds=LIMIT_SECONDS):
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"godwit migrate had not ended after {seconds} s: {out} {err}") from None
        return Moved(subprocess.CompletedProcess([], self.process.returncode, out, err))


def one_live_copy(lab_, victim, among=("n1", "n2")):
    """The only copy, as (host, process), once it is in no worker's hands any more."""
    def settled():
        found = copies(among, victim.status)
        stuck = [p for _, p in found if any(read(f"/proc/{p.pid}/task/{t}/stat").rpartition(")")[2].split()[:1] in (["t"], ["T"])
                                            for t in (os.listdir(f"/proc/{p.pid}/task") if os.path.isdir(f"/proc/{p.pid}/task") else []))]
        return found if len(found) == 1 and not stuck else None

    try:
        return wait_until("", settled, 15, 0.05)[0]
    except AssertionError:
        found = copies(among, victim.status)
        raise AssertionError(f"expected one live copy of the victim, got {found}; {victim.where()}; status {victim.lines()}\n"
                             f"n1: {lab_.log_tail('n1')}\nn2: {lab_.log_tail('n2')}") from None


def judge(lab_, victim, result=None):
    """One live copy that computes correctly, and nothing else."""
    host, p = one_live_copy(lab_, victim)
    victim.host, victim.pid = host, p.host_pid
    if result is not None and result.status == 0:
        assert host == "n2", f"godwit migrate said that it moved, it is on {host}"
    if result is not None and result.status in (1, 3, 4):
        assert host == "n1", f"godwit migrate said that it stayed ({result.why()}), it is on {host}"
    if result is not None and result.status not in (0,):
        assert result.why().strip(": "), "no sentence about what happened"
    before = read(f"/proc/{p.pid}/stat").rpartition(")")[2].split()[11]
    wait_until(f"the copy on {host} works: {victim.where()}",
               lambda: read(f"/proc/{p.pid}/stat").rpartition(")")[2].split()[11:12] != [before] or victim.verdict_line(), 10, 0.02)
    wait_until(f"residue in the copy on {host}", lambda: not residue(p.pid) and not tasks_sharing_memory(p.pid, host), 10, 0.05) \
        if residue(p.pid) or tasks_sharing_memory(p.pid, host) else None
    victim.assert_ok()
    for h in ("n1", "n2"):
        try:
            wait_until("", lambda h=h: not [s for s in strangers(h, victim.status) if not is_daemon(h, s)], 8, 0.05)
        except AssertionError:
            raise AssertionError(f"left behind on {h}: {strangers(h, victim.status)}") from None


def is_daemon(host, process):
    """A daemon that was started again, or a worker that is about to end; those are awaited by judge_daemons."""
    main = main_daemon(host)
    return bool(main) and process.pid == main.pid


@pytest.fixture
def victim(lab2):
    clear_faults()
    lab2.assert_clean()
    v = Victim(lab2, "ws_random", 24, expect_move=False).wait_ready()
    yield v
    v.clean()
    clear_faults()


def kill_daemon_and_workers(host):
    for p in [main_daemon(host), *workers(host)]:
        if p:
            kill(p.pid, signal.SIGKILL)


def act_when_stopped(side, moving, act):
    """Waits until the worker of `side` has stopped at its step, acts, lets it go on."""
    def there():
        return stopped_worker(side) or not moving.running()
    got = wait_until(f"the worker of the {side} stops at its step", there, 20, 0.005)
    assert got is not True, f"the migration ended before the {side} came to this step: {moving.end().why()}"
    act()
    kill(got.pid, signal.SIGCONT)


@pytest.mark.parametrize("side,step,action", CASES, ids=["-".join(c) for c in CASES])
def test_fault(lab2, victim, side, step, action):
    """kill: the worker dies. killall: the daemon dies with it. error: the step fails. garbage: the peer gets nonsense. cut: the link
    falls silent. freeze: the worker hangs, and the daemon of the other side dies."""
    other = HOST["dest" if side == "source" else "source"]
    set_fault(side, step, action if action in ("kill", "killall", "error", "garbage") else "stop")
    moving = Disturbed(victim, "freeze-free", "--timeout", "10")
    try:
        if action == "cut":
            act_when_stopped(side, moving, lambda: lab("cut", "n1", "n2"))
            # Silence has to be noticed by itself; the link comes back later than that.
            try:
                moving.end(6)
            except AssertionError:
                moving = None
            lab("heal", "n1", "n2")
        elif action == "freeze":
            act_when_stopped(side, moving, lambda: kill_daemon_and_workers(other))
        result = moving.end() if moving else None
    finally:
        lab("heal", "n1", "n2", check=False)
    for host in ("n1", "n2"):
        if not main_daemon(host):
            lab2.restart_daemon(host)
    judge(lab2, victim, result)


@pytest.mark.parametrize("strategy", ["pre-copy", "hybrid", "stop-copy"])
@pytest.mark.parametrize("side", ["source", "dest"])
def test_fault_around_the_commit(lab2, victim, side, strategy):
    """The steps next to the commit, with the other strategies: the worker and its daemon die."""
    names = [step for s, step in STEPS if s == side]
    for step in [n for n in names if n in ("freeze", "go", "commit", "push", "resume", "install")]:
        v = victim if victim.verdict_line() is None else Victim(lab2, "ws_random", 24, expect_move=False).wait_ready()
        set_fault(side, step, "killall")
        result = Disturbed(v, strategy, "--timeout", "10").end()
        for host in ("n1", "n2"):
            if not main_daemon(host):
                lab2.restart_daemon(host)
        try:
            judge(lab2, v, result)
        except AssertionError as e:
            raise AssertionError(f"{side}:{step}: {e}") from None
        clear_faults()


@pytest.mark.parametrize("side,step", STEPS, ids=["-".join(s) for s in STEPS])
@pytest.mark.parametrize("dies", ["n1", "n2"])
def test_host_dies(lab2, victim, side, step, dies):
    """A whole host goes away at a step: the copy on the other one lives if it was the owner, else none does."""
    set_fault(side, step, "stop")
    moving = Disturbed(victim, "freeze-free", "--timeout", "8")
    stopped_on = HOST[side]

    def act():
        lab("kill", dies)
    act_when_stopped(side, moving, act)
    survivor = "n2" if dies == "n1" else "n1"
    try:
        moving.end(20)
    except AssertionError:
        pass
    wait_until("workers end", lambda: not workers(survivor), 20, 0.05) if stopped_on == survivor else None
    names = [s for side_, s in STEPS if side_ == side]
    commit = names.index("commit") if "commit" in names else len(names)
    try:
        host, p = one_live_copy(lab2, victim, (survivor,))
    except AssertionError:
        # None may be left only when the dead host owned it.
        found = copies((survivor,), victim.status)
        assert not found, f"neither alive nor gone: {found}; {victim.where()}"
        early = names.index(step) < commit
        assert not (dies == "n2" and early), f"the destination died at {step}, before the commit, and the source lost the process"
        assert not strangers(survivor), f"left behind on {survivor}: {strangers(survivor)}"
        return
    victim.host, victim.pid = host, p.host_pid
    victim.assert_ok()
    lab2_clean_on(survivor, victim)


def lab2_clean_on(host, victim):
    try:
        wait_until("", lambda: not strangers(host, victim.status), 8, 0.05)
    except AssertionError:
        raise AssertionError(f"left behind on {host}: {strangers(host, victim.status)}") from None


def test_memory_limit_of_the_destination(lab2, victim):
    """The destination has not enough memory: the process stays, or it has moved and lives."""
    big = Victim(lab2, "ws_random", 128, expect_move=False).wait_ready()
    lab("limit", "n2", "64M")
    try:
        result = migrate("n1", big.pid, "n2", options=("--timeout", "20"), timeout=60)
        judge(lab2, big, result)
    finally:
        big.clean()
        lab("kill", "n2", check=False)
        lab2.mend()


def test_cancel(lab2):
    """Interrupted before the commit: the process stays and is unharmed; the status says so."""
    v = Victim(lab2, "ws_random", 256, expect_move=False).wait_ready()
    names = [step for side, step in STEPS if side == "source"]
    step = next((n for n in ("rounds", "prepare", "content") if n in names), None)
    assert step, STEPS
    set_fault("source", step, "stop")
    moving = Disturbed(v, "pre-copy")
    main_pid = []
    act_when_stopped("source", moving, lambda: main_pid.append(moving.process.send_signal(signal.SIGINT)))
    result = moving.end()
    clear_faults()
    assert result.status in (4, 0), result.why()
    assert result.status == 4, f"cancelled before the commit, but: {result.why()}"
    judge(lab2, v, result)


def test_victim_dies_while_it_moves(lab2, victim):
    """The process is killed in the middle of its move: the move fails with a sentence, nothing is left anywhere."""
    names = [step for side, step in STEPS if side == "source"]
    step = next((n for n in ("prepare", "rounds") if n in names), None)
    assert step, STEPS
    set_fault("source", step, "stop")
    moving = Disturbed(victim, "freeze-free", "--timeout", "10")
    p = victim.process()
    act_when_stopped("source", moving, lambda: kill(p.pid, signal.SIGKILL))
    result = moving.end()
    assert result.status not in (0, 5), result.text
    lab2.assert_clean()


@pytest.mark.parametrize("payload", [b"", b"\0" * 4096, b"\xff" * 65536, b"GET / HTTP/1.0\r\n\r\n", os.urandom(100000)],
                         ids=["nothing", "zeros", "ones", "http", "random"])
def test_garbage_at_the_door(lab2, victim, payload):
    """Nonsense on the port of the daemon: it goes on serving."""
    script = "import socket,sys\nfor i in range(20):\n s=socket.create_connection(('n2',4470),5)\n" \
             f" try:\n  s.sendall(bytes.fromhex('{payload[:2000].hex()}') * {max(1, len(payload) // 2000)})\n  s.settimeout(0.02)\n  s.recv(100)\n" \
             " except OSError: pass\n s.close()\n"
    before = main_daemon("n2").pid
    inside("n1", "/usr/bin/python3", "-c", script)
    victim.migrate("n2")
    victim.assert_ok()
    assert main_daemon("n2").pid == before
    wait_until("workers of nonsense end", lambda: not workers("n2"), 15, 0.05)


@pytest.mark.parametrize("moment_ms", [0, 5, 20, 60, 150])
@pytest.mark.parametrize("which", ["n1", "n2"])
def test_daemon_killed_at_some_moment(lab2, which, moment_ms):
    """Without the hook: the daemon and its workers die at a moment that no step table knows, while pages are on their way."""
    v = Victim(lab2, "ws_random", 96, expect_move=False).wait_ready()
    moving = Disturbed(v, "freeze-free", "--timeout", "10")
    timer = threading.Event()
    wait_until("worker", lambda: workers(which) or not moving.running(), 10, 0.002)
    timer.wait(moment_ms / 1000)
    kill_daemon_and_workers(which)
    result = None
    try:
        result = moving.end()
    finally:
        for host in ("n1", "n2"):
            if not main_daemon(host):
                lab2.restart_daemon(host)
    judge(lab2, v, result)

