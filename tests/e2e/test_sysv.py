# SPDX-License-Identifier: GPL-2.0-or-later
"""System V semaphores and message queues beside what the victims check: nothing is left behind, nothing is taken from others."""

import re
import subprocess

from lab_driver import EXIT_REFUSED, Victim, inside, migrate, popen


def objects(host):
    return re.findall(r"^0x\S+\s+(\d+)", inside(host, "ipcs", "-s", "-q").stdout, re.M)


def test_objects_move(lab2):
    v = Victim(lab2, "sysv_sem").wait_ready()
    there = objects("n1")
    assert len(there) == 2
    v.migrate("n2")
    assert objects("n2") == there and not objects("n1")
    v.migrate("n1", "stop-copy")
    assert objects("n1") == there and not objects("n2")
    v.migrate("n3", "hybrid")
    v.assert_ok()
    assert not objects("n1") and not objects("n3")


def test_key_that_is_taken(lab2):
    v = Victim(lab2, "sysv_msg", expect_move=False).wait_ready()
    key = 0x48000000 | v.pid
    inside("n2", "python3", "-c", f"import ctypes; assert ctypes.CDLL(None).msgget({key}, 0o1600) >= 0")
    result = migrate("n1", v.pid, "n2")
    assert result.status == EXIT_REFUSED and "ipc.taken" in result.text, result.text
    inside("n2", "ipcrm", "-Q", hex(key))
    v.migrate("n2")
    v.assert_ok()


def test_object_of_others(lab2):
    """Another process was the last to work on one of the semaphores: the set is shared."""
    v = Victim(lab2, "sysv_wait", expect_move=False).wait_ready()
    code = f"import ctypes, sys; assert ctypes.CDLL(None).semctl({v.info('set')}, 2, 16, 5) == 0; print('done', flush=True); sys.stdin.read()"
    other = popen("n1", "python3", "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == "done\n"
        result = migrate("n1", v.pid, "n2")
        assert result.status == EXIT_REFUSED and "ipc.shared" in result.text, result.text
    finally:
        other.stdin.close()
        other.wait()
    v.migrate("n2")
    v.assert_ok()


def test_nothing_is_left_after_a_failure(lab2):
    v = Victim(lab2, "sysv_sem", expect_move=False).wait_ready()
    there, others = objects("n1"), objects("n2")
    for fault in ("dest:commit:error", "source:go:error"):
        host = "n2" if fault.startswith("dest") else "n1"
        inside(host, "sh", "-c", f"echo {fault} > /run/godwit/fault")
        assert migrate("n1", v.pid, "n2").status not in (0, 99)
        inside(host, "rm", "-f", "/run/godwit/fault")
        assert objects("n1") == there and objects("n2") == others
    v.migrate("n2")
    v.assert_ok()


def test_segment_of_that_number_in_another_namespace(lab2):
    """Each IPC namespace counts its segments by itself: that somebody else has number 0, too, says nothing."""
    other = Victim(lab2, "ns_segment", expect_move=False).wait_ready()
    v = Victim(lab2, "ns_segment").wait_ready()
    v.migrate("n2")
    v.assert_ok()
    other.assert_ok()
