# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of victim, moved with every strategy.

Victims of one strategy run in batches: started together, moved one after the other, checked together. Each test then reports what became
of its victim. A victim that measures time runs in a batch of such victims only.
"""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab_driver import (BUILD, HIDDEN, MOVE, OPENS, REFUSED, RUN, STRATEGIES, TIMED, Victim, daemons, descriptors, kill, main_daemon, share, strangers, victim_kinds,
                        wait_until)

BATCH = 8
SLEEP_MS = 5000          # how long sleeping calls last: the batch has to be moved by then
SLEEPS = ["nanosleep", "nanosleep_rem", "clock_rel", "clock_rel_boot", "clock_abs", "clock_abs_real", "poll", "poll_none", "ppoll", "ppoll_mask",
          "select", "pselect", "futex_rel", "futex_abs", "epoll", "epoll_pwait", "epoll_pwait2", "sem", "cond", "mutex", "sigtimedwait",
          "io_pgetevents", "timerfd", "accept"]
BLOCKS = ["read", "write", "poll", "eventfd", "epoll", "accept", "futex", "sem", "mutex", "pause", "sigsuspend", "sigwait", "sigwaitinfo",
          "signalfd"]
STATIC = ["mem_anon", "mem_brk", "regs_8", "thread_ident", "thread_rseq", "signal_pending", "timer_posix", "ident_plain", "file_offsets", "ipc_epoll",
          "ws_random", "storm_all"]
HEAVY = ("ws_", "mem_late", "late_", "regs_", "storm_", "mem_churn", "mem_malloc", "thread_rseq", "thread_contend", "thread_spawn", "timer_itimer_tick", "timer_posix",
         "thread_in_handler", "signal_stream", "ipc_pipe_stream", "mem_big")


# What is missing of locked memory is brought in when all pages are there; with copy-on-reference nothing makes those come that nobody asks for.
LOCKED_LATE = {("mem_late_zeros", "copy-on-reference")}


# What has nothing to do with how memory travels is moved with a strategy that leaves pages behind, and with one that does not.
FEW_STRATEGIES = ("uring_",)
# Without --all, what depends on how memory travels is tried with freeze-free and two others; of the rest half with freeze-free and one.
HALF_OF_THEM = ("mem_", "ws_", "storm_")


class Case:
    """One victim with one strategy."""

    def __init__(self, name, flags, strategy, arguments=(), program="victim"):
        self.name, self.flags, self.strategy, self.arguments, self.program = name, flags, strategy, arguments, program

    def __str__(self):
        return "-".join([self.name, *(str(a) for a in self.arguments if isinstance(a, str) and not a.isdigit()),
                         *(["static"] if self.program != "victim" else []), self.strategy])

    def kind(self):
        if self.flags & TIMED:
            return "timed"
        return "heavy" if self.name.startswith(HEAVY) else "light"


def crossed(name, number, of):
    """Whether the run has that victim with that other strategy."""
    return share(name, number % 2, 2) if name.startswith(HALF_OF_THEM) else share(name, number, 2 * of)


def cases():
    made = []
    flags = {name: f for name, f, _ in victim_kinds() if not f & (HIDDEN | REFUSED)}
    for strategy in STRATEGIES:
        for name, f in flags.items():
            if (name, strategy) in LOCKED_LATE or (name.startswith(FEW_STRATEGIES) and strategy not in ("freeze-free", "pre-copy")):
                continue
            if strategy != STRATEGIES[0] and not crossed(name, STRATEGIES.index(strategy) - 1, len(STRATEGIES) - 1):
                continue
            arguments = {"sleep": ("all", str(SLEEP_MS)), "block": ("all",)}.get(name, ())
            made.append(Case(name, f, strategy, arguments))
        made += [Case(name, flags[name], strategy, (), "victim-static") for name in STATIC
                 if name in flags and (strategy == STRATEGIES[0] or share(name, STRATEGIES.index(strategy) - 1, len(STRATEGIES) - 1))]
    for s in SLEEPS:
        made.append(Case("sleep", flags.get("sleep", 0), "freeze-free", (s, str(SLEEP_MS))))
    for b in BLOCKS:
        made.append(Case("block", flags.get("block", 0), "freeze-free", (b,)))
    return made


def batches_of(chosen):
    """The batch of each case, by the case's name."""
    batch_of, groups = {}, {}
    for case in chosen:
        groups.setdefault((case.strategy, case.kind(), "-".join([case.name, *case.arguments[:1]]) if case.arguments[:1] == ("all",) else case.name if case.name in ("sleep", "block") else ""), []).append(case)
    for (_, kind, _), members in groups.items():
        size = 4 if members[0].name == "sleep" else {"timed": 12, "light": BATCH, "heavy": 3}[kind]
        for i in range(0, len(members), size):
            for case in members[i:i + size]:
                batch_of[str(case)] = members[i:i + size]
    return batch_of


class Batches:
    """Runs the batch of a case when the case is asked for the first time."""

    def __init__(self, lab, chosen):
        self.lab = lab
        self.outcome = {}
        self.batch_of = batches_of(chosen)

    def get(self, case):
        if str(case) not in self.outcome:
            self.run(self.batch_of.get(str(case), [case]))
        return self.outcome[str(case)]

    def attempt(self, case, function):
        """Runs one stage of one case, unless it has failed before."""
        if self.outcome.get(str(case)):
            return
        try:
            function()
        except (AssertionError, ProcessLookupError, subprocess.SubprocessError) as e:
            self.outcome[str(case)] = str(e) or repr(e)

    def run(self, batch):
        self.lab.mend()
        victims = {}
        before = {h: main_daemon(h).pid for h in self.lab.hosts}
        for case in batch:
            self.outcome[str(case)] = None

        def start(case):
            v = Victim(self.lab, case.name, *case.arguments, flags=case.flags, program=case.program)
            victims[str(case)] = v
            v.wait_ready()

        def move(case):
            v = victims[str(case)]
            v.migrate("n2", case.strategy)
            if v.verdict_line() is None and not case.flags & MOVE and case.strategy != "copy-on-reference":
                v.assert_untouched_by_godwit()
                fds = descriptors(v.process().pid)
                if v.verdict_line() is None and not case.flags & OPENS:
                    assert fds == v.fds, f"{case.name}: descriptors, expected {v.fds}, got {fds}"

        def exec_ready(case):
            """storm_exec starts anew after the move; it has to be asked after that."""
            if case.name == "storm_exec":
                wait_until("second ready of storm_exec", lambda: victims[str(case)].lines().count(f"ready {victims[str(case)].home_pid}") > 1
                           or victims[str(case)].verdict_line(), 30)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda c: self.attempt(c, lambda: start(c)), batch))
            for case in batch:
                self.attempt(case, lambda c=case: move(c))
            for case in batch:
                self.attempt(case, lambda c=case: exec_ready(c))
                self.attempt(case, lambda c=case: victims[str(c)].ask())
            list(pool.map(lambda c: self.attempt(c, lambda: self.judge(victims[str(c)])), batch))
        for case in batch:
            if str(case) in victims:
                victims[str(case)].clean()
        self.judge_leftovers(batch, before)

    @staticmethod
    def judge(victim):
        verdict = victim.verdict()
        assert verdict == "ok", f"{victim.name}: {verdict}"

    def judge_leftovers(self, batch, before):
        """What is left after a batch in which every member seemed right counts against all of them."""
        try:
            self.lab.assert_clean()
            for host in self.lab.hosts:
                now = main_daemon(host)
                assert now and now.pid == before[host], f"the daemon of {host} is not the one of before: {self.lab.log_tail(host)}"
        except AssertionError as e:
            if not any(self.outcome[str(case)] for case in batch):
                for case in batch:
                    self.outcome[str(case)] = f"after the batch of {', '.join(map(str, batch))}: {e}"
        for host in self.lab.hosts:
            for p in strangers(host):
                kill(p.pid, 9)
        with open(os.path.join(RUN, "outcomes"), "a") as f:
            for case in batch:
                f.write(f"{case}: {(self.outcome[str(case)] or 'ok')}\n")


@pytest.fixture(scope="module")
def batches(whole_lab, request):
    return Batches(whole_lab, [c for c in request.config.chosen if isinstance(c, Case)])


def test_victims_are_built():
    assert victim_kinds() and victim_kinds("victim-static"), f"no victims in {BUILD}"


@pytest.mark.parametrize("case", cases(), ids=str)
def test_victim(batches, case):
    problem = batches.get(case)
    assert problem is None, problem


def test_listener_is_reachable_at_the_destination(lab2):
    v = Victim(lab2, "ipc_listen").wait_ready()
    port = v.info("listen")
    v.migrate("n2")
    echo = ("import socket,sys\ns=socket.create_connection(('n2', int(sys.argv[1])), 5)\ns.sendall(b'hello')\nprint(s.recv(10).decode())\n")
    from lab_driver import inside
    for host in ("n2", "n3"):
        assert inside(host, "/usr/bin/python3", "-c", echo, port).stdout == "hello\n"
    v.assert_ok()


def test_there_and_back_and_on(lab2):
    """The same process moves five times over three hosts, with each strategy once."""
    v = Victim(lab2, "ws_random", 16, expect_move=False).wait_ready()
    for strategy, dest in zip(STRATEGIES, ["n2", "n1", "n3", "n2", "n1"]):
        v.migrate(dest, strategy)
        if strategy != "copy-on-reference":
            v.assert_untouched_by_godwit()
    v.assert_ok()
    lab2.assert_clean()


def test_registers_there_and_back(lab2):
    v = Victim(lab2, "regs_8", expect_move=False).wait_ready()
    for dest in ["n2", "n1", "n2", "n1"]:
        v.migrate(dest)
    v.assert_ok()


def test_callers_come_home(lab2):
    """Who calls a listener in the unit must not be led to where that was, while the unit comes back to where it began."""
    v = Victim(lab2, "tcp_waiting").wait_ready()
    for dest in ["n2", "n1", "n2"]:
        v.migrate(dest)
    v.assert_ok()


def test_two_moves_at_once(lab2):
    """Two processes cross: one goes from n1 to n2 while the other goes from n2 to n1."""
    a = Victim(lab2, "ws_random", 64).wait_ready()
    b = Victim(lab2, "ws_random", 64, host="n2").wait_ready()
    with ThreadPoolExecutor(2) as pool:
        moves = [pool.submit(a.migrate, "n2"), pool.submit(b.migrate, "n1")]
        for m in moves:
            m.result()
    a.assert_ok()
    b.assert_ok()
    lab2.assert_clean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_that_travel(lab2, strategy):
    """Zero pages and pages of files that the destination has are not sent; the counters say so."""
    v = Victim(lab2, "mem_anon", 16).wait_ready()
    r = v.migrate("n2", strategy).json
    v.assert_ok()
    for key in ("unit", "from", "to", "strategy", "freeze_us", "stopped_at_ns", "total_ms", "bytes_sent", "pages_sent", "pages_skipped_file", "pages_skipped_zero",
                "pages_faulted", "outcome"):
        assert key in r, key
    assert (r["unit"], r["from"], r["to"], r["strategy"]) == (f"n1:{v.home_pid}", "n1", "n2", strategy)
    assert r["freeze_us"] > 0 and r["total_ms"] > 0
    assert r["pages_skipped_file"] > 100, r
    if strategy != "copy-on-reference":
        assert 4096 <= r["pages_sent"] < 4096 + 1500, r
        assert 16 << 20 <= r["bytes_sent"] < 26 << 20, r


def test_zero_pages_do_not_travel(lab2):
    v = Victim(lab2, "mem_zero").wait_ready()
    r = v.migrate("n2").json
    v.assert_ok()
    assert r["pages_skipped_zero"] >= 3000 and r["pages_sent"] < 2000, r


def test_reserved_memory_costs_nothing(lab2):
    """Four processes that share 16 MiB in the middle of 8 TiB; page by page that would take a minute for each of them."""
    v = Victim(lab2, "tree_cow_vast").wait_ready()
    r = v.migrate("n2").json
    v.assert_ok()
    assert r["total_ms"] < 10000, r


def test_daemon_stays_small(lab2):
    """256 MiB move; neither daemon nor any of its workers had more than 32 MiB resident."""
    v = Victim(lab2, "mem_anon", 256).wait_ready()
    import re
    from threading import Event, Thread
    from lab_driver import read
    done, peak = Event(), [0]

    def watch():
        while not done.is_set():
            for host in ("n1", "n2"):
                for p in daemons(host):
                    m = re.search(r"^RssAnon:\s*(\d+)", read(f"/proc/{p.pid}/status"), re.M)
                    peak[0] = max(peak[0], int(m.group(1)) if m else 0)
            done.wait(0.02)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        v.migrate("n2")
    finally:
        done.set()
        watcher.join()
    v.assert_ok()
    assert peak[0] < 32 * 1024, f"{peak[0]} KiB"


def test_pid_that_is_taken(lab2):
    """The number is in use at the destination: the process keeps it, in a pid namespace of its own."""
    from lab_driver import inside
    v = Victim(lab2, "thread_ident").wait_ready()
    taken = "import os,sys,time\np=int(sys.argv[1])\nopen('/proc/sys/kernel/ns_last_pid','w').write(str(p-1))\nc=os.fork()\n" \
            "if c==0:\n os.setsid()\n time.sleep(30)\nprint(c)\n"
    other = int(inside("n2", "/usr/bin/python3", "-c", taken.replace("time.sleep(30)", "[os.close(f) for f in (0,1,2)]; time.sleep(30)"),
                       str(v.pid)).stdout)
    assert other == v.pid, "the number could not be taken"
    v.migrate("n2")
    assert v.pid != v.home_pid
    v.assert_ok()


def test_program_that_the_destination_lacks(lab2):
    """The program file is in /tmp, which each host has for itself."""
    from lab_driver import VICTIMS, inside
    inside("n1", "cp", os.path.join(VICTIMS, "victim"), "/tmp/lonely-victim")
    v = Victim(lab2, "ws_random", command=["/tmp/lonely-victim", "ws_random", "STATUS", "16"]).wait_ready()
    v.migrate("n2")
    v.assert_ok()


def test_program_that_differs_at_the_destination(lab2):
    """Another program has the same path there."""
    from lab_driver import VICTIMS, inside
    inside("n1", "cp", os.path.join(VICTIMS, "victim"), "/tmp/two-faced")
    inside("n2", "cp", os.path.join(VICTIMS, "gap"), "/tmp/two-faced")
    v = Victim(lab2, "ws_random", command=["/tmp/two-faced", "ws_random", "STATUS", "16"]).wait_ready()
    v.migrate("n2")
    v.assert_ok()


def test_gap(lab2):
    """The victim that measures its freeze: it verifies its memory and its figures are there."""
    import json
    from lab_driver import VICTIMS
    v = Victim(lab2, "gap", command=[os.path.join(VICTIMS, "gap"), "--mib", "64", "--pages", "64", "STATUS", "STATUS.json"]).wait_ready()
    v.migrate("n2")
    v.assert_ok()
    with open(v.status + ".json") as f:
        figures = json.load(f)
    assert figures["ok"] and figures["host"] == "n2" and figures["largest_gap_us"] > 0
