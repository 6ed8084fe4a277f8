#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""A parent that waits. Usage: waiter.py LOG COMMAND [ARGUMENT...]: writes down everything that waitpid says of its child."""

import os
import signal
import sys


def say(*words):
    with open(sys.argv[1], "a") as f:
        f.write(" ".join(str(w) for w in words) + "\n")


null = os.open("/dev/null", os.O_RDWR)
for fd in range(3):
    os.dup2(null, fd)
child = os.fork()
if child == 0:
    if os.environ.get("WAITER_GROUP"):
        os.setpgid(0, 0)
    os.execv(sys.argv[2], sys.argv[2:])
say("parent", os.getpid(), "child", child)
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    pid, status = os.waitpid(child, os.WUNTRACED | os.WCONTINUED)
    if os.WIFSTOPPED(status):
        say("stopped", os.WSTOPSIG(status))
    elif os.WIFCONTINUED(status):
        say("continued")
    elif os.WIFSIGNALED(status):
        say("killed", os.WTERMSIG(status), "core" if os.WCOREDUMP(status) else "clean")
        break
    else:
        say("exited", os.WEXITSTATUS(status))
        break
