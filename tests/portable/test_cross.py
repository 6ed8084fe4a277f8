#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program goes on on other architectures: usage: test_cross.py TRAVEL [MACHINE=TRAVEL ...]

The binaries of other machines are run by qemu's user emulation. Byte order, width of `long` and of pointers, and alignment differ between them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

BINARIES = {"x86_64": sys.argv[1], **dict(a.split("=", 1) for a in sys.argv[2:])}
STEPS = 900


def command(machine):
    if machine == "x86_64":
        return [BINARIES[machine]]
    return [shutil.which(f"qemu-{machine}-static"), BINARIES[machine]]


class Cross(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = os.path.join(directory.name, "log")
        self.state = os.path.join(directory.name, "state")

    def run_on(self, machine, *more, state=None):
        environment = {**os.environ, **({"GODWIT_PORTABLE_STATE": state} if state else {})}
        done = subprocess.run([*command(machine), str(STEPS), self.log, *map(str, more)], env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def travel(self, machines):
        """Each of them does its share; what the last one says, and the log."""
        state = None
        for i, machine in enumerate(machines[:-1]):
            at = STEPS * (i + 1) // len(machines)
            self.assertEqual(self.run_on(machine, at, self.state, state=state), (0, "", ""), f"on {machine}")
            state = self.state
        status, result, errors = self.run_on(machines[-1], state=state)
        self.assertEqual((status, errors), (0, ""), machines[-1])
        with open(self.log, encoding="ascii") as f:
            return result, f.read()

    def test_all(self):
        alone = self.travel(["x86_64"])
        self.assertEqual(alone[1].splitlines(), [f"step {i}" for i in range(0, STEPS, 100)])
        others = [m for m in BINARIES if m != "x86_64"]
        self.assertEqual(self.travel(["x86_64", *others, "x86_64"]), alone)
        self.assertEqual(self.travel(["x86_64", *reversed(others), "x86_64"]), alone)

    def test_does_not_fit(self):
        """A long that a machine of 32 bits cannot have is refused with its name, and the state is still good."""
        if "arm" not in BINARIES:
            self.skipTest("no compiler for arm")
        self.assertEqual(self.run_on("x86_64", 300, self.state)[0], 0)
        with open(self.state, "rb") as f:
            state = f.read()
        # the variable `i` is the first of the data, which begins behind the objects; a state with another one is written by hand
        at = state.index((300).to_bytes(8, "little"), state.index(b"\x03\x00log") + 20)
        changed = bytearray(state[:-8])
        changed[at : at + 8] = (1 << 40).to_bytes(8, "little")
        with open(self.state, "wb") as f:
            f.write(changed + digest(changed))
        status, _, errors = self.run_on("arm", state=self.state)
        self.assertEqual(status, 1)
        self.assertIn("'i' has 1099511627776, which does not fit into the 4 bytes that it has here", errors)

    def test_another_program(self):
        with open(self.state, "wb") as f:
            f.write(b"GODWITPS" + bytes(100))
        for machine in BINARIES:
            status, _, errors = self.run_on(machine, state=self.state)
            self.assertEqual(status, 1, machine)
            self.assertIn("the state has form 0, and this library reads form 1", errors)


def digest(data):
    """As src/portable/digest.c."""
    mask = (1 << 64) - 1

    def mix(lane, x):
        x = ((lane ^ x) * 0x9E3779B97F4A7C15) & mask
        return x ^ (x >> 29)

    lanes = [1, 2, 3, 4]
    padded = bytes(data) + bytes(32 - len(data) % 32)
    for i in range(0, len(padded), 32):
        lanes = [mix(lanes[k], int.from_bytes(padded[i + 8 * k : i + 8 * k + 8], "little")) for k in range(4)]
    value = len(data)
    for lane in lanes:
        value = mix(value, lane)
    return value.to_bytes(8, "little")


unittest.main(argv=sys.argv[:1])
