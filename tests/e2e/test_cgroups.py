# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups that a destination lacks are made for a unit, and are gone when it has left; the victims check what is in them."""

from lab_driver import EXIT_REFUSED, Victim, inside, migrate


def groups(host):
    find = "cd $(awk '$3 == \"cgroup2\" { at = $2 } END { print at }' /proc/mounts) && find . -name 'victim-*' -print"
    return set(inside(host, "sh", "-c", find).stdout.split())


def test_groups_are_made_and_removed(lab2):
    before = groups("n1"), groups("n2")
    v = Victim(lab2, "cgroup_ns", expect_move=False).wait_ready()
    own = groups("n1") - before[0]
    assert own and groups("n2") == before[1]
    inside("n2", "sh", "-c", "echo dest:commit:error > /run/godwit/fault")
    assert migrate("n1", v.pid, "n2").status not in (0, 99)
    inside("n2", "rm", "-f", "/run/godwit/fault")
    assert groups("n2") == before[1], "of an attempt that failed something is left"
    v.migrate("n2")
    assert groups("n2") - before[1] == own
    v.migrate("n1", "stop-copy")
    assert groups("n2") == before[1]
    v.assert_ok()


def test_frozen(lab2):
    v = Victim(lab2, "cgroup_ns", expect_move=False).wait_ready()
    own = inside("n1", "sh", "-c", f"dirname $(grep -rlx {v.pid} $(awk '$3 == \"cgroup2\" {{ at = $2 }} END {{ print at }}' /proc/mounts) --include=cgroup.procs)").stdout.strip()
    inside("n1", "sh", "-c", f"echo 1 > {own}/cgroup.freeze && until grep -q 'frozen 1' {own}/cgroup.events; do :; done")
    result = migrate("n1", v.pid, "n2")
    assert result.status == EXIT_REFUSED and "cgroup.frozen" in result.text, result.text
    inside("n1", "sh", "-c", f"echo 0 > {own}/cgroup.freeze")
    v.migrate("n2")
    v.assert_ok()


def test_a_hierarchy_that_is_not_mounted(lab2):
    """The destination's kernel has it all the same: who was in a group of it is not to be found outside of it."""
    point = inside("n2", "awk", '$3 == "cgroup2" { at = $2 } END { print at }', "/proc/mounts").stdout.strip()
    v = Victim(lab2, "cgroup_threads", expect_move=False).wait_ready()
    inside("n2", "umount", "-l", point)
    try:
        v.migrate("n2")
    finally:
        inside("n2", "mount", "-t", "cgroup2", "-o", "nosuid,nodev,noexec", "cgroup2", point)
    v.assert_ok()
