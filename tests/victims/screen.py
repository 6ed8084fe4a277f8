#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""The program that shows a terminal, without a screen. Usage: screen.py DIRECTORY COMMAND [ARGUMENT...]

Runs the command on a pseudo-terminal of 111 by 33 characters. What it writes goes to DIRECTORY/screen; what is in DIRECTORY/keys.0, keys.1, ... is typed as
soon as the file is there.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios

directory = sys.argv[1]
child, master = pty.fork()
if child == 0:
    os.environ["PS1"] = "$ "
    os.environ["TERM"] = "xterm"
    os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 111, 0, 0))
screen = open(os.path.join(directory, "screen"), "ab", buffering=0)
with open(os.path.join(directory, "pid"), "w") as f:
    f.write(str(os.getpid()))
typed = 0
while True:
    if select.select([master], [], [], 0.02)[0]:
        try:
            screen.write(os.read(master, 4096))
        except OSError:
            break
    try:
        with open(os.path.join(directory, f"keys.{typed}"), "rb") as f:
            keys = f.read()
    except FileNotFoundError:
        continue
    os.write(master, keys)
    typed += 1
screen.write(b"[status %d]" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
