# SPDX-License-Identifier: GPL-2.0-or-later
"""What redirection costs: a server that has moved from n1 to n2, called at its old address, against one that has always been on n2.

Both are the same program on the same host, and both figures of a ratio are taken one right after the other, in turns which first: the machine drifts by more than what is looked for. Both
ends run on one CPU: where the scheduler puts them changes the figures by more than half.
"""

import json

import victims as v
from victims import BenchError

MOVED_PORT = 5001
MIB, QUESTIONS = 384, 8000
CPU = "@0"
PATHS = (("n3", "a host with Godwit, which sends there itself"), ("n1", "the host that was left"), ("x1", "a host without Godwit: n1 forwards"))


class Server(v.Process):
    """The barelink that moves, beside the one that each host has."""

    def candidates(self):
        return [pid for pid in super().candidates() if f"serve\0{MOVED_PORT}" in v.read_text(f"/proc/{pid}/cmdline")]


def call(host, verb, address, port, amount):
    return json.loads(v.inside(host, v.BARELINK, verb, address, str(port), str(amount), CPU).stdout)


def both(host, verb, amount, turn):
    """(direct, redirected), of one measurement each."""
    found = {}
    for moved in ((False, True) if turn % 2 else (True, False)):
        where = (v.lab.address("n1"), MOVED_PORT) if moved else (v.lab.address("n2"), v.BARE_PORT)
        found[moved] = call(host, verb, *where, amount)
    return found[False], found[True]


def knows(host):
    listed = json.loads(v.inside(host, "godwit", "connections", "--json").stdout)["connections"]
    return any(c["address"] == f"{v.lab.address('n1')}:{MOVED_PORT}" and c["state"] == "there" for c in listed)


def measure_path(bench, host, what, strict):
    t, raw = bench.table, {}
    t.heading(f"redirected connections from {host}: {what}")
    for verb, name in (("push", "stream to the server"), ("pull", "stream from the server")):
        pairs = [both(host, verb, MIB, i) for i in range(bench.runs + 1)][1:]
        t.add(f"{name}, direct", [d["gib_per_s"] for d, _ in pairs], "GiB/s")
        t.add(f"{name}, redirected", [r["gib_per_s"] for _, r in pairs], "GiB/s")
        ratios = [100 * r["gib_per_s"] / d["gib_per_s"] for d, r in pairs]
        t.add("  of the direct one", ratios, "%", ">= 95 %" if strict else None, (lambda x: x >= 95) if strict else None)
        raw[verb] = pairs
    pairs = [both(host, "ask", QUESTIONS, i) for i in range(bench.runs + 1)][1:]
    t.add("request and reply, direct", [d["median_us"] for d, _ in pairs], "us")
    t.add("request and reply, redirected", [r["median_us"] for _, r in pairs], "us")
    t.add("  of the direct one", [100 * r["median_us"] / d["median_us"] for d, r in pairs], "%", "<= 105 %" if strict else None, (lambda x: x <= 105) if strict else None)
    t.add("  more than the direct one", [r["median_us"] - d["median_us"] for d, r in pairs], "us")
    raw["ask"] = pairs
    bench.raw[f"redirect {host}"] = raw


def measure(bench):
    server = Server(v.BARELINK, "n1")
    try:
        v.start_in("n1", v.BARELINK, "serve", str(MOVED_PORT))
        server.find()
        v.wait_until("it listens", lambda: not v.inside("n3", v.BARELINK, "ask", v.lab.address("n1"), str(MOVED_PORT), "1", check=False).returncode)
        v.migrate(server, "freeze-free")
        v.wait_until("n3 has heard of it", lambda: knows("n3"), 60)
        for host, what in PATHS:
            measure_path(bench, host, what, strict=host == "n3")
    except (BenchError, OSError, ValueError) as e:
        bench.table.failed("redirect", e)
    finally:
        v.lab.end_processes([pid for host in ("n1", "n2") for pid in v.processes(host, v.BARELINK) if f"serve\0{MOVED_PORT}" in v.read_text(f"/proc/{pid}/cmdline")], 9)
