# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers that podman has connected to its bridge, with published ports: by whichever of its network backends is installed."""

import pytest

from lab_driver import inside, migrate, popen, processes, wait_until

HOLD = "mount -t cgroup2 none /sys/fs/cgroup && exec sleep 7200.5"
PODMAN = ("podman", "--root", "/tmp/podman-net/root", "--runroot", "/tmp/podman-net/run", "--tmpdir", "/tmp/podman-net/tmp", "--storage-driver", "vfs",
          "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "crun")


class Engine:
    """podman wants to find one hierarchy of control groups, and mounts what keeps network namespaces: all its commands are in one mount namespace."""

    def __init__(self):
        self.holder = popen("n1", "unshare", "-m", "sh", "-c", HOLD, stdin=-3, stdout=-3, stderr=-3)
        self.pid = wait_until("its mounts", lambda: next((p for p in processes("n1") if p.cmdline == "sleep 7200.5"), None)).host_pid

    def podman(self, *arguments, check=True):
        return inside("n1", "nsenter", "-t", str(self.pid), "-m", *PODMAN, *arguments, check=check).stdout.strip()


@pytest.fixture
def engine(lab2):
    e = Engine()
    inside("n1", "sh", "-c", """set -e
        root=/tmp/podman-net-image; mkdir -p $root/bin $root/etc $root/tmp $root/www; cp /bin/busybox $root/bin; ln -sf busybox $root/bin/httpd; echo hello >$root/www/index.html
        tar -C $root -cf $root.tar .""")
    e.podman("import", "/tmp/podman-net-image.tar", "served")
    yield e
    e.podman("rm", "-f", "-t", "0", "web", check=False)
    inside("n1", "kill", "-9", str(e.pid), check=False)
    e.holder.wait()


def fetches(host, where):
    return inside(host, "/usr/bin/python3", "-c", f"import urllib.request; print(urllib.request.urlopen('http://{where}', timeout=2).read())", check=False).stdout == "b'hello\\n'\n"


def test_published_container(engine):
    engine.podman("run", "-d", "--network", "podman", "--cgroups", "disabled", "-p", "8094:80", "--name", "web", "served", "/bin/httpd", "-f", "-h", "/www", "-p", "80")
    pid = int(engine.podman("inspect", "-f", "{{.State.Pid}}", "web"))
    address = engine.podman("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")
    wait_until("the port leads to it", lambda: fetches("n2", "10.66.0.1:8094"), 10)
    moved = migrate("n1", pid, "n2")
    assert moved.status == 0, moved.why()
    there = moved.json["pid"]
    assert f"{address}/" in inside("n2", "nsenter", "-t", str(there), "-n", "ip", "-4", "addr").stdout
    wait_until("the port of its host leads to it", lambda: fetches("n1", "10.66.0.2:8094"), 10)
    assert fetches("n2", address)
    assert not fetches("n2", "10.66.0.1:8094")
    back = migrate("n2", there, "n1", "stop-copy")
    assert back.status == 0, back.why()
    wait_until("the port leads to it at home", lambda: fetches("n2", "10.66.0.1:8094"), 10)
    wait_until("nothing is left of it at n2", lambda: "8094" not in inside("n2", "nft", "list", "ruleset").stdout and "podman" not in inside("n2", "ip", "-br", "link").stdout, 10)
    assert "failed" not in engine.podman("rm", "-f", "-t", "0", "web")
