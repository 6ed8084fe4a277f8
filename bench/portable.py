#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bench/portable.py [--runs N] [--mib N]: what libgodwit-portable costs, beside the engine. On a machine that does nothing else.

A loop with a point in each turn against one without (alternating, the quickest of all runs each: what disturbs only makes slower); how fast a state is written and read; and the
same state moved to and fro between two hosts of a lab by its description and by the engine: bytes and time.
"""

import argparse
import json
import os
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
BUILD = os.path.realpath(os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build"))
PROGRAM = os.path.join(BUILD, "bench/portable")
ENVIRONMENT = {**os.environ, "GODWIT_BUILD": BUILD, "GODWIT_LAB": os.environ.get("GODWIT_LAB", "po")}
KINDS = {"doubles": "an array of doubles", "structs": "structures with holes", "list": "objects with pointers"}


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout


def inside(host, *command):
    return said(os.path.join(ROOT, "dev"), "lab", "exec", host, "--", *command)


def loops(runs):
    best = {"bare": 1e9, "points": 1e9}
    for _ in range(runs):
        for kind in best:
            best[kind] = min(best[kind], float(said(PROGRAM, "loop", kind, "20").split()[0]))
    print(f"a turn of {best['bare']:.2f} ns with a point in it: {best['points']:.2f} ns, {100 * (best['points'] / best['bare'] - 1):+.2f} %")


def translation(runs, mib):
    for kind, text in KINDS.items():
        results = [[float(x) for x in said(PROGRAM, "state", kind, str(mib)).split()] for _ in range(runs)]
        print(f"{text}, {mib} MiB in memory: written at {max(r[0] for r in results):.2f} GiB/s, read at {max(r[1] for r in results):.2f} GiB/s, {results[0][2] / 2**20:.1f} MiB of state")


def moves(runs, mib, kind):
    """Of a unit that goes to and fro, by each way."""
    out = os.path.join(BUILD, "bench", "portable.out")
    inside("n1", "sh", "-c", f"{PROGRAM} hold {kind} {mib} >{out} 2>&1 </dev/null & echo $! >{out}.pid")
    with open(f"{out}.pid", encoding="ascii") as f:
        unit, at = f"n1:{f.read().strip()}", 0
    time.sleep(1 + mib / 100)
    for way, option in (("by its description", "--portable"), ("by the engine, stop-copy", "--strategy=stop-copy"), ("by the engine, freeze-free", "--strategy=freeze-free")):
        results = []
        for _ in range(runs):
            results.append(json.loads(inside(f"n{at + 1}", "godwit", "migrate", "--json", option, unit, f"n{2 - at}")))
            at = 1 - at
            time.sleep(0.5)
        best = min(results, key=lambda r: r["total_ms"])
        print(f"{KINDS[kind]}, {mib} MiB, {way}: stood still {best['freeze_us'] / 1000:.1f} ms, {best['total_ms']:.0f} ms in all, {best['bytes_sent'] / 2**20:.1f} MiB sent")
    pid = [u["pid"] for u in json.loads(inside(f"n{at + 1}", "godwit", "ps", "--json"))["units"] if u["unit"] == unit][0]
    inside(f"n{at + 1}", "kill", str(pid))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=128)
    options = parser.parse_args()
    loops(2 * options.runs)
    translation(options.runs, options.mib)
    said(os.path.join(ROOT, "dev"), "lab", "up", "2")
    try:
        for kind in KINDS:
            moves(options.runs, options.mib if kind != "list" else options.mib // 4, kind)
    finally:
        said(os.path.join(ROOT, "dev"), "lab", "down")


main()
