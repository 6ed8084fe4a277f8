# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver itself: it sees two copies, strangers, tracers and tasks that share memory when they are there, and verdicts that are bad."""

import os
import signal
import subprocess

import pytest

from lab_driver import STATE, VICTIMS, Victim, copies, inside, kill, read, residue, strangers, tasks_sharing_memory, wait_until


@pytest.fixture
def victim(lab2):
    v = Victim(lab2, "mem_anon", 4, expect_move=False).wait_ready()
    yield v
    v.clean()


def test_sees_one_copy(lab2, victim):
    found = copies(lab2.hosts, victim.status)
    assert [(h, p.host_pid) for h, p in found] == [("n1", victim.pid)]


def test_sees_a_second_copy(lab2, victim):
    inside("n2", "setsid", "-f", "sh", "-c", 'exec "$0" "$@" </dev/null >/dev/null 2>&1', os.path.join(VICTIMS, "victim"), "mem_anon", victim.status)
    wait_until("second copy", lambda: len(copies(lab2.hosts, victim.status)) == 2)
    assert [h for h, _ in copies(lab2.hosts, victim.status)] == ["n1", "n2"]
    with pytest.raises(AssertionError):
        lab2.assert_clean(victim.status + "-another")


def test_daemons_lack_nothing(lab2):
    """Without a program of BPF moves work all the same, and take longer: nothing else would tell."""
    for host in lab2.hosts:
        log = read(os.path.join(STATE, "hosts", host, "godwitd.log"))
        assert "event=ready" in log and "event=no-bpf" not in log, log


def test_sees_strangers(lab2):
    assert not strangers("n1") and not strangers("n2")
    inside("n2", "setsid", "-f", "sh", "-c", "exec sleep 20 </dev/null >/dev/null 2>&1")
    found = wait_until("stranger", lambda: strangers("n2"))
    assert found[0].cmdline in ("sleep 20", "sh -c exec sleep 20 </dev/null >/dev/null 2>&1")
    with pytest.raises(AssertionError):
        lab2.assert_clean()


def test_sees_a_tracer(lab2):
    v = Victim(lab2, "refuse_ptraced", expect_move=False).wait_ready()
    assert any("TracerPid" in r for r in residue(v.process().pid))
    v.clean()


def test_sees_a_task_that_shares_memory(lab2):
    v = Victim(lab2, "refuse_shared_vm", expect_move=False).wait_ready()
    assert len(tasks_sharing_memory(v.process().pid, "n1")) == 1
    v.clean()


def test_a_bad_verdict_fails(lab2, victim):
    """One bit is flipped from outside: the verdict names the word."""
    subprocess.run([os.path.join(VICTIMS, "vandal"), str(victim.process().pid), "flip", "", "100000"], check=True, capture_output=True)
    with pytest.raises(AssertionError, match="anonymous memory"):
        victim.assert_ok()


def test_a_death_fails(lab2, victim):
    kill(victim.process().pid, signal.SIGKILL)
    wait_until("death", lambda: not copies(lab2.hosts, victim.status))
    with pytest.raises(AssertionError, match="died without a verdict|no process"):
        victim.verdict()


def test_a_move_that_did_not_happen_fails(lab2):
    """The victim itself notices that it is still on its first host."""
    v = Victim(lab2, "mem_anon", 4, expect_move=True).wait_ready()
    with pytest.raises(AssertionError, match="host name"):
        v.assert_ok()
