# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers that podman has started: conmon waits for them, keeps what they say, and tells podman how they end, wherever they run."""

import pytest
from lab_driver import EXIT_REFUSED, find_process, inside, migrate, popen, processes, wait_until
from test_home_terminal import Terminal

COMMANDS = "tty sh sleep cat cmp diff sort grep ls find hostname stat test true echo stty"
# podman wants to find one hierarchy of control groups; nothing of its own is kept outside of /tmp of the host.
PODMAN = "mount -t cgroup2 none /sys/fs/cgroup && exec podman --root /tmp/podman/root --runroot /tmp/podman/run --tmpdir /tmp/podman/tmp --storage-driver vfs " \
         "--cgroup-manager cgroupfs --events-backend file --runtime crun \"$@\""
COUNTS = "trap 'echo bye; exit 7' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


def command(*arguments):
    return ("unshare", "-m", "sh", "-c", PODMAN, "podman", *arguments)


def podman(*arguments, check=True):
    return inside("n1", *command(*arguments), check=check)


@pytest.fixture(scope="module")
def image(whole_lab):
    inside("n1", "sh", "-c", f"""set -e
        root=/tmp/podman-image; mkdir -p $root/bin $root/etc $root/tmp; cp /bin/busybox $root/bin
        for i in {COMMANDS}; do ln -sf busybox $root/bin/$i; done
        tar -C $root -cf $root.tar .""")
    podman("import", "/tmp/podman-image.tar", "small")
    return "small"


class Container:
    def __init__(self, name, image, script, *options):
        self.name = name
        podman("run", "-d", "--network", "none", "--cgroups", "disabled", "--name", name, *options, image, "sh", "-c", script)
        self.pid = int(podman("inspect", "-f", "{{.State.Pid}}", name).stdout)

    def lines(self):
        return podman("logs", self.name).stdout.splitlines()

    def speaks(self):
        """Something that it says from now on comes to conmon."""
        before = len(self.lines())
        try:
            wait_until(f"{self.name} says something", lambda: len(self.lines()) > before + 1, 30)
        except AssertionError as error:
            raise AssertionError(f"{error}: {before}, {len(self.lines())} lines; {[(host, processes(host)) for host in ('n1', 'n2', 'n3')]}") from None

    def state(self):
        return podman("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", self.name).stdout.strip()

    def move(self, source, dest, *options):
        pid = getattr(self, "there", self.pid)
        moved = migrate(source, pid, dest, *options)
        assert moved.status == 0, moved.text
        self.there = moved.json["pid"]


def check_numbers(lines):
    """No line is lost, none comes twice."""
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line")]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("name, options", [("plain", ()), ("all", ("--privileged",)), ("shares", ("--ipc", "host", "--uts", "host", "--security-opt", "seccomp=unconfined"))])
def test_awaited_by_conmon(lab2, image, name, options):
    c = Container(name, image, COUNTS, *options)
    waits = popen("n1", *command("wait", name), stdout=-1)
    c.speaks()
    c.move("n1", "n2")
    wait_until("a stub", lambda: find_process("n1", c.pid).cmdline.startswith("godwit-stub"))
    c.speaks()
    assert c.state() == "running 0"
    for what in (("exec", name, "cat", "/etc/hostname"), ("exec", name, "echo"), ("cp", f"{name}:/bin/busybox", "-")): # home's files are not the container's any more
        failed = podman(*what, check=False)
        assert failed.returncode and ("not found" in failed.stderr or "not be found" in failed.stderr), failed.stdout[:200] + failed.stderr
    c.move("n2", "n3")
    c.speaks()
    podman("kill", "-s", "STOP", name)
    wait_until("it is stopped", lambda: find_process("n3", c.there).state == "T")
    podman("kill", "-s", "CONT", name)
    c.speaks()
    c.move("n3", "n1")
    c.speaks()
    podman("stop", "-t", "30", name)
    assert waits.communicate(timeout=60)[0].strip() == "7"
    assert c.state() == "exited 7"
    assert c.lines()[-1] == "bye"
    check_numbers(c.lines())
    podman("rm", name)
    lab2.assert_clean()


def test_killed(lab2, image):
    c = Container("killed", image, "sleep 1000")
    c.move("n1", "n2")
    podman("kill", "killed")
    assert podman("wait", "killed").stdout.strip() == "137"
    wait_until("it has ended", lambda: not find_process("n2", c.there))
    podman("rm", "killed")
    lab2.assert_clean()


def test_dies_away(lab2, image):
    """What the first process of a pid namespace dies of there is what it dies of here."""
    c = Container("dies", image, "sleep 1000 & wait $!; exit 9")
    c.move("n1", "n2")
    inside("n2", "pkill", "-KILL", "-x", "sleep")
    assert podman("wait", "dies").stdout.strip() == "9"
    podman("rm", "dies")
    lab2.assert_clean()


def test_terminal(lab2, image):
    """podman run -it: the terminal is of the container's own devpts and lies on /dev/console; its master is conmon's."""
    t = Terminal(lab2, *command("run", "-it", "--network", "none", "--cgroups", "disabled", "--name", "typed", image, "sh"))
    t.expect("# ", 60)
    pid = int(podman("inspect", "-f", "{{.State.Pid}}", "typed").stdout)
    for there in ("n2", "n3", "n1"):
        pid = t.move(pid, there)
        t.line(f"echo {there} $((40+2)); tty")
        t.expect(rf"\n{there} 42\n/dev/pts/0\n")
        t.line("echo console >/dev/console; stty size; stat -c %t:%T /dev/console")
        t.expect(r"\nconsole\n24 80\n88:0\n")
        t.line("sleep 1000")
        wait_until("it sleeps", lambda: any(p.name == "sleep" and p.cmdline == "sleep 1000" for p in processes(there)))
        t.type("\x03")
        t.line("echo status $?")
        t.expect(r"\nstatus 130\n")
        for lines, columns in ((33, 99), (24, 80)):     # podman tells conmon of a size beside what is typed
            t.resize(lines, columns)
            wait_until("the size has come", lambda: t.line("stty size") or t.expect(r"\n\d+ \d+\n").group(0) == f"\n{lines} {columns}\n")
    t.line("exit 5")
    assert t.shell.wait(30) == 5
    assert podman("inspect", "-f", "{{.State.ExitCode}}", "typed").stdout.strip() == "5"
    podman("rm", "typed")
    t.close()
    lab2.assert_clean()
