# SPDX-License-Identifier: GPL-2.0-or-later
"""A container that crun has started: its root on a part that hosts share, and in a directory that only the source has."""

import json
import os
import signal

import pytest
from lab_driver import EXIT_REFUSED, find_process, inside, migrate, processes, wait_until

# What it sees of itself, without what the kernel numbers and without where the root comes from.
SCRIPT = r"""
state() {
	hostname
	while read id parent device root where options rest; do echo "$where $options"; done </proc/self/mountinfo | sort
	grep -E 'NoNewPrivs|^Cap|^Seccomp' /proc/self/status
	cat /etc/resolv.conf /dev/shm/text /proc/1/comm
	stat -c '%n %f %u %g %t %T' /dev/*
	find / -xdev -type f | sort
	test -w /proc/sys/kernel/hostname && echo writable
	echo x >/dev/null && echo null
	echo "$$"
}
trap 'state >/tmp/after; cmp /tmp/before /tmp/after && echo same || diff /tmp/before /tmp/after; exit 0' TERM
echo in memory >/dev/shm/text
: >/tmp/after
state >/tmp/before
state >/tmp/before
echo ready
while :; do sleep 0.05; done
"""

SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
           "syscalls": [{"names": ["reboot", "kexec_load"], "action": "SCMP_ACT_ERRNO"}]}


def bundle(path, root, readonly, seccomp, script=SCRIPT):
    """A bundle as a host's own crun makes its specification, with a bind of a file that only this host has."""
    inside("n1", "sh", "-c", f"mkdir -p {path} {root}/bin {root}/etc {root}/proc {root}/sys {root}/dev {root}/tmp; cp /bin/busybox {root}/bin; "
           f"for i in sh sleep cat cmp diff sort grep ls find hostname stat test true; do ln -sf busybox {root}/bin/$i; done; cd {path} && rm -f config.json && crun spec; "
           "echo nameserver 192.0.2.1 > resolv.conf")
    spec = json.loads(inside("n1", "cat", f"{path}/config.json").stdout)
    spec["process"].update(terminal=False, args=["/bin/sh", "-c", script])
    spec["root"] = {"path": root, "readonly": readonly}
    spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "own", "options": ["size=4m", "nosuid"]})
    spec["mounts"].append({"destination": "/etc/resolv.conf", "type": "bind", "source": f"{path}/resolv.conf", "options": ["bind", "ro"]})
    if seccomp:
        spec["linux"]["seccomp"] = SECCOMP
    text = json.dumps(spec)
    inside("n1", "sh", "-c", f"cat > {path}/config.json <<'EOF'\n{text}\nEOF")


def start(name, path, waits=False):
    """crun wants to find one hierarchy of control groups and nothing else. With `waits` it stays the container's parent."""
    inside("n1", "touch", f"{root_file(path)}")
    command = ("unshare", "-m", "sh", "-c", f"mount -t cgroup2 none /sys/fs/cgroup && cd {path} && crun --cgroup-manager=disabled run {'' if waits else '-d'} {name} >out 2>&1 </dev/null; "
               "status=$?; echo $status >status; exit $status")
    if waits:
        inside("n1", "sh", "-c", 'exec setsid -f "$@" >/dev/null 2>&1', "-", *command)
    else:
        inside("n1", *command)
    wait_until(f"{name} is ready", lambda: "ready" in said("n1", path))
    return json.loads(inside("n1", "crun", "state", name).stdout)["pid"]


def root_file(path):
    return f"{path}/root/etc/resolv.conf"


def said(host, path):
    return inside(host, "cat", f"{path}/out", check=False).stdout


@pytest.mark.parametrize("name, readonly, seccomp", [("plain", True, False), ("filtered", False, True)])
def test_container_moves(lab2, name, readonly, seccomp):
    path = f"/tmp/container-{name}" # of n1 alone
    bundle(path, f"{path}/root", readonly, seccomp)
    pid = start(name, path)
    result = migrate("n1", pid, "n2")
    assert result.status == 0, result.text
    wait_until("the source's copy is gone", lambda: not any(p.pid == pid for p in processes("n1")))
    assert not inside("n2", "sh", "-c", f"ls -d {path}/root", check=False).stdout # its root is in memory, not beside it
    back = migrate("n2", pid, "n1", "stop-copy")
    assert back.status == 0, back.text
    assert migrate("n1", pid, "n2", "pre-copy").status == 0
    inside("n2", "kill", "-TERM", str(pid))
    wait_until("the container has looked at itself", lambda: said("n2", path) != "ready\n")
    wait_until("it has ended", lambda: not any(p.pid == pid for p in processes("n2")))
    assert said("n2", path) == "ready\nsame\n"
    inside("n1", "crun", "delete", "-f", name, check=False)


def test_volume_that_the_destination_lacks(lab2):
    path = "/tmp/container-volume"
    bundle(path, f"{path}/root", False, False)
    spec = json.loads(inside("n1", "cat", f"{path}/config.json").stdout)
    spec["mounts"].append({"destination": "/data", "type": "bind", "source": f"{path}/data", "options": ["rbind"]})
    inside("n1", "sh", "-c", f"mkdir -p {path}/data {path}/root/data; cat > {path}/config.json <<'EOF'\n{json.dumps(spec)}\nEOF")
    pid = start("volume", path)
    result = migrate("n1", pid, "n2")
    assert result.status == EXIT_REFUSED and "ns.mount.lacking" in result.text and f"{path}/data" in result.text, result.text
    inside("n2", "mkdir", "-p", f"{path}/data")
    assert migrate("n1", pid, "n2").status == 0
    inside("n2", "kill", "-KILL", str(pid))
    inside("n1", "crun", "delete", "-f", "volume", check=False)


@pytest.mark.parametrize("end, status", [("TERM", 42), ("KILL", 137)])
@pytest.mark.parametrize("seccomp", [False, True])
def test_awaited(lab2, seccomp, end, status):
    """Whoever has started it waits for it, sends it signals, and sees how it ends: its first process has a stub."""
    name, path = f"awaited-{seccomp}-{end}".lower(), f"/tmp/container-awaited-{seccomp}-{end}"
    bundle(path, f"{path}/root", False, seccomp, SCRIPT.replace("exit 0", "exit 42"))
    pid = start(name, path, waits=True)
    moved = migrate("n1", pid, "n2")
    assert moved.status == 0, moved.text
    stub = lambda: find_process("n1", pid)
    assert stub(), lab2.log_tail("n1")
    wait_until("a stub", lambda: stub().cmdline.startswith("godwit-stub"))
    moved = migrate("n2", moved.json["pid"], "n3")
    assert moved.status == 0, moved.text
    there = moved.json["pid"]
    assert json.loads(inside("n1", "crun", "state", name).stdout)["status"] == "running"
    inside("n1", "kill", "-STOP", str(pid))
    wait_until("it is stopped", lambda: find_process("n3", there).state == "T")
    inside("n1", "kill", "-CONT", str(pid))
    wait_until("it goes on", lambda: find_process("n3", there).state != "T")
    inside("n1", "crun", "kill", name, end)
    wait_until("crun has seen it", lambda: inside("n1", "cat", f"{path}/status", check=False).stdout.strip() == str(status))
    wait_until("it has ended", lambda: not find_process("n3", there))
    if end == "TERM":
        assert any(said(host, path) == "ready\nsame\n" for host in lab2.hosts), [said(host, path) for host in lab2.hosts]
    inside("n1", "crun", "delete", "-f", name, check=False)
    lab2.assert_clean()


FAULTS = {"SEGV": "ctypes.string_at(0)", "ILL": "run(b'\\x0f\\x0b')", "FPE": "run(b'\\x31\\xc9\\x31\\xd2\\xf7\\xf1')", "TRAP": "run(b'\\xcc')"}
FAULTY = r"""
import ctypes, mmap, signal
def run(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
signal.signal(signal.SIGUSR1, lambda *_: FAULT)
open(__file__ + ".ready", "w").close()
while True:
    signal.pause()
"""


@pytest.mark.parametrize("name, namespaces", [(name, "-fp") for name in FAULTS] + [("SEGV", "-Urfp")])
def test_first_process_dies_of_a_fault(lab2, name, namespaces):
    """No signal from within ends the first process of a pid namespace: its stub dies of doing the same."""
    path = f"/tmp/fault-{name}{namespaces}"
    inside("n1", "sh", "-c", f"cat >{path} <<'EOF'\n{FAULTY.replace('FAULT', FAULTS[name])}\nEOF")
    script = 'import os, sys; os.write(1, b"%d" % os.waitstatus_to_exitcode(os.spawnvp(os.P_NOWAIT, "unshare", ["unshare", sys.argv[2], "python3", sys.argv[1]]) and os.wait()[1]))'
    inside("n1", "sh", "-c", f"setsid -f python3 -c '{script}' {path} {namespaces} >{path}.status 2>/dev/null </dev/null")
    wait_until("it waits", lambda: inside("n1", "ls", f"{path}.ready", check=False).returncode == 0)
    pid = next(p.host_pid for p in processes("n1") if p.cmdline == f"python3 {path}")
    moved = migrate("n1", pid, "n2")
    assert moved.status == 0, moved.text
    inside("n1", "kill", "-USR1", str(pid))
    wait_until("its parent has seen it", lambda: inside("n1", "cat", f"{path}.status").stdout)
    number = getattr(signal, f"SIG{name}")
    assert inside("n1", "cat", f"{path}.status").stdout == str(-number)
    lab2.assert_clean()


def test_worker_dies_before_there_is_a_stub(lab2):
    """Who waits sees the end of the first process, which ends by itself; who stands for its parent there waits for home in vain."""
    name, path = "no-stub", "/tmp/container-no-stub"
    bundle(path, f"{path}/root", False, False)
    pid = start(name, path, waits=True)
    inside("n1", "sh", "-c", "echo source:home:kill >/run/godwit/fault")
    migrate("n1", pid, "n2")
    inside("n1", "rm", "-f", "/run/godwit/fault")
    wait_until("crun has seen it", lambda: inside("n1", "cat", f"{path}/status", check=False).stdout.strip() == "137")
    wait_until("it runs there", lambda: find_process("n2", pid) and find_process("n2", pid).state in "SR")
    inside("n2", "kill", "-KILL", str(pid))
    inside("n1", "crun", "delete", "-f", name, check=False)


@pytest.mark.parametrize("terminals, cause", [
    ("exec 9<>/dev/ptmx; mount --bind /dev/pts/$(ls /dev/pts | grep -v ptmx | sort -n | tail -1) /tmp/console", "a terminal of the host's"),
    ("mount -t devpts -o newinstance,ptmxmode=666 own /dev/pts; exec 9<>/dev/pts/ptmx; mount --bind /dev/pts/0 /tmp/console; exec 9>&-", "was removed"),
    ("mount -t devpts -o newinstance,ptmxmode=666 own /dev/pts; exec 9<>/dev/pts/ptmx; mount --bind /dev/pts/0 /tmp/console", None),
    ("mount -t devpts -o newinstance,ptmxmode=666 own /dev/pts; exec 9<>/dev/pts/ptmx; mount --bind /dev/pts/0 /tmp/console; sleep 1000 & exec 9>&-", "no process of the unit has open")])
def test_mounted_terminal(lab2, terminals, cause):
    """One of the unit's own goes with it; not one of the host's, whose number may be another's there, one that is gone, or one that is somebody else's."""
    outside = "sleep" in terminals
    for host in ("n1", "n2"):
        inside(host, "touch", "/tmp/console")
    inside("n1", "sh", "-c", f"""
        setsid -f unshare -m bash -c '{terminals}; echo $$ >/tmp/mounted; exec setsid {"-f" if outside else ""} sleep 2000' >/dev/null 2>&1 </dev/null""")
    wait_until("it sleeps", lambda: any(p.cmdline == "sleep 2000" for p in processes("n1")))
    pid = next(p.host_pid for p in processes("n1") if p.cmdline == "sleep 2000")
    result = migrate("n1", pid, "n2")
    if cause:
        assert result.status == EXIT_REFUSED and "/tmp/console" in result.text and cause in result.text, result.text
        inside("n1", "sh", "-c", f"kill {pid}; pkill -x sleep || :")
        return
    assert result.status == 0, result.text
    root = f"/proc/{find_process('n2', pid).pid}/root"
    assert os.stat(f"{root}/tmp/console").st_ino == os.stat(f"{root}/dev/pts/0").st_ino
    inside("n2", "kill", str(pid))
