# SPDX-License-Identifier: GPL-2.0-or-later
"""The handover: the tables of src/agent/handover.h are those of the model, and spin finds nothing wrong with the model.

    test_handover.py HANDOVER_H HANDOVER_PML CC

A model in which nothing can be wrong proves nothing: so mistakes that could be made, and were, are put into it, and each must be found.
"""

import os
import re
import subprocess
import sys
import tempfile

HEADER, MODEL, CC = sys.argv[1], sys.argv[2], sys.argv[3:]
MEMORY_MIB = 1500

# name: what to put into the model, and in which place
MISTAKES = {
    "the agent does not keep the record locked": (r"bool locked_agent = true;", "bool locked_agent = false;"),
    "what may still be on its way is waited for for ever": (r"\n\t\t\tshut = true;", "\n\t\t\tskip;"),
    "a broken connection counts as an end": (r"(:: news == BROKEN +-> follows = )ASK", r"\1HEARD_ABORTED"),
    "a broken connection counts as a commit": (r"(:: news == BROKEN +-> follows = )ASK", r"\1HEARD_COMMITTED"),
    "the record is written before the commit point": (r"\n\t\t\tRELEASE_BEGINS;", "\n\t\t\tatomic { record = COMMITTED; written = true };\n\t\t\tRELEASE_BEGINS;"),
    "the agent does not look whether the worker has written": (r":: record != COMMITTED -> RECORD_FAILED", ":: RECORD_FAILED"),
    "the source goes on before it knows": (r"(find_out\(news, follows\);)(\n\t\t\tif\n\t\t\t:: follows == HEARD_COMMITTED -> STEP_HEARD_COMMITTED; copy)", r"let_go(SOURCE); \1\2"),
    "the root's thread does not wait for the record": (r":: state\[DEST\] == COMMITTED -> let_go\(DEST\)", ":: state[DEST] == COMMITTED || state[DEST] == DECIDED -> let_go(DEST)"),
}


def rows(text, macro):
    """The rows of one X macro, each a tuple of its arguments."""
    body = re.search(rf"#define {macro}\(X\)((?:.*\\\n)+.*)", text).group(1)
    return {tuple(x.strip() for x in row.split(",")) for row in re.findall(r"X\(([^)]*)\)", body)}


def compare(what, code, model):
    assert code, f"handover.h has no {what}"
    assert code == model, f"{what}: only in handover.h {sorted(code - model)}, only in the model {sorted(model - code)}"


def compare_tables(header, model):
    steps = {(name.removeprefix("STEP_"), side, a, b) for name, side, a, b in re.findall(r"^#define (\w+) +step\((\w+), (\w+), (\w+)\)", model, re.M)}
    compare("steps", rows(header, "HANDOVER_STEPS"), steps)
    news = set(re.findall(r"^\t:: news == (\w+) +-> follows = (\w+)", model, re.M))
    compare("news", rows(header, "HANDOVER_NEWS"), news)
    records = {(r, lock, n) for r, lock, n in re.findall(r"^\t:: record == (\w+) && (\w+) +-> news = (\w+)", model, re.M)}
    records |= {(r, "FREE", n) for r, n in re.findall(r"^\t:: record == (\w+) +-> news = (\w+)", model, re.M)}
    compare("records", rows(header, "HANDOVER_RECORDS"), records)
    states = set(re.findall(r"^\tSTATE_(\w+),", header, re.M))
    used = {s for row in steps for s in row[2:]}
    compare("states", states, used)


def check(model, faults, *defines, optimize="-O1"):
    """How many errors spin finds, and what it says."""
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "m.pml"), "w", encoding="ascii") as f:
            f.write(model)

        def do(*command):
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
            return done.stdout
        do("spin", "-a", f"-DFAULTS={faults}", *defines, "m.pml")
        do(*CC, optimize, "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c")
        out = do("./pan", "-E", "-m100000")
        found = re.search(r"errors: (\d+)", out)
        assert found and "max search depth too small" not in out and "out of memory" not in out, out
        return int(found.group(1)), out


def main():
    with open(HEADER, encoding="utf-8") as f:
        header = f.read()
    with open(MODEL, encoding="utf-8") as f:
        model = f.read()
    compare_tables(header, model)
    for faults, defines in ((3, ()), (2, ("-DSEATED",))):
        errors, out = check(model, faults, *defines)
        assert errors == 0, f"{faults} faults {defines}: {out}"
        print(f"{faults} faults {' '.join(defines)}: {re.search(r'([0-9.e+]+) states, stored', out).group(1)} states, no error")
    for name, (pattern, replacement) in MISTAKES.items():
        wrong, n = re.subn(pattern, replacement, model)
        assert n == 1, f"{name}: found {n} places for it in the model"
        errors, out = check(wrong, 2, optimize="-O0")
        assert errors > 0, f"a mistake was not found: {name}"
        print(f"found: {name}")


main()
