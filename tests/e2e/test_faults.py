# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults at every step of both step tables: always exactly one live copy, which goes on computing correctly, and nothing half restored.

The cases are made from `godwitd --list-steps`, so that a new step is covered by being there. A line SIDE:STEP:ACTION in /run/godwit/fault of a host
makes the next worker of that side do ACTION at that step:

    kill      the worker dies                         error    the step fails
    killall   the worker and its daemon die           garbage  the other side gets nonsense
    stop      it stops, and the test does something: cuts the link until the daemons have noticed (cut), or cuts the power of the other host (power),
              or nothing (stuck)

The hosts' peer_timeout_ms is short, so that silence is noticed within a second or two.
"""

import os
import random
import re
import signal
import subprocess
import time

import pytest

import lab_driver
from lab_driver import BUILD, Lab, Moved, Victim, copies, init_of, inside, kill, lab, main_daemon, popen, read, residue, share, tasks_sharing_memory
from lab_driver import wait_until, workers

HOST = {"source": "n1", "dest": "n2"}
PEER_TIMEOUT_MS = 1000
LIMIT_SECONDS = 15          # how long a disturbed migration may take to come to its end
STUCK_SECONDS = 10          # ... when a worker has been stopped: its guard ends it after two
FREEZE_SECONDS = 5          # how long the process may stand still when a host before the commit does not answer
MOVED, FAILED, REFUSED, CANCELLED, IN_DOUBT = 0, 1, 3, 4, 5


def list_steps():
    try:
        out = subprocess.run([os.path.join(BUILD, "src/daemon/godwitd"), "--list-steps"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^(source|dest) (\S+)( committed)?$", out, re.M)


LISTED = list_steps()
STEPS = [(side, step) for side, step, _ in LISTED]
ACTIONS = ["kill", "killall", "error", "garbage", "stuck", "cut", "power"]


def late(side, step):
    names = [name for s, name in STEPS if s == side]
    return names.index(step) >= names.index("rounds")


CASES = [(side, step, strategy) for strategy in ("freeze-free", "pre-copy", "stop-copy") for side, step in STEPS
         if strategy == "freeze-free" or (late(side, step) and share(side + step, ("pre-copy", "stop-copy").index(strategy), 4))]


def before_commit(side, step):
    """Whether the process cannot run at the destination yet when that worker comes to that step."""
    return (side, step, "") in LISTED


def before_go(side, step):
    """Whether the source, which stops there, still hears from the destination before it sends the go message. From the freeze on it asks nothing: then it is in doubt
    until the other host is back."""
    names = [name for s, name in STEPS if s == side]
    return side == "source" and names.index(step) < names.index("freeze")


@pytest.fixture(scope="module")
def faulty_lab():
    os.environ["GODWIT_LAB_PEER_TIMEOUT_MS"] = str(PEER_TIMEOUT_MS)
    made = Lab(2)
    yield made
    made.down()
    del os.environ["GODWIT_LAB_PEER_TIMEOUT_MS"]


@pytest.fixture
def lab2(faulty_lab):
    """The lab, working and empty before and after the test."""
    faulty_lab.mend()
    clear_faults()
    yield faulty_lab
    clear_faults()
    faulty_lab.mend()


def set_fault(side, step, action):
    inside(HOST[side], "sh", "-c", f"echo {side}:{step}:{action} >/run/godwit/fault")


def clear_faults():
    for host in ("n1", "n2"):
        if init_of(host):
            inside(host, "rm", "-f", "/run/godwit/fault")


def start(lab_, *arguments, host="n1"):
    name, *rest = arguments or ("ws_random", 8)
    return Victim(lab_, name, *rest, host=host, expect_move=False).wait_ready()


class Disturbed:
    """A migration in the background, so that the test can act in the middle of it."""

    def __init__(self, victim, strategy, *options):
        self.destination = "n2" if victim.host == "n1" else "n1"
        self.process = popen(victim.host, "godwit", "migrate", "--json", "--strategy", strategy, *options, str(victim.pid), self.destination, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

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


def threads_of(p):
    try:
        return os.listdir(f"/proc/{p.pid}/task")
    except OSError:
        return []


def held(p):
    """Whether some thread is stopped or runs Godwit's code instead of the program's."""
    ranges = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in read(f"/proc/{p.pid}/maps").splitlines() if "godwit-scratch" in line]
    for t in threads_of(p):
        if read(f"/proc/{p.pid}/task/{t}/stat").rpartition(")")[2].split()[:1] in (["t"], ["T"]):
            return f"thread {t} is stopped"
        fields = read(f"/proc/{p.pid}/task/{t}/syscall").split()
        if ranges and len(fields) > 2 and any(a <= int(fields[-1], 16) < b for a, b in ranges):
            return f"thread {t} is parked"
    return None


def one_live_copy(lab_, victim, among=("n1", "n2"), seconds=15):
    """The only copy, as (host, process), once it is in no worker's hands any more."""
    def settled():
        found = copies(among, victim.status)
        return found if len(found) == 1 and not held(found[0][1]) else None

    try:
        return wait_until("", settled, seconds, 0.02)[0]
    except AssertionError:
        found = copies(among, victim.status)
        raise AssertionError(f"expected one live copy of the victim, got {[(h, p, held(p)) for h, p in found]}; {victim.where()}; "
                             f"status {victim.lines()}") from None


def left_behind(host, victim, known):
    """What is in a host beside its daemon, the program and what was there before; zombies and workers count."""
    main = main_daemon(host)
    ours = (main.pid, *(p.pid for p in lab_driver.processes(host) if p.parent == main.pid and p.name in lab_driver.HOUSEKEEPERS)) if main else ()
    return [p for p in lab_driver.processes(host) if p.pid not in ours and p.pid not in known and victim.status not in p.cmdline]


def judge(lab_, victim, result=None, known=(), among=("n1", "n2"), worker_lived=False):
    """One live copy that computes correctly, and nothing else."""
    host, p = one_live_copy(lab_, victim, among)
    victim.host, victim.pid = host, p.host_pid
    if result is not None:
        assert result.status in (MOVED, FAILED, REFUSED, CANCELLED, IN_DOUBT), result.why()
        if result.status == MOVED:
            assert host == "n2", f"godwit migrate said that it moved, it is on {host}"
        elif result.status != IN_DOUBT:
            assert host == "n1", f"godwit migrate said that it stayed ({result.why()}), it is on {host}"
        if result.status != MOVED:
            sentence = (result.json.get("error") or {}).get("message") or result.stderr
            assert len(sentence) > 10 and "\n" not in sentence.strip(), f"no sentence about what happened: {sentence!r}"
    for h in among:
        try:
            wait_until("", lambda h=h: not left_behind(h, victim, known), 8, 0.02)
        except AssertionError:
            raise AssertionError(f"left behind on {h}: {left_behind(h, victim, known)}; asked: {result and result.why()}") from None
    if worker_lived:
        wait_until(f"nothing of Godwit in the copy on {host}: {residue(p.pid)}", lambda: not residue(p.pid), 5, 0.02)
    sharing = tasks_sharing_memory(p.pid, host)
    assert not sharing, f"tasks that share the memory of the copy on {host}: {sharing}"
    assert not read(f"/proc/{p.pid}/task/{p.pid}/children").split(), f"children in the copy on {host}"
    return host, p


def kill_daemon_and_workers(host):
    for p in [main_daemon(host), *workers(host)]:
        if p:
            kill(p.pid, signal.SIGKILL)


def restart_daemons(lab_):
    for host in ("n1", "n2"):
        if init_of(host) and not main_daemon(host):
            lab_.restart_daemon(host)


def act_when_stopped(side, moving, act):
    """Waits until the worker of `side` has stopped at its step, acts, lets it go on. False when the migration never came there."""
    def there():
        return next((p for p in workers(HOST[side]) if p.state == "T"), None) or not moving.running()
    got = wait_until(f"the worker of the {side} stops at its step", there, 20, 0.005)
    if got is True:
        raise AssertionError(f"the migration ended before the {side} came to its step: {moving.end().why()}")
    act()
    kill(got.pid, signal.SIGCONT)


def run_power(lab_, v, side, step, strategy, known):
    """The power of the other host is cut. It comes back once the outcome there has been looked at."""
    other = "n2" if side == "source" else "n1"
    mine = HOST[side]
    moving = Disturbed(v, strategy)
    act_when_stopped(side, moving, lambda: lab("kill", other))
    if before_go(side, step):
        # Nothing has left: the source finds out and goes on.
        host, _ = one_live_copy(lab_, v, ("n1",), FREEZE_SECONDS if late(side, step) else LIMIT_SECONDS)
        assert host == "n1"
    lab("start", other)
    result = None
    if mine == "n1":
        result = moving.end()
    else:
        moving.process.communicate(timeout=LIMIT_SECONDS)   # its host is dead
    try:
        # A source that was stopped early enough finds the host up again, and moves to it.
        judge(lab_, v, result, known, ("n1", "n2") if mine == "n1" else (mine,), worker_lived=True)
        if mine == "n1":
            return True
        # The pages that had not arrived died with n1: the copy here may have been on its way out while it was looked at.
        time.sleep(0.3)
        if copies((mine,), v.status):
            return True
        raise AssertionError("the copy has ended for want of its pages")
    except AssertionError:
        wait_until("the rest of it ends", lambda: not left_behind(mine, v, known), LIMIT_SECONDS, 0.05)
        if copies((mine,), v.status):
            raise
    # None is left: only when the dead host owned the process, or a part of it.
    assert not (side == "source" and before_commit(side, step)), \
        f"the destination died before the commit, and the source lost the process: {result.why()} {v.lines()} {lab_driver.processes(mine)}"
    return False


def stopped_workers(host):
    return [p for p in workers(host) if p.state == "T"]


def cpu_time(p):
    """Ticks of all its threads; the victim computes all the time."""
    fields = read(f"/proc/{p.pid}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else -1


def gets_on(p):
    before = cpu_time(p)
    return before >= 0 and wait_until(f"{p} gets on", lambda: cpu_time(p) > before + 3, STUCK_SECONDS, 0.02)


def run_stuck(lab_, v, side, step, strategy, known):
    """The worker is stopped, and nobody sends it on: the program goes on in one place all the same."""
    moving = Disturbed(v, strategy)
    wait_until(f"the worker of the {side} stops at its step", lambda: stopped_workers(HOST[side]) or not moving.running(), 20, 0.005)
    host, p = one_live_copy(lab_, v, seconds=STUCK_SECONDS)
    assert gets_on(p), f"{p} on {host} has ended"
    if before_commit(side, step):
        assert host == "n1", f"before the commit, but it is on {host}"
    for stopped in stopped_workers(HOST[side]):      # where nothing of the program waits for it, it stays so
        kill(stopped.pid, signal.SIGCONT)
    result = moving.end()
    host, p = judge(lab_, v, None, known)
    if result.status in (MOVED, FAILED):
        assert (host == "n2") == (result.status == MOVED), f"{result.why()}, it is on {host}"
    return True


def run_case(lab_, v, side, step, strategy, action, known):
    """One disturbed migration of v from n1 to n2; v is then where it is. False when v has died with its host."""
    set_fault(side, step, action if action in ("kill", "killall", "error", "garbage") else "stop")
    if action == "stuck":
        return run_stuck(lab_, v, side, step, strategy, known)
    if action == "power":
        return run_power(lab_, v, side, step, strategy, known)
    moving = Disturbed(v, strategy)
    if action == "cut":
        act_when_stopped(side, moving, lambda: lab("cut", "n1", "n2"))
        try:
            if before_go(side, step):
                one_live_copy(lab_, v, ("n1",), FREEZE_SECONDS if late(side, step) else LIMIT_SECONDS)
            else:
                time.sleep(3 * PEER_TIMEOUT_MS / 1000)      # silence for longer than anybody's patience is the case here
        finally:
            lab("heal", "n1", "n2")
    result = moving.end()
    restart_daemons(lab_)
    host, _ = judge(lab_, v, result, known, worker_lived=action in ("error", "garbage", "cut"))
    if before_commit(side, step) and action not in ("garbage", "cut"):
        assert host == "n1", f"before the commit, but it is on {host}: {result.why()}"
        assert result.status != MOVED, result.why()
    return True


def run_step(lab_, side, step, strategy, actions=ACTIONS, victim=()):
    """All actions at one step, with one victim where it lives on, so that damage of one case is seen in the next."""
    v, failures = None, []
    for action in actions:
        if action in ("stuck", "power") and strategy != "freeze-free":     # seconds each; neither the guard nor who finds a host dead knows of strategies
            continue
        if v is None:
            v = start(lab_, *victim)
        known = {p.pid for h in ("n1", "n2") for p in lab_driver.processes(h)}
        try:
            alive = run_case(lab_, v, side, step, strategy, action, known)
            if alive and v.host == "n2" and init_of("n2"):
                v.assert_ok(10)
                v = None
            elif not alive:
                v = None
        except (AssertionError, subprocess.TimeoutExpired) as e:
            failures.append(f"{action}: {e}\nn1: {lab_.log_tail('n1')}\nn2: {lab_.log_tail('n2')}")
            if v:
                v.clean()
            v = None
            lab_.mend()
        clear_faults()
    if v is not None:
        try:
            v.migrate("n2")         # what was disturbed so often still moves ...
            v.assert_ok(10)         # ... and is right
        except AssertionError as e:
            failures.append(f"afterwards: {e}")
    assert not failures, f"{side} {step} {strategy}: {len(failures)} of {len(actions)}:\n" + "\n\n".join(failures)


def test_steps_are_listed():
    assert {side for side, _ in STEPS} == {"source", "dest"}, "godwitd --list-steps lists no steps of source and dest"


@pytest.mark.parametrize("side,step,strategy", CASES, ids=["-".join(c) for c in CASES])
def test_fault(lab2, side, step, strategy):
    run_step(lab2, side, step, strategy)


@pytest.mark.parametrize("side,step", [c for c in STEPS if late(*c)], ids=["-".join(c) for c in STEPS if late(*c)])
def test_fault_asleep(lab2, side, step):
    """Threads that sleep rest in the worker's stops, at the source until the commit, and give up EXITKILL early at the destination: they go on where the program does, in the calls that they were in."""
    run_step(lab2, side, step, "freeze-free", ("kill", "killall", "error", "garbage"), ("block", "all"))


@pytest.mark.parametrize("side,step", [("source", "freeze"), ("source", "go"), ("dest", "go"), ("dest", "commit")])
def test_fault_in_parts(lab2, side, step):
    """Calls that have done a part of their work, and return that much after any stop: where the attempt has failed they go on with the rest of it."""
    run_step(lab2, side, step, "freeze-free", ("error",), ("partial", "alone"))


def test_go_connection_is_late(lab2):
    """What goes ahead on the go connection comes after what the bulk connection brings in the freeze: the newer version of a page stays."""
    v = start(lab2, "mem_bursts")
    for _ in range(6):
        there = "n2" if v.host == "n1" else "n1"
        inside(there, "sh", "-c", "echo dest:go:stop >/run/godwit/fault")
        moving = Disturbed(v, "pre-copy")
        stopped = wait_until("the destination stops", lambda there=there: stopped_workers(there), 20, 0.005)
        time.sleep(0.3)
        kill(stopped[0].pid, signal.SIGCONT)
        result = moving.end()
        assert result.status == MOVED and result.json.get("pages_sent", 0) > 0, result.why()
        v.host, v.pid = there, result.json["pid"]
        clear_faults()
        assert v.verdict_line() is None, v.verdict_line()
    v.assert_ok(20)


def test_no_memory_at_the_destination(lab2):
    """Four times the memory that the destination may use: the process stays, or it has moved and lives."""
    lab("limit", "n2", "64M")
    try:
        v = start(lab2, "ws_random", 256)
        moving = Disturbed(v, "freeze-free")
        result = moving.end(60)
        if result.status in (MOVED, IN_DOUBT) and not copies(("n1", "n2"), v.status):
            # Post-copy fills the memory of a process that runs there already. The kernel may end it, as it would any program.
            assert not left_behind("n1", v, ()), f"left behind: {left_behind('n1', v, ())}"
        else:
            judge(lab2, v, result)
            v.assert_ok(20)
    finally:
        lab("limit", "n2", "none", check=False)
        lab("kill", "n2", check=False)


def test_interrupted_at_random(lab2):
    """godwit migrate is interrupted again and again, with threads in all kinds of calls: none of them notices."""
    v = start(lab2, "block", "all")
    random.seed(4470)
    asked = 0
    while asked < 30 and v.verdict_line() is None:
        moving = Disturbed(v, random.choice(("freeze-free", "pre-copy", "stop-copy")))
        delay = random.random() * 0.15
        try:
            moving.process.wait(delay)
        except subprocess.TimeoutExpired:
            moving.process.send_signal(signal.SIGINT)
        result = moving.end()
        asked += 1
        host, p = one_live_copy(lab2, v)
        # The command may have been interrupted before it could catch the signal: then it has said nothing, and nothing is known until the worker has noticed.
        if result.status != -signal.SIGINT:
            assert result.status in (MOVED, CANCELLED), result.why()
            assert (host == moving.destination) == (result.status == MOVED), f"{result.why()}: it is on {host}"
        wait_until("workers end", lambda: not workers("n1") and not workers("n2"), 10, 0.01)
        host, p = one_live_copy(lab2, v)
        wait_until("nothing of Godwit in it", lambda p=p: not residue(p.pid) and not tasks_sharing_memory(p.pid, host), 5, 0.01)
        v.host, v.pid = host, p.host_pid
    v.assert_ok(20)


def test_back_and_forth(lab2):
    """Forty moves of a program with threads, each with another strategy."""
    v = start(lab2, "ws_threads", 8)
    random.seed(10661)
    for i in range(40):
        strategy = random.choice(lab_driver.STRATEGIES[:4])
        try:
            v.migrate("n2" if v.host == "n1" else "n1", strategy)
        except AssertionError as e:
            raise AssertionError(f"move {i}: {e}") from None
    v.assert_ok(20)


def test_killed_at_random(lab2):
    """A worker, or a daemon with its workers, is killed at a moment that no step table knows."""
    random.seed(2)
    v = start(lab2, "ws_threads", 8)
    for i in range(20):
        side, what, delay = random.choice(("n1", "n2")), random.choice(("worker", "daemon")), random.random() * 0.3
        known = {p.pid for h in ("n1", "n2") for p in lab_driver.processes(h)}
        moving = Disturbed(v, random.choice(lab_driver.STRATEGIES[:4]))
        try:
            moving.process.wait(delay)
        except subprocess.TimeoutExpired:
            pass
        # The first process of a pid namespace is no worker: ending it ends what is inside, as anywhere.
        victims = [p for p in workers(side) if p.name != "godwit-init"] + ([main_daemon(side)] if what == "daemon" else [])
        for p in victims:
            kill(p.pid, signal.SIGKILL)
        ended = {p.pid for p in victims}
        wait_until(f"{victims} end", lambda: not any(p.pid in ended and p.state not in "ZX" for p in lab_driver.daemons(side)))
        result = moving.end()
        restart_daemons(lab2)
        try:
            host, p = judge(lab2, v, None, known)
            if result.status == MOVED:
                assert host == moving.destination, result.why()
            elif result.status != IN_DOUBT:
                assert host != moving.destination, result.why()
        except AssertionError as e:
            raise AssertionError(f"round {i}, {what} of {side} after {delay:.3f} s: {e}; {result.why()}\nn1: {lab2.log_tail('n1')}\n"
                                 f"n2: {lab2.log_tail('n2')}") from None
    v.assert_ok(20)


def test_stopped_at_random(lab2):
    """A worker is stopped at a moment that no step table knows, and stays so: the program goes on before long."""
    random.seed(12)
    v = start(lab2, "ws_threads", 8)
    for i in range(12):
        side, delay, strategy = random.choice(("n1", "n2")), random.random() * 0.3, random.choice(lab_driver.STRATEGIES[:4])
        moving = Disturbed(v, strategy)
        try:
            moving.process.wait(delay)
        except subprocess.TimeoutExpired:
            pass
        for p in workers(side):
            if p.name not in ("godwit-init", "godwit-guard"):
                kill(p.pid, signal.SIGSTOP)
        try:
            host, p = one_live_copy(lab2, v)
            assert gets_on(p), f"{p} has ended: {v.lines()}"
        except AssertionError as e:
            raise AssertionError(f"round {i}, {strategy}, worker of {side} after {delay:.3f} s: {e}\nn1: {lab2.log_tail('n1')}\nn2: {lab2.log_tail('n2')}") from None
        for p in stopped_workers(side):
            kill(p.pid, signal.SIGCONT)
        moving.end()
        host, p = judge(lab2, v, None)
        v.host, v.pid = host, p.host_pid
    v.assert_ok(20)


def test_ends_while_pages_are_on_their_way(lab2):
    """A program that has moved, and ends before its pages are there, has moved: also when the sender finds its connection broken before it reads why."""
    for _ in range(8):
        v = start(lab2, "ws_random", 200)
        moving = Disturbed(v, "freeze-free")
        wait_until("it runs on n2", lambda: [p for _, p in copies(("n2",), v.status) if not held(p)] and not copies(("n1",), v.status), step=0.002)
        for _, p in copies(("n2",), v.status):
            kill(p.pid, signal.SIGKILL)
        result = moving.end()
        assert result.status == MOVED, result.why()


def test_link_cut_while_pages_are_on_their_way(lab2):
    """Post-copy waits out silence that is much longer than the patience of all other connections."""
    v = start(lab2, "ws_random", 24)
    set_fault("source", "push", "stop")
    moving = Disturbed(v, "copy-on-reference")

    def cut():
        lab("cut", "n1", "n2")
        time.sleep(5 * PEER_TIMEOUT_MS / 1000)
        lab("heal", "n1", "n2")
    act_when_stopped("source", moving, cut)
    result = moving.end()
    assert result.status == MOVED, result.why()
    host, _ = one_live_copy(lab2, v, ("n2",))
    v.host = host
    v.assert_ok(20)
