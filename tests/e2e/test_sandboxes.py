# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that put others into namespaces: those stay in the unit, and keep their numbers in each."""

import pytest
from lab_driver import Victim, find_process, inside, migrate, processes, wait_until

# What a sandboxed program sees of itself; the rest of mountinfo are numbers.
LOOK = r"""
look() {
	echo "$$ $PPID"; ls -d /proc/[0-9]*
	awk '{ last[$5] = $6 } END { for (where in last) print where, last[where] }' /proc/self/mountinfo | sort | while read where options; do [ "$(stat -c %m "$where")" = "$where" ] && echo "$where $options"; done
	cat /tmp/inside /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id; grep Cap /proc/self/status
}
trap 'look >/tmp/after 2>&1; cmp -s /tmp/before /tmp/after && exit 42; exit 43' TERM
echo text >/tmp/inside
: >/tmp/before
: >/tmp/after
look >/tmp/before 2>&1
: >/tmp/ready
while :; do sleep 0.05; done
"""

SANDBOXES = {
    "bwrap": "bwrap --unshare-pid --unshare-ipc --unshare-uts --unshare-net --hostname box --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --",
    "bwrap-as-1": "bwrap --unshare-pid --as-pid-1 --ro-bind / / --proc /proc --tmpfs /tmp --",
    "unshare": "unshare -mpf --mount-proc sh -c 'mount -t tmpfs own /tmp; exec \"$@\"' -",
    "user": "unshare -pf --mount-proc unshare -Ur unshare -m sh -c 'mount -t tmpfs own /tmp; exec \"$@\"' -",
    "user-pid": "unshare -Urpf --mount-proc sh -c 'mount -t tmpfs own /tmp; exec \"$@\"' -",
    "all": "bwrap --unshare-all --hostname box --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --",
    "all-user": "setpriv --reuid=1000 --regid=1000 --clear-groups bwrap --unshare-all --hostname box --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --",
    "nested": "unshare -Ur unshare -Urpf --mount-proc sh -c 'mount -t tmpfs own /tmp; exec \"$@\"' -",
    "within": "bwrap --unshare-pid --ro-bind / / --proc /proc --tmpfs /tmp -- unshare -pf --mount-proc",
}


@pytest.mark.parametrize("name", SANDBOXES)
def test_sandbox(lab2, name):
    """A shell with a sandbox below it goes there, back, and there again; who is is inside sees no difference, and the shell how it ends."""
    path = f"/tmp/sandbox-{name}"
    inside("n1", "sh", "-c", f"cat >{path} <<'EOF'\n{LOOK}\nEOF")
    inside("n1", "sh", "-c", f"cat >{path}.sh <<'EOF'\n{SANDBOXES[name]} sh -c \"$(cat {path})\" {name}-inner\nexit $?\nEOF\n"
           f"setsid -f sh -c 'sh {path}.sh; echo $? >{path}.status' >/dev/null 2>&1 </dev/null")
    inner = lambda host: [p for p in processes(host) if p.cmdline.endswith(f"{name}-inner") and p.cmdline.startswith("sh -c")]
    wait_until("it is ready", lambda: inner("n1") and inside("n1", "ls", f"/proc/{inner('n1')[0].host_pid}/root/tmp/ready", check=False).returncode == 0)
    root = next(p.host_pid for p in processes("n1") if p.cmdline == f"sh {path}.sh")
    numbers = inside("n1", "grep", "NSpid", f"/proc/{inner('n1')[0].host_pid}/status").stdout
    for there, here, strategy in (("n2", "n1", "freeze-free"), ("n1", "n2", "stop-copy"), ("n2", "n1", "pre-copy")):
        moved = migrate(here, root, there, strategy)
        assert moved.status == 0, moved.text
        root = moved.json["pid"]
    there = inner("n2")[0].host_pid
    assert inside("n2", "grep", "NSpid", f"/proc/{there}/status").stdout == numbers
    inside("n2", "kill", "-TERM", str(there))
    wait_until("the shell has seen its end", lambda: inside("n1", "cat", f"{path}.status", check=False).stdout.strip())
    assert inside("n1", "cat", f"{path}.status").stdout.strip() == "42"
    wait_until("it has ended", lambda: not find_process("n2", root))


@pytest.mark.parametrize("name", ["ns_elsewhere", "ns_elsewhere_below"])
def test_mounts_of_descriptors(lab2, name):
    """Files stay open on the mounts that they were opened on, and sockets bound in the mount namespaces and roots that they were bound in."""
    v = Victim(lab2, name).wait_ready()
    v.migrate("n2")
    v.assert_ok()


def test_user_namespaces(lab2):
    """Ids that are mapped and such that are not, capabilities, threads, file systems: in namespaces that processes of the unit have made for themselves, one within another."""
    v = Victim(lab2, "ns_users", expect_move=False).wait_ready()
    v.migrate("n2")
    v.migrate("n1", "stop-copy")
    v.assert_ok()


def test_mounts_of_the_host_only(lab2):
    """A copy of the host's mounts with a /tmp of its own, as a service has it: what the destination lacks and nobody uses stays behind, and is named; what is used does not get lost."""
    inside("n1", "sh", "-c", "mkdir -p /run/only/below /run/used && mount -t tmpfs only /run/only && mkdir /run/only/below && mount -t tmpfs below /run/only/below && touch /run/only/below/file"
           " && mount -t tmpfs used /run/used && echo text >/run/used/file")
    try:
        inside("n1", "sh", "-c", "setsid -f unshare -m sh -c 'mount -t tmpfs own /tmp; cd /run/used; : >/tmp/ready; exec sleep 1000' mounts-only >/dev/null 2>&1 </dev/null")
        sleeper = lambda host: [p for p in processes(host) if p.cmdline == "sleep 1000"]
        wait_until("it is ready", lambda: sleeper("n1") and inside("n1", "ls", f"/proc/{sleeper('n1')[0].host_pid}/root/tmp/ready", check=False).returncode == 0)
        moved = migrate("n1", sleeper("n1")[0].host_pid, "n2")
        assert moved.status != 0 and "mount /run/used" in moved.text and sleeper("n1"), moved.text
        inside("n2", "mkdir", "/run/used")
        moved = migrate("n1", sleeper("n1")[0].host_pid, "n2")
        assert moved.status == 0, moved.text
        root = f"/proc/{sleeper('n2')[0].host_pid}"
        mounts = inside("n2", "cat", f"{root}/mountinfo").stdout
        assert " /run/only" not in mounts and " /tmp " in mounts and " /run/used " in mounts, mounts
        assert inside("n2", "cat", f"{root}/cwd/file").stdout == "text\n"
        assert any("/run/only of the host" in n for n in moved.json["notes"]) and any("/run/only/below of the host" in n for n in moved.json["notes"]), moved.text
        inside("n2", "kill", "-9", str(sleeper("n2")[0].host_pid))
        wait_until("it has ended", lambda: not sleeper("n2"))
    finally:
        inside("n1", "sh", "-c", "umount /run/only/below /run/only /run/used; rmdir /run/only/below /run/only /run/used", check=False)


def test_first_process_in_a_nested_user_namespace(lab2):
    """It moves without the namespace that its own lies in, which nobody of the unit is in: that is made there all the same (podman's --userns=keep-id)."""
    inside("n1", "sh", "-c", """cat >/tmp/nested.sh <<'EOF'
trap 'exit 42' TERM; : >/tmp/nested.ready; while :; do sleep 0.1; done
EOF
setsid -f sh -c 'unshare -Ur unshare -Urpf bash /tmp/nested.sh; echo $? >/tmp/nested.status' >/dev/null 2>&1 </dev/null""")
    wait_until("it is ready", lambda: inside("n1", "ls", "/tmp/nested.ready", check=False).returncode == 0)
    pid = next(p.host_pid for p in processes("n1") if p.cmdline == "bash /tmp/nested.sh")
    for source, dest, strategy in (("n1", "n2", "freeze-free"), ("n2", "n3", "stop-copy")):
        moved = migrate(source, pid, dest, strategy)
        assert moved.status == 0, moved.text
        pid = moved.json["pid"]
    inside("n3", "kill", "-TERM", str(pid))
    wait_until("its parent has seen its end", lambda: inside("n1", "cat", "/tmp/nested.status", check=False).stdout.strip() == "42")
    lab2.assert_clean()
