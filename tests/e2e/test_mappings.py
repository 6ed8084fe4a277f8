# SPDX-License-Identifier: GPL-2.0-or-later
"""Thousands of mappings cost the freeze next to nothing while they are as they were: what is counted here is whether they were read, not how long that took."""

import os
import signal

from lab_driver import STATE, inside, kill, lab, migrate, processes, read, wait_until

MAPPINGS = 3000

# Calls brk(2) again and again, which takes the address space's lock and changes nothing: the kernel counts a change each time.
BUSY = r'''
import ctypes, sys
libc, kept = ctypes.CDLL(None, use_errno=True), []
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
for i in range(int(sys.argv[1])):
    kept.append(libc.mmap(None, 4096, 1 + 2 * (i & 1), 0x22, -1, 0))
assert None not in kept
print("mapped", flush=True)
while True:
    libc.syscall(12, 0)
'''
COMPARED = 'what="layout and descriptors compared"'
READ = 'what="layout has changed since the rehearsal"'


def restart_with(level):
    for host in ("n1", "n2"):
        lab("restart-daemon", host, env={"GODWIT_LOG": level})


def test_mappings_that_are_as_they_were_are_not_read_in_the_freeze(lab2):
    restart_with("debug")
    command = ["/usr/bin/python3", "-I", "-c", BUSY, str(MAPPINGS)]
    out = os.path.join(lab2.directory("mappings"), "out")
    inside("n1", "setsid", "-f", "sh", "-c", f'exec "$0" "$@" </dev/null >{out} 2>&1', *command)
    host, log = "n1", {h: os.path.join(STATE, "hosts", h, "godwitd.log") for h in ("n1", "n2")}
    process = lambda: next((p for p in processes(host) if p.cmdline == " ".join(command) and p.state != "Z"), None)
    try:
        wait_until("it has its mappings", lambda: read(out).startswith("mapped"))
        for to in ("n2", "n1", "n2"):
            before = len(read(log[host]))
            moved = migrate(host, process().host_pid, to)
            assert moved.status == 0, moved.why()
            wait_until("the marks are written", lambda b=before: COMPARED in read(log[host])[b:])
            assert READ not in read(log[host])[before:], "the mappings of a program that changes none were read in the freeze"
            host = to
    finally:
        if process():
            kill(process().pid, signal.SIGKILL)
        restart_with("info")
