#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""What completes godwit's command line, and that the manual has all that `godwit help` says. Usage: test_completions.py COMPLETIONS GODWIT GODWIT.1"""

import functools
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

COMPLETIONS, GODWIT, MANUAL = sys.argv[1:4]


def run(*command, **how):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, **how).stdout


def verbs():
    return [line.split()[0] for line in run(GODWIT, "help").split("\n\n")[1].splitlines()]


def options(verb):
    return re.findall(r"^ +(--?[a-zA-Z][\w-]*)", run(GODWIT, "help", verb), re.M)


class Completions(unittest.TestCase):
    @staticmethod
    @functools.cache
    def script(shell):
        return run("/usr/bin/python3", COMPLETIONS, GODWIT, shell)

    def complete(self, line):
        """As bash does it. A word that is empty is the last one where the line ends with a blank."""
        words = line.split() + ([""] if line.endswith(" ") else [])
        ask = "; _godwit; printf '%s\\n' \"${COMPREPLY[@]}\""
        with tempfile.NamedTemporaryFile("w", suffix=".bash") as f:
            f.write(self.script("bash") + f"godwit() {{ printf 'NODE STATE\\nn1 ok\\nn2 ok\\n'; }}\nCOMP_WORDS=(\"$@\"); COMP_CWORD={len(words) - 1}{ask}")
            f.flush()
            return run("bash", f.name, *words).split()

    def test_verbs(self):
        self.assertEqual(self.complete("godwit mi"), ["migrate"])
        self.assertLessEqual(set(verbs()), set(self.complete("godwit ")))
        self.assertLessEqual(set(verbs()), set(self.complete("godwit help ")))

    def test_options(self):
        for verb in verbs():
            if verb != "help":
                self.assertEqual(sorted(self.complete(f"godwit {verb} -")), sorted(set(options(verb))), verb)

    def test_values(self):
        self.assertEqual(self.complete("godwit migrate 7 n2 --strategy p"), ["pre-copy"])
        self.assertEqual(self.complete("godwit migrate 7 n2 --tcp "), ["keep", "close", "refuse"])
        self.assertEqual(self.complete("godwit run --node n"), ["n1", "n2"])
        self.assertEqual(self.complete("godwit --socket /x balance st"), ["status"])
        self.assertEqual(self.complete("godwit pki rev"), ["revoke"])
        self.assertEqual(self.complete("godwit migrate 7 h"), ["home"])
        self.assertEqual(self.complete("godwit drain h"), [])
        self.assertIn("/etc/passwd", self.complete("godwit restore /etc/passw"))

    def test_other_shells(self):
        for shell in ("zsh", "fish"):
            text = self.script(shell)
            for verb in verbs():
                self.assertIn(verb, text)
            with tempfile.NamedTemporaryFile("w") as f:
                f.write(text)
                f.flush()
                if shutil.which(shell):
                    run(shell, "-n", f.name)


class Manual(unittest.TestCase):
    def test_all_is_in_the_manual(self):
        with open(MANUAL) as f:
            text = re.sub(r"\\f.|\\", "", f.read())
        for verb in verbs():
            self.assertRegex(text, rf"\bgodwit {verb}\b|^\.B +\"?{verb}\b|\b{verb}\b", verb)
            for option in options(verb) if verb != "help" else []:
                self.assertRegex(text, rf"(?<![\w-]){option}(?![\w-])", f"{verb} {option}")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
