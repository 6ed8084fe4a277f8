# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab and the programs that the benchmark moves, seen from outside: starts them, reads what they saw, asks for a check."""

import ctypes
import json
import os
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
BUILD = os.path.realpath(os.environ.get("GODWIT_BUILD_DIR") or os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build"))
NAME = os.environ.get("GODWIT_LAB") or "bench"
os.environ["GODWIT_LAB"] = NAME
os.environ["GODWIT_BUILD"] = BUILD
os.environ.pop("GODWIT_LAB_DIR", None)
sys.path.insert(0, os.path.join(ROOT, "tools/lab"))
import lab  # noqa: E402  (reads the environment when it is imported)

GAP = os.path.join(BUILD, "bench/gap")
BARELINK = os.path.join(BUILD, "bench/barelink")
BARE_PORT = 4999

# struct stats of gap.c
STATS = 0x100000000
MAGIC = 0x5041472D44574731
HEAD = struct.Struct("<7Q2I5Q")
MARKS, PAUSES = 16384, 32768
MARKS_AT, PAUSES_AT = STATS + 4096, STATS + 4096 + MARKS * 8
COMMAND_AT = STATS + 56
HEAD_NAMES = ("magic", "start_ns", "now_ns", "iterations", "n_pauses", "bad_words", "verified_words", "command", "unused", "pages",
              "working_set", "threshold_ns", "largest_start_ns", "largest_ns")


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.process_vm_readv.restype = ctypes.c_ssize_t
LIBC.process_vm_readv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class BenchError(Exception):
    """What went wrong, for the user."""


def dev_lab(*arguments, check=True, timeout=600):
    done = subprocess.run([os.path.join(ROOT, "dev"), "lab", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise BenchError(f"{' '.join(arguments)}: {(done.stdout + done.stderr).strip()}")
    return done


def inside(host, *command, check=True, timeout=600):
    return dev_lab("exec", host, "--", *command, check=check, timeout=timeout)


def start_in(host, *command):
    inside(host, "setsid", "-f", "sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *command)


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def net_of(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def processes(host, program):
    """Pids (of this side) of a program in a host."""
    space, found = net_of(lab.init_pid(host)), []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and net_of(entry) == space:
            exe = lab.readlink(f"/proc/{entry}/exe") or ""
            if exe == program or os.path.basename(exe) == program:
                found.append(int(entry))
    return found


def pid_there(pid):
    """The pid that godwit in the same host knows it by."""
    pids = next(line for line in read_text(f"/proc/{pid}/status").splitlines() if line.startswith("NSpid:")).split()[1:]
    return int(pids[1] if len(pids) > 1 else pids[0])


def innermost_pid(pid):
    """The pid that the process sees itself; it never changes."""
    line = next((line for line in read_text(f"/proc/{pid}/status").splitlines() if line.startswith("NSpid:")), "NSpid: 0")
    return int(line.split()[-1])


def parent_of(pid):
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def wait_until(what, condition, seconds=30.0, step=0.01):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:.0f} s")
        time.sleep(step)


class Process:
    """A process of any program that is moved to and fro."""

    def __init__(self, program, host):
        self.program, self.host, self.pid, self.innermost = program, host, None, None

    def candidates(self):
        """Without its children."""
        found = [pid for pid in processes(self.host, self.program) if self.innermost in (None, innermost_pid(pid))]
        return [pid for pid in found if parent_of(pid) not in found]

    def find(self):
        found, deadline = wait_until(f"{self.program} in {self.host}", self.candidates), time.monotonic() + 3
        while len(found) > 1 and time.monotonic() < deadline:      # one may be about to end
            time.sleep(0.05)
            found = self.candidates()
        if len(found) != 1:
            states = [f"{pid}: {read_text(f'/proc/{pid}/comm').strip()} {read_text(f'/proc/{pid}/stat').rpartition(')')[2][:3].strip()}" for pid in found]
            raise BenchError(f"{self.program} runs {len(found)} times in {self.host} ({', '.join(states)})")
        self.pid, self.innermost = found[0], innermost_pid(found[0])
        return self.pid

    def other(self):
        return "n2" if self.host == "n1" else "n1"

    def end(self):
        for host in ("n1", "n2"):
            for pid in processes(host, self.program):
                lab.end_processes([pid], 9)


class Gap(Process):
    """gap.c: see there."""

    def __init__(self, mib, working_set, pattern="cycle", threshold_us=20, crowd=None):
        super().__init__(GAP, "n1")
        self.mib, self.working_set, self.pattern = mib, working_set, pattern
        self.end()
        start_in("n1", GAP, str(mib), str(working_set), pattern, str(threshold_us), *([crowd] if crowd else []))
        if crowd:
            time.sleep(0.5)     # until its children are there
        self.find()
        wait_until("gap fills its memory", self.started, 120)
        time.sleep(0.7)     # something to compare with

    def read(self, address, size):
        """Not through /proc/PID/mem, which fails with EIO on a page that is still missing."""
        buffer = ctypes.create_string_buffer(size)
        local, remote = Iovec(ctypes.addressof(buffer), size), Iovec(address, size)
        if LIBC.process_vm_readv(self.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) != size:
            raise OSError(ctypes.get_errno(), f"process_vm_readv: {os.strerror(ctypes.get_errno())}")
        return buffer.raw

    def started(self):
        try:
            head = self.head()
        except OSError:
            return False
        return head["magic"] == MAGIC and head["iterations"] > 0

    def head(self):
        return dict(zip(HEAD_NAMES, HEAD.unpack(self.read(STATS, HEAD.size))))

    def pauses(self, since_ns=0):
        """(start, length in ns), oldest first."""
        n = self.head()["n_pauses"]
        raw = self.read(PAUSES_AT, PAUSES * 16)
        found = []
        for i in range(max(0, n - PAUSES), n):
            start, length, _ = struct.unpack_from("<QII", raw, i % PAUSES * 16)
            if start >= since_ns:
                found.append((start, length))
        return found

    def marks(self):
        """Sorted list of (wall clock in ns, iterations)."""
        start = self.head()["start_ns"]
        raw = self.read(MARKS_AT, MARKS * 8)
        values = [struct.unpack_from("<II", raw, i * 8) for i in range(MARKS)]
        return sorted((start + (ms - 1) * 1000000, iteration) for ms, iteration in values if ms)

    def verify(self):
        """Checks every word; returns the number of wrong ones."""
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as f:
            f.seek(COMMAND_AT)
            f.write(struct.pack("<I", 1))
        wait_until("gap checks its memory", lambda: self.head()["command"] == 0, 120)
        return self.head()["bad_words"]


def rate(marks, since_ns, until_ns):
    """Iterations a second between two times, None when nothing is known."""
    inside_window = [(t, n) for t, n in marks if since_ns <= t <= until_ns]
    if len(inside_window) < 2:
        return None
    return ((inside_window[-1][1] - inside_window[0][1]) & 0xFFFFFFFF) / max(1, inside_window[-1][0] - inside_window[0][0]) * 1e9


def iterations_between(marks, since_ns, until_ns):
    """Iterations from the last mark before a time to the last one before another."""
    before = [n for t, n in marks if t <= since_ns]
    after = [n for t, n in marks if t <= until_ns]
    return (after[-1] - before[-1]) & 0xFFFFFFFF if before and after else 0


def layout(pid):
    """What is mapped, neighbours of the same kind joined: [(start, end, permissions, name)]. Kernel pages are left out."""
    joined = []
    for line in read_text(f"/proc/{pid}/maps").splitlines():
        fields = line.split(None, 5)
        name = fields[5] if len(fields) > 5 else ""
        if name.startswith(("[vvar", "[vdso", "[vsyscall", "[uprobes")):
            continue
        start, end = (int(x, 16) for x in fields[0].split("-"))
        if joined and joined[-1][1] == start and joined[-1][2:] == [fields[1], name]:
            joined[-1][1] = end
        else:
            joined.append([start, end, fields[1], name])
    return [tuple(v) for v in joined]


def attached(pid, layout_before):
    """Sentences about what is still attached to a process that has moved; empty when nothing is."""
    found = []
    status = read_text(f"/proc/{pid}/status")
    tracer = next((line.split()[1] for line in status.splitlines() if line.startswith("TracerPid:")), "0")
    if tracer != "0":
        found.append(f"traced by {tracer}")
    for entry in os.listdir(f"/proc/{pid}/fd"):
        link = lab.readlink(f"/proc/{pid}/fd/{entry}") or ""
        if "userfaultfd" in link or "memfd:godwit" in link:
            found.append(f"descriptor {entry} is {link}")
    if any(flag in line.split() for line in read_text(f"/proc/{pid}/smaps").splitlines() if line.startswith("VmFlags") for flag in ("um", "uw", "ui")):
        found.append("memory is still registered with a userfaultfd")
    now = layout(pid)
    extra = [v for v in now if v not in layout_before]
    gone = [v for v in layout_before if v not in now]
    if extra or gone:
        found.append("mappings differ: " + "; ".join([f"new {a:x}-{b:x} {p} {n}" for a, b, p, n in extra[:4]]
                                                     + [f"gone {a:x}-{b:x} {p} {n}" for a, b, p, n in gone[:4]]))
    return found


def migrate(process, strategy, timeout=120):
    """Moves it to the other host. Returns godwit's report with "began_ns" and "ended_ns" (wall clock) added."""
    began = time.time_ns()
    try:
        done = inside(process.host, "godwit", "migrate", "--json", "--strategy", strategy, str(pid_there(process.pid)), process.other(),
                      check=False, timeout=timeout)
    except subprocess.TimeoutExpired as e:
        raise BenchError(f"godwit migrate --strategy {strategy} has not ended after {timeout} s") from e
    ended = time.time_ns()
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = {}
    if done.returncode != 0 or report.get("outcome") != "moved":
        error = report.get("error")
        words = error.get("message") if isinstance(error, dict) else error
        raise BenchError(f"godwit migrate --strategy {strategy}: status {done.returncode}: {words or (done.stderr or done.stdout).strip()[:500]}")
    process.host = process.other()
    process.find()
    report.update(began_ns=began, ended_ns=ended)
    return report


def migrate_lazily(gap, observe_s):
    """copy-on-reference ends only when everything has been asked for: looks at the program for a while after it resumed, and ends it."""
    began = time.time_ns()
    command = subprocess.Popen([os.path.join(ROOT, "dev"), "lab", "exec", gap.host, "--", "godwit", "migrate", "--json", "--strategy",
                                "copy-on-reference", str(pid_there(gap.pid)), gap.other()], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    source, gap.host = gap.host, gap.other()

    def runs_there():
        if command.poll() not in (None, 0):
            raise BenchError(f"godwit migrate --strategy copy-on-reference: status {command.returncode}: {command.stdout.read().strip()[:500]}")
        for pid in gap.candidates():
            if not any(line.startswith("SigBlk:") and int(line.split()[1], 16) for line in read_text(f"/proc/{pid}/status").splitlines()):
                gap.pid = pid
                return read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["R"]
        return False

    try:
        wait_until(f"the program runs in {gap.host}", runs_there)
        time.sleep(observe_s)
        pauses = gap.pauses(began)
    finally:
        lab.end_processes([pid for host in (source, gap.host) for pid in processes(host, GAP)], 9)
        with command:
            try:
                command.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                command.kill()
    return pauses


def cpu_of(pid):
    """The CPU on which a process ran last."""
    return int(read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[36])


def bare(verb, source, destination, *amount):
    """One run of the bare link between the same two hosts."""
    done = inside(source, BARELINK, verb, lab.address(destination), str(BARE_PORT), *map(str, amount))
    return json.loads(done.stdout)
