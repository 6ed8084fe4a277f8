# SPDX-License-Identifier: GPL-2.0-or-later
"""A container that crun has started: its root on a part that hosts share, and in a directory that only the source has."""

import json

import pytest
from lab_driver import EXIT_REFUSED, inside, migrate, processes, wait_until

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


def bundle(path, root, readonly, seccomp):
    """A bundle as a host's own crun makes its specification, with a bind of a file that only this host has."""
    inside("n1", "sh", "-c", f"mkdir -p {path} {root}/bin {root}/etc {root}/proc {root}/sys {root}/dev {root}/tmp; cp /bin/busybox {root}/bin; "
           f"for i in sh sleep cat cmp diff sort grep ls find hostname stat test true; do ln -sf busybox {root}/bin/$i; done; cd {path} && rm -f config.json && crun spec; "
           "echo nameserver 192.0.2.1 > resolv.conf")
    spec = json.loads(inside("n1", "cat", f"{path}/config.json").stdout)
    spec["process"].update(terminal=False, args=["/bin/sh", "-c", SCRIPT])
    spec["root"] = {"path": root, "readonly": readonly}
    spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "own", "options": ["size=4m", "nosuid"]})
    spec["mounts"].append({"destination": "/etc/resolv.conf", "type": "bind", "source": f"{path}/resolv.conf", "options": ["bind", "ro"]})
    if seccomp:
        spec["linux"]["seccomp"] = SECCOMP
    text = json.dumps(spec)
    inside("n1", "sh", "-c", f"cat > {path}/config.json <<'EOF'\n{text}\nEOF")


def start(name, path):
    """crun wants to find one hierarchy of control groups and nothing else."""
    inside("n1", "touch", f"{root_file(path)}")
    inside("n1", "unshare", "-m", "sh", "-c", f"mount -t cgroup2 none /sys/fs/cgroup && cd {path} && crun --cgroup-manager=disabled run -d {name} >out 2>&1 </dev/null")
    wait_until(f"{name} is ready", lambda: "ready" in inside("n1", "cat", f"{path}/out").stdout)
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
