#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bench/zdtm.py [options] DIR [PROGRAM...]: moves CRIU's test programs between two hosts of the lab, and asks each whether it has noticed.

DIR is test/ of a source tree of CRIU, in which `make -C zdtm` has built its programs, on a file system that the hosts of the lab share (not
below /tmp or /run). Nothing of it is part of Godwit. Each program sets up one kind of kernel state on n1, is moved to n2 while it waits,
is told to check (SIGTERM), and writes its verdict into a file. With --flavour ns it does so in pid, mount, UTS, IPC, network and time namespaces of its own,
below a root of its own.

One line a program: its outcome (passed, refused, differs, failed, not started), and why; then a sum. --json FILE keeps everything.
"""

import argparse
import collections
import ctypes
import json
import os
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "tests/e2e"))
from lab_driver import EXIT_REFUSED, STRATEGIES, Lab, init_of, inside, kill, migrate, processes, read, strangers  # noqa: E402

PLAIN = {"ZDTM_UID": "18943", "ZDTM_GID": "58467", "ZDTM_GROUPS": "27495 48244"}      # who a program is that need not be root
SECONDS = 40
OUTCOMES = ["passed", "refused", "differs", "failed", "not started"]
HOSTS = ("n1", "n2")


class Program:
    def __init__(self, tests, name):
        self.tests, self.name = tests, name
        self.path = os.path.join(tests, "zdtm", name)
        text = read(self.path + ".desc")
        self.description = eval(text, {"__builtins__": {}, "os": os}) if text.strip() else {}     # an expression of Python, a dict's mostly
        self.flags = self.description.get("flags", "").split()
        self.number = 0         # of its process, on the host that it is on
        self.seconds = float(self.description.get("timeout") or SECONDS)

    def flavours(self):
        return self.description.get("flavor", "h ns uns").split()

    def environment(self, root):
        made = {} if "suid" in self.flags else dict(PLAIN)
        if "pre-dump-notify" in self.flags:
            made |= {"ZDTM_NOTIFY_FDIN": "100", "ZDTM_NOTIFY_FDOUT": "101"}
        if root:
            made |= {"ZDTM_NEWNS": "1", "ZDTM_ROOT": root.path, "ZDTM_DEV": root.devices}
            if self.description.get("bind"):
                made["ZDTM_BIND"] = self.description["bind"]
        return made

    def hook(self, host, what):
        if os.access(self.path + ".hook", os.X_OK):
            images = f"{self.tests}/no-images"          # where CRIU would have put them
            os.makedirs(images, exist_ok=True)
            told = ["env", f"ZDTM_TEST_PID={self.number}", f"ZDTM_IMG_DIR={images}"]
            done = inside(host, *told, "sh", "-c", 'cd "$0" && exec "$@"', self.tests, f"zdtm/{self.name}.hook", what, check=False, timeout=SECONDS)
            if done.returncode:
                raise AssertionError(f"hook {what}: status {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}")


class Root:
    """The root of programs in namespaces: the tests' directory with what they need beside, at the same place in both hosts."""

    def __init__(self, tests):
        self.tests, self.path, self.devices = tests, tests + ".root/root", tests + ".root/dev"
        for path in (self.path, self.devices):
            os.makedirs(path, exist_ok=True)
        for name in ("bin", "sbin", "etc", "lib", "lib64", "dev", "tmp", "usr", "proc", "run"):
            os.makedirs(f"{tests}/{name}", exist_ok=True)
            os.chmod(f"{tests}/{name}", 0o777)
        for name in ("bin", "sbin", "lib", "lib64"):
            if not os.path.islink(f"{tests}/usr/{name}"):
                os.symlink(f"../{name}", f"{tests}/usr/{name}")
        for host in HOSTS:
            inside(host, "mount", "--make-private", "--bind", tests, self.path)
        inside("n1", "sh", "-ec", f"""
            mount -t tmpfs -o mode=777 zdtm-dev {self.devices}; cd {self.devices}
            mkdir pts net; chmod 755 pts net
            mknod -m 666 tty c 5 0; mknod -m 666 null c 1 3; mknod -m 666 autofs c 10 235; mknod -m 666 net/tun c 10 200""")
        mount_too([self.devices])       # programs make more in there
        self.have = set()

    def take(self, file):
        """Copies a program's libraries, or a file with its libraries."""
        wanted = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout)
        for path in wanted + ([] if file.startswith(self.tests) else [file]):
            if path not in self.have and not os.path.exists(self.tests + path):
                os.makedirs(os.path.dirname(self.tests + path), exist_ok=True)
                shutil.copy2(path, self.tests + path)
            self.have.add(path)

    def prepare(self, program):
        self.take(program.path)
        self.take("/bin/sh")
        self.take("/bin/ip" if os.path.exists("/bin/ip") else shutil.which("ip"))
        for choice in program.description.get("deps", []):
            found = next((f for f in choice.split("|") if os.path.exists(f)), None)
            if not found:
                raise AssertionError(f"needs {choice}")
            self.take(found)


def huge_pages(count=20):
    """Some programs want them."""
    path = "/proc/sys/vm/nr_hugepages"
    if int(read(path)) < count:
        with open(path, "w") as f:
            f.write(str(count))


def make(tests, wanted):
    """Clears away what earlier runs have left, and returns how each program is to be started, as its makefile says. One run of make for all: it takes longer than a move."""
    found = {}
    for directory in ("static", "transition"):
        names = [os.path.basename(p.name) for p in wanted if p.name.startswith(directory)]
        call = ["make", "--no-print-directory", "-C", os.path.join(tests, "zdtm", directory)]
        if names:
            subprocess.run([*call, "-k", *(f"{n}.cleanout" for n in names)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            told = subprocess.run([*call, "-k", "-n", *(f"{n}.pid" for n in names)], check=False, capture_output=True, text=True).stdout
            found |= {f"{directory}/{name}": line for line, name in re.findall(r"^((?!#).* --pidfile=(\S+)\.pid .*)$", told, re.M)}
    return found


def start(program, command, root):
    directory = os.path.dirname(program.path)
    os.chmod(directory, os.stat(directory).st_mode | 0o222)
    if root:
        root.prepare(program)
    where = root.path if root else program.tests
    with ThreadPoolExecutor(1) as beside:
        started = beside.submit(inside, "n1", "env", *(f"{k}={v}" for k, v in program.environment(root).items()), "sh", "-c", f'cd "$0" && {command}',
                                os.path.join(where, "zdtm", os.path.dirname(program.name)), check=False, timeout=program.seconds)
        program.hook("n1", "--post-start")          # while it starts: some wait until this has connected to them
        done = started.result()
    if done.returncode or not os.path.exists(program.path + ".pid"):
        raise AssertionError((done.stdout + done.stderr + last_words(program)).strip()[-300:])
    program.number = int(read(program.path + ".pid"))
    return program.number


def last_words(program):
    return "".join(read(program.path + end)[-300:] for end in (".out", ".out.inprogress"))


def process(host, number):
    return next((p for p in processes(host) if p.host_pid == number), None)


def notify(program, number):
    """What is told before pages are copied for the first time."""
    if "pre-dump-notify" not in program.flags:
        return
    p = process("n1", number)
    with open(f"/proc/{p.pid}/fd/101", "rb") as answer, open(f"/proc/{p.pid}/fd/100", "wb") as told:
        told.write(struct.pack("i", 0))
        told.flush()
        answer.read(4)


def mounts(host):
    """Those of a host's own mount namespace: what is mounted where, by number."""
    found = {}
    for line in read(f"/proc/{init_of(host)}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        number, above, _, _, point = before.split()[:5]
        found[number] = (above, point, after.split()[0])
    return found


def mount_too(points):
    """Mounts of n1 at the same places of n2, with all below them: the very same file systems."""
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = [os.open(f"/proc/{init_of(host)}/ns/mnt", os.O_RDONLY) for host in HOSTS]
    child = os.fork()
    if not child:
        libc.unshare(0x200)                                                 # CLONE_FS
        libc.setns(spaces[0], 0)
        trees = [(point, os.path.isdir(point), libc.syscall(428, -100, point.encode(), 0x88001)) for point in points]       # open_tree: a recursive clone
        libc.setns(spaces[1], 0)
        for point, is_dir, tree in trees:
            os.makedirs(point if is_dir else os.path.dirname(point), exist_ok=True)
            if not is_dir:
                open(point, "a").close()
            libc.syscall(429, tree, b"", -100, point.encode(), 4)           # move_mount
        os._exit(0)
    os.waitpid(child, 0)
    for space in spaces:
        os.close(space)


def follow_mounts(before, root):
    """What a program has mounted on its host, outside of its own namespaces, is there on both hosts: hierarchies of control groups, and what containers get from outside."""
    new = {k: m for k, m in mounts("n1").items() if k not in before}
    mount_too([point for above, point, kind in new.values() if above not in new and (root or kind.startswith("cgroup"))])


def unmount(host, before):
    for _, point, _ in reversed([m for k, m in mounts(host).items() if k not in before]):
        inside(host, "umount", "-l", point, check=False)


def outcome(program, command, strategy, root):
    """The outcome, and why."""
    before = mounts("n1")
    try:
        number = start(program, command, root)
    except (AssertionError, ValueError, subprocess.TimeoutExpired) as e:
        return "not started", str(e)
    notify(program, number)
    program.hook("n1", "--pre-dump")
    follow_mounts(before, root)
    asked = program.description.get("opts", "") + program.description.get("ropts", "")
    options = ("--tcp=close",) if "--tcp-close" in asked else ()        # it sees whether its connections have gone
    moved = migrate("n1", number, "n2", strategy, SECONDS, options)
    if moved.status == EXIT_REFUSED:
        return "refused", moved.why()
    if moved.status:
        return "failed", moved.why()
    program.number = number = moved.json.get("pid") or number
    if not os.path.basename(program.name).startswith("cgroup"):     # they remove groups, so that others are made; the two hosts' are the same ones
        program.hook("n2", "--pre-restore")
    program.hook("n2", "--post-restore")
    p = process("n2", number)
    if not p:
        return "differs", f"gone after the move: {last_words(program)}"
    ended = os.pidfd_open(p.pid)
    kill(p.pid, signal.SIGTERM)
    select.select([ended], [], [], program.seconds)
    os.close(ended)
    program.hook("n2", "--clean")
    passed = "PASS" in (read(program.path + ".out").splitlines() or [""])[-1].split()
    return ("passed", "") if passed else ("differs", last_words(program) or "no verdict")


def rules(host, what, tests):
    """Keeps a host's packet filter in a file, or puts it back: what a program has put there stays when it has moved."""
    inside(host, "sh", "-c", 'iptables-save > "$0"' if what == "save" else 'iptables -F; iptables-restore < "$0"', f"{tests}/rules-{host}", check=False)


def run(lab, program, command, strategy, root):
    before = {host: mounts(host) for host in HOSTS}
    try:
        result, why = outcome(program, command, strategy, root)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as e:
        result, why = "failed", str(e)
    for host in HOSTS:
        for p in strangers(host):
            kill(p.pid, signal.SIGKILL)
        unmount(host, before[host])
        if result != "passed":
            rules(host, "restore", program.tests)
    lab.mend()
    return result, " ".join(why.split())


def programs(tests, wanted):
    with open(os.path.join(tests, "zdtm.desc")) as f:
        left_out = eval(f.read(), {"__builtins__": {}})["exclude"]
    for directory in ("static", "transition"):
        for name in sorted(os.listdir(os.path.join(tests, "zdtm", directory))):
            path = os.path.join(tests, "zdtm", directory, name)
            program = f"{directory}/{name}"
            if wanted and name not in wanted or program in left_out or name.endswith((".hook", ".checkskip", ".so")):
                continue
            if stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.X_OK):
                yield Program(tests, program)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--flavour", choices=["h", "ns"], default="h", help="among the host's namespaces, or in some of its own")
    parser.add_argument("--strategy", choices=STRATEGIES, default="freeze-free")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("tests", metavar="DIR")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    options = parser.parse_args()
    tests = os.path.realpath(options.tests)
    huge_pages()
    lab, kept, count = Lab(2), {}, collections.Counter()
    subprocess.run(["./zdtm_mount_cgroups", "godwit"], cwd=tests, check=True)        # hierarchies that some programs use
    try:
        for host in HOSTS:
            rules(host, "save", tests)
        root = Root(tests) if options.flavour == "ns" else None
        wanted = [p for p in programs(tests, options.programs) if options.flavour in p.flavours() and "noauto" not in p.flags
                  and ("crfail" not in p.flags or options.programs)]
        commands = make(tests, wanted)
        for program in wanted:
            result, why = run(lab, program, commands.get(program.name, "false"), options.strategy, root)
            count[result] += 1
            kept[program.name] = {"outcome": result, "why": why}
            print(f"{result:12}{program.name}{': ' + why[:300] if why else ''}", flush=True)
    finally:
        lab.down()
        subprocess.run(["./zdtm_umount_cgroups", "godwit"], cwd=tests, check=False)
        if options.json:
            with open(options.json, "w") as f:
                json.dump({"flavour": options.flavour, "strategy": options.strategy, "programs": kept}, f, indent=1)
    print(f"{sum(count.values())} programs: " + ", ".join(f"{count[o]} {o}" for o in OUTCOMES))


if __name__ == "__main__":
    main()
