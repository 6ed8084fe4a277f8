#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""That each code of a refusal in the sources is explained, and nothing else is; godwit explain. Usage: test_refusals.py REFUSALS.MD SOURCES GODWIT"""

import json
import pathlib
import re
import subprocess
import sys
import unittest

DOCUMENT, SOURCES, GODWIT = sys.argv[1:4]
CODE = re.compile(r'"((?:bridge|cgroup|fd|file|host|image|ipc|mm|net|node|ns|owner|protect|task|thread|tree|unit|vdso|vma)\.[a-z0-9._-]+)"')
MADE = {"fd.socket.tcp.established", "fd.socket.udp.connected", "fd.socket.other", "fd.socket.family"}     # put together: socket_listen.c
FILES = {"node.key", "node.pem"}


def codes_of_sources():
    found = set()
    for path in pathlib.Path(SOURCES).rglob("*.c"):
        found |= {code for code in CODE.findall(path.read_text()) if not code.startswith("cgroup.") or code == "cgroup.frozen"}
    return {code for code in found - FILES if not code.endswith(".h")} | MADE


def explain(*arguments):
    return subprocess.run([GODWIT, "explain", *arguments], capture_output=True, text=True, timeout=20, check=False)


class Refusals(unittest.TestCase):
    def test_each_is_explained(self):
        explained = set(re.findall(r"^### (\S+)$", pathlib.Path(DOCUMENT).read_text(), re.M))
        self.assertEqual(codes_of_sources() - explained, set(), "codes that docs/refusals.md lacks")
        self.assertEqual(explained - codes_of_sources(), set(), "codes in docs/refusals.md that nothing says any more")
        self.assertGreater(len(explained), 100)

    def test_one(self):
        said = explain("fd.tty")
        self.assertEqual(said.returncode, 0)
        self.assertTrue(said.stdout.startswith("fd.tty\n"))
        self.assertIn("pseudo-terminal", said.stdout)
        self.assertIn("fd.tty.missing\n", said.stdout)
        self.assertNotIn("fd.tun", said.stdout)
        self.assertLessEqual(max(map(len, said.stdout.splitlines())), 80)

    def test_a_code_with_a_number(self):
        self.assertTrue(explain("fd.socket.family.44").stdout.startswith("fd.socket.family\n"))

    def test_all_that_begin_so(self):
        said = json.loads(explain("--json", "vma").stdout)
        self.assertTrue(all(x["code"].startswith("vma.") and x["text"] for x in said))
        self.assertGreater(len(said), 10)
        self.assertEqual(len(explain().stdout.splitlines()), len(json.loads(explain("--json").stdout)))

    def test_an_unknown_one(self):
        for word in ("fd.ttx", "f", "", "tt.fd"):
            said = explain(word)
            self.assertEqual((said.returncode, said.stdout), (1, ""))
            self.assertIn("godwit explain", said.stderr)
        self.assertEqual(explain("a", "b").returncode, 2)


unittest.main(argv=sys.argv[:1])
