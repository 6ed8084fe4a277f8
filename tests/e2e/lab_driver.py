# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives the lab for the end-to-end tests: hosts, programs in them, moves, and what is left behind.

Processes of a host are looked at from outside, through this side's /proc: nothing has to be started in the host for it, and a host whose daemon
is dead can be looked at, too.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.realpath(os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build"))
DEV = os.path.join(ROOT, "dev")
WORKER = os.environ.get("GODWIT_E2E_WORKER", "")     # of several that share the tests
NAME = (os.environ.get("GODWIT_E2E_LAB") or os.environ.get("GODWIT_LAB", "") + "e2e") + WORKER       # a lab of its own beside that of GODWIT_LAB
STATE = f"/var/tmp/godwit-lab-{NAME}"
RUN = os.path.join(BUILD, "e2e-run" + WORKER)
VICTIMS = os.path.join(BUILD, "tests/victims")
PATIENCE = int(os.environ.get("GODWIT_E2E_SECONDS") or 60)     # for a move, and for a verdict
STRATEGIES = ["freeze-free", "pre-copy", "hybrid", "stop-copy", "copy-on-reference"]

SHARE = bool(os.environ.get("GODWIT_E2E_SHARE"))        # a run of everything that leaves out some of the crossing (./dev test --all does not)

CHECK_FILE, REFUSED, TIMED, MOVE, KEEP_OUT, HIDDEN, NO_STOP, OPENS = 1, 2, 4, 8, 16, 32, 64, 128
EXIT_REFUSED = 3


def environment(**more):
    env = {**os.environ, "GODWIT_LAB": NAME, "GODWIT_BUILD": BUILD, **more}
    env.pop("GODWIT_LAB_DIR", None)
    return env


def share(name, number, of):
    """Whether a crossing of `name` with number 0 to of - 1 belongs to the run: each name has one, always the same."""
    return not SHARE or zlib.crc32(name.encode()) % of == number


cut_links = set()       # what a test has cut and not mended


def lab(*arguments, check=True, timeout=60, env=None):
    if arguments[0] == "cut":
        cut_links.add(arguments[1:])
    elif arguments[0] == "heal":
        cut_links.discard(arguments[1:])
    done = subprocess.run([DEV, "lab", *arguments], env=environment(**(env or {})), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)
    if check and done.returncode:
        raise AssertionError(f"./dev lab {' '.join(arguments)}: status {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done


def inside(host, *command, check=True, timeout=60):
    return lab("exec", host, "--", *command, check=check, timeout=timeout)


def popen(host, *command, **options):
    return subprocess.Popen([DEV, "lab", "exec", host, "--", *command], env=environment(), text=True, **options)


def wait_until(what, condition, seconds=10, step=0.01):
    """Waits for a condition that has no event of its own; returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(step)


def read(path, default=""):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return default


# --- processes of a host -----------------------------------------------------------------------------------------------

class Process:
    """One process as this side sees it (pid) and as its host sees it (host_pid)."""

    def __init__(self, pid, host_pid, parent, state, name, cmdline):
        self.pid, self.host_pid, self.parent, self.state, self.name, self.cmdline = pid, host_pid, parent, state, name, cmdline

    def __repr__(self):
        return f"{self.host_pid}:{self.cmdline or self.name}({self.state})"


def init_of(host):
    fields = read(os.path.join(STATE, "hosts", host, "init")).split()
    return int(fields[0]) if fields and os.path.exists(f"/proc/{fields[0]}") else None


def readlink(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def processes(host):
    """Every process of a host, those in inner pid namespaces too. Zombies count: they hold a pid."""
    init = init_of(host)
    if init is None:
        return []
    space = readlink(f"/proc/{init}/ns/pid")
    depth = len(re.search(r"^NSpid:\s*(.*)$", read(f"/proc/{init}/status"), re.M).group(1).split())
    found, parents = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        stat = read(f"/proc/{entry}/stat")
        if not stat:
            continue
        fields = stat.rpartition(")")[2].split()
        parents[int(entry)] = int(fields[1])
        found[int(entry)] = (fields[0], stat[stat.index("(") + 1:stat.rindex(")")])

    def belongs(pid):
        if readlink(f"/proc/{pid}/ns/pid") == space:
            return True
        while pid in parents:
            if pid == init:
                return True
            pid = parents[pid]
        return False

    result = []
    for pid, (state, name) in found.items():
        if pid == init or not belongs(pid):
            continue
        ns = re.search(r"^NSpid:\s*(.*)$", read(f"/proc/{pid}/status"), re.M)
        numbers = ns.group(1).split() if ns else []
        if len(numbers) < depth:
            continue
        result.append(Process(pid, int(numbers[depth - 1]), parents[pid], state, name,
                              read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()))
    return result


def find_process(host, host_pid):
    return next((p for p in processes(host) if p.host_pid == host_pid), None)


def copies(hosts, mark):
    """Every live process whose command line has mark, as (host, Process). An agent has the command line of the memory that it shares."""
    return [(host, p) for host in hosts for p in processes(host) if mark in p.cmdline and p.state not in "ZX" and p.name != AGENT and "setsid" not in p.cmdline
            and "godwit" not in p.cmdline.split(" ")[0].rpartition("/")[2]]


def runs(pid):
    """Whether a process gets anywhere. With copy-on-reference the source keeps the stopped process as a store of pages."""
    def progress():
        return [read(f"/proc/{pid}/task/{t}/stat").rpartition(")")[2].split()[11:13] + [read(f"/proc/{pid}/task/{t}/wchan")[:5] == "futex"]
                for t in (os.listdir(f"/proc/{pid}/task") if os.path.isdir(f"/proc/{pid}/task") else [])]
    before = progress()
    time.sleep(0.05)
    after = progress()
    return before != after or not all(parked for *_, parked in after)


AGENT = "godwit-agent"


# One looks after the table of redirected connections for a moment, again and again, the other measures how busy the host is.
HOUSEKEEPERS = ("godwit-table", "godwit-cluster", "godwit-etcd", "godwit-balance", "godwit-prepare", "godwit-protect", "godwit-keep", "godwit-watch", "godwit-tls", "godwit-api", "godwit-bridge")


def daemons(host):
    return [p for p in processes(host) if p.name not in HOUSEKEEPERS and (p.name.startswith("godwitd") or p.cmdline.startswith(os.path.join(BUILD, "src/daemon/godwitd")))]


def main_daemon(host):
    """Its workers have names of their own, and some outlive it."""
    found = daemons(host)
    all_pids = {p.pid for p in found}
    return next((p for p in found if p.name == "godwitd" and p.parent not in all_pids and p.state not in "ZX"), None)


def workers(host):
    main = main_daemon(host)
    return [p for p in daemons(host) if main and p.pid != main.pid and p.state not in "ZX"]


def strangers(host, mark=""):
    """Processes that should not be there: neither the host's own daemon nor, with a mark, that program."""
    main = main_daemon(host)
    return [p for p in processes(host) if not (main and p.pid == main.pid) and p.name not in HOUSEKEEPERS and not (mark and mark in p.cmdline and p.name != AGENT)]


def descriptors(pid):
    try:
        return sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return []


def residue(pid):
    """What Godwit may have left in a process: its mapping, a tracer, descriptors."""
    left = [line.split(None, 5)[-1] for line in read(f"/proc/{pid}/maps").splitlines() if "godwit" in line and "/tests/" not in line
            and not line.rstrip().endswith(ROOT)]
    left = [line for line in left if "memfd" in line or "scratch" in line]
    tracer = re.search(r"^TracerPid:\s*(\d+)", read(f"/proc/{pid}/status"), re.M)
    if tracer and tracer.group(1) != "0":
        left.append(f"TracerPid {tracer.group(1)}")
    return left


def tasks_sharing_memory(pid, host):
    """Tasks outside the process that use its memory (an agent that was left), told by kcmp. Children with the same memory are the program's own."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    return [p for p in processes(host) if p.pid != pid and p.parent != pid and p.state not in "ZX" and libc.syscall(312, pid, p.pid, 1, 0, 0) == 0]


# --- the lab ----------------------------------------------------------------------------------------------------------

class Lab:
    def __init__(self, nodes=2):
        self.nodes = nodes
        self.hosts = [f"n{i + 1}" for i in range(nodes)]
        shutil.rmtree(RUN, ignore_errors=True)
        os.makedirs(RUN, exist_ok=True)
        lab("up", str(nodes), "--outside", "1", "--force", timeout=120)
        self.serial = 0

    def down(self):
        lab("down", check=False)

    def directory(self, name):
        """A new one; another module's lab may have counted as well."""
        while True:
            self.serial += 1
            path = os.path.join(RUN, f"{self.serial:04d}-{name}")
            try:
                os.makedirs(path)
                break
            except FileExistsError:
                pass
        os.chmod(path, 0o777)
        return path

    def restart_daemon(self, host, fault=None):
        lab("restart-daemon", host, env={"GODWIT_FAULT": fault or ""})

    def mend(self):
        """Back to a working lab after a test that broke something, or that failed: links, hosts, daemons, strangers."""
        if any(not os.path.isdir(os.path.join(STATE, "hosts", host)) for host in self.hosts):
            lab("up", str(self.nodes), "--outside", "1", "--force", timeout=120)  # another module had a lab of its own
        for link in list(cut_links):
            lab("heal", *link, check=False)
        for host in self.hosts:
            if init_of(host) is None:
                lab("start", host)
            for p in strangers(host):
                kill(p.pid, signal.SIGKILL)
            if not main_daemon(host):
                self.restart_daemon(host)

    def assert_clean(self, mark=""):
        """Nothing runs in any host but its daemon (and the program with mark)."""
        for host in self.hosts:
            try:
                wait_until("", lambda h=host: not strangers(h, mark), 5, 0.02)
            except AssertionError:
                raise AssertionError(f"left behind on {host}: {strangers(host, mark)}") from None

    def log(self, host):
        return os.path.join(STATE, "hosts", host, "godwitd.log")

    def log_tail(self, host, lines=8):
        return "\n".join(read(self.log(host)).splitlines()[-lines:])


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Moved:
    """The outcome of one `godwit migrate --json`."""

    def __init__(self, done):
        self.status = done.returncode
        self.stderr = done.stderr.strip()
        try:
            self.json = json.loads(done.stdout)
        except ValueError:
            self.json = {}
        self.text = done.stdout + done.stderr

    def why(self):
        error = self.json.get("error") or {}
        refusals = "; ".join(f"{r.get('thing', '')}: {r.get('cause', '')}" for r in self.json.get("refusals") or [])
        return f"exit status {self.status}: {error.get('message', '')} {refusals} {self.stderr}".strip()


def migrate(source, pid, dest, strategy="freeze-free", timeout=PATIENCE, options=()):
    try:
        return Moved(inside(source, "godwit", "migrate", "--json", "--strategy", strategy, *options, str(pid), dest, check=False, timeout=timeout))
    except subprocess.TimeoutExpired:
        return Moved(subprocess.CompletedProcess([], 99, "", f"godwit migrate did not end within {timeout} s"))


# --- victims ------------------------------------------------------------------------------------------------------------

class Movable:
    """A program with a host, its number there, a name and the lab, which are right after each move."""

    def move(self, to, *options, strategy="freeze-free"):
        result = migrate(self.host, self.pid, to, strategy, options=options)
        if result.status == 0:
            self.host, self.pid = to, result.json.get("pid") or self.pid
        return result

    def must_move(self, to, *options, strategy="freeze-free"):
        result = self.move(to, *options, strategy=strategy)
        assert result.status == 0, f"{self.name} to {to}: {result.why()}\n{self.lab.log_tail(self.host)}\n{self.lab.log_tail(to)}"
        return result


class Victim:
    """A self-checking program in a host, from its start to its verdict."""

    def __init__(self, lab_, name, *arguments, host="n1", flags=0, program="victim", expect_move=True, command=None):
        self.lab, self.name, self.host, self.flags = lab_, name, host, flags
        self.directory = lab_.directory(name.replace("/", "-"))
        self.status = os.path.join(self.directory, "status")
        command = command or [os.path.join(VICTIMS, program), name, self.status, *map(str, arguments)]
        command = [word.replace("STATUS", self.status) for word in command]
        env = ["env"] + (["VICTIM_EXPECT_MOVE=1"] if expect_move else [])
        inside(host, *env, "setsid", "-f", "sh", "-c", 'exec "$0" "$@" </dev/null >/dev/null 2>&1', *command)
        self.pid = None

    def lines(self):
        return read(self.status).splitlines()

    def info(self, key):
        m = re.search(rf"^info .*\b{key}=(\S+)", read(self.status), re.M)
        return m.group(1) if m else None

    def wait_ready(self, seconds=60):
        def ready():
            m = re.search(r"^ready (\d+)$|^(FAIL.*)$", read(self.status), re.M)
            return m and (m.group(1) or m.group(2))
        word = wait_until(f"{self.name} ready", ready, seconds)
        if word.startswith("FAIL"):
            raise AssertionError(f"{self.name} in its setup: {word}")
        self.pid = int(word)
        return self

    def process(self, host=None):
        p = find_process(host or self.host, self.pid)
        if not p:
            raise AssertionError(f"{self.name}: no process {self.pid} on {host or self.host}; status: {self.lines()}")
        return p

    def migrate(self, dest="n2", strategy="freeze-free", **options):
        """Moves it and checks that it is in one place only."""
        source = self.host
        self.fds = descriptors(self.process().pid)
        result = migrate(source, self.pid, dest, strategy, **options)
        if result.status != 0:
            gone = "" if main_daemon(source) else f"; godwitd of {source} is gone"
            raise AssertionError(f"{self.name}, {strategy}: {result.why()}{gone}\n{source}: {self.lab.log_tail(source)}\n{dest}: {self.lab.log_tail(dest)}")
        assert result.json.get("outcome") == "moved", result.text
        self.host = dest
        self.home_pid, self.pid = self.pid, result.json.get("pid") or self.pid
        self.assert_one_copy(source, strategy)
        return result

    def assert_one_copy(self, source, strategy):
        left = [p for _, p in copies([source], self.status) if strategy != "copy-on-reference" or runs(p.pid)]
        assert not left, f"{self.name}: still on {source} after the move: {left}"
        here = copies([self.host], self.status)
        if not any(p.host_pid == self.pid for _, p in here) and self.verdict_line() is None:
            raise AssertionError(f"{self.name}: not on {self.host} as process {self.pid}; there: {here}; status {self.lines()}")

    def assert_untouched_by_godwit(self):
        p = self.process()
        wait_until("", lambda: not residue(p.pid) and not tasks_sharing_memory(p.pid, self.host), 3) if residue(p.pid) else None
        assert not residue(p.pid), f"{self.name}: left in the process: {residue(p.pid)}"
        sharing = tasks_sharing_memory(p.pid, self.host)
        assert not sharing, f"{self.name}: tasks that share its memory: {sharing}"

    def verdict_line(self):
        m = re.search(r"^(ok|FAIL.*)$", read(self.status), re.M)
        return m.group(1) if m else None

    def ask(self):
        """Asks for the check; does not wait."""
        if self.flags & CHECK_FILE:
            with open(self.status + ".check", "w"):
                pass
        elif self.verdict_line() is None:
            os.kill(self.process().pid, signal.SIGTERM)

    def verdict(self, seconds=PATIENCE):
        try:
            wait_until("", lambda: self.verdict_line() or not copies([self.host], self.status), seconds)
        except AssertionError:
            raise AssertionError(f"{self.name}: no verdict within {seconds} s; processes {copies([self.host], self.status)}; {self.where()}") from None
        line = self.verdict_line()
        if line is None:
            raise AssertionError(f"{self.name}: died without a verdict on {self.host}; status {self.lines()}")
        return line

    def where(self):
        """What its threads wait in, for a message."""
        found = copies(self.lab.hosts, self.status)
        return "; ".join(f"{h} {p.host_pid}/{t}: {read(f'/proc/{p.pid}/task/{t}/wchan')} {read(f'/proc/{p.pid}/task/{t}/syscall').strip()}"
                         for h, p in found for t in os.listdir(f"/proc/{p.pid}/task")[:6])

    def assert_ok(self, seconds=PATIENCE):
        self.ask()
        assert self.verdict(seconds) == "ok", f"{self.name}: {self.verdict_line()}"

    def clean(self):
        for _, p in copies(self.lab.hosts, self.status):
            kill(p.pid, signal.SIGKILL)


def victim_kinds(program="victim"):
    """(name, flags, text) of every kind; [] when it is not built."""
    path = os.path.join(VICTIMS, program)
    if not os.access(path, os.X_OK):
        return []
    out = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout
    return [(name, int(flags), text) for name, flags, text in (line.split(" ", 2) for line in out.splitlines())]
