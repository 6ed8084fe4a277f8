#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./dev protect [--only failover,asked,overhead,partitions] [--units N] [--rounds N] [--partitions N] [--lease S] [--json FILE]: what protection costs, what is lost when a node dies, and whether a unit is ever there twice.

Three hosts and etcd on a fourth. *failover*: units are protected on a host, which dies: time until all run elsewhere, and what they had done since their last copy, by their own count. *asked*: the same without etcd, from `godwit
failover` on. *overhead*: how much slower a program is that computes and writes to its memory. *partitions*: the host of a unit is cut off from all, or from etcd, or its daemons are stopped; each time the unit must have ended
there before it begins elsewhere, which it writes down itself, fifty times a second. Status 1 when it has not.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "tests/e2e"))
import lab_driver  # noqa: E402
import test_protect as protect  # noqa: E402
from lab_driver import STATE, inside, kill, lab, popen, processes, wait_until  # noqa: E402

HOSTS = ("n1", "n2", "n3")
PARTS = ("failover", "asked", "overhead", "partitions")
PATIENCE_SECONDS = 60

# Computes, and writes to all of its memory in turn; says every half second how far it is.
WORKER = """
import sys, time
memory, n, last = bytearray(64 << 20), 0, time.monotonic()
while True:
    for i in range(2000):
        n += 1
        memory[n * 4096 % len(memory)] = n & 255
    if time.monotonic() - last > 0.5:
        last = time.monotonic()
        with open(sys.argv[1], "a") as f:
            f.write("%d %.3f\\n" % (n, last))
"""


def start_etcd(lease_s):
    inside("x1", "rm", "-rf", "/tmp/etcd")
    etcd = popen("x1", "etcd", "--data-dir", "/tmp/etcd", "--listen-client-urls", "http://10.66.0.101:2379", "--advertise-client-urls", "http://10.66.0.101:2379", "--listen-peer-urls",
                 "http://127.0.0.1:2380", stdin=-3, stdout=-3, stderr=-3)
    wait_until("etcd", lambda: "true" in inside("x1", "curl", "-s", "http://10.66.0.101:2379/health", check=False).stdout, 20)
    for host in HOSTS:
        use_etcd(host, lease_s)
    return etcd


def use_etcd(host, lease_s):
    """A host that the lab starts has the lab's configuration."""
    with open(os.path.join(STATE, f"hosts/{host}/etc/godwit.conf"), "a") as f:
        f.write(protect.ETCD.format(name=host, address=f"10.66.0.{HOSTS.index(host) + 1}").replace("etcd_lease_s = 4", f"etcd_lease_s = {lease_s}"))
    lab("restart-daemon", host)


def protect_all(counters, every, copies=2):
    """Several at a time; until all have a copy of what is now."""
    todo = list(counters)
    while todo:
        batch, todo = todo[:5], todo[5:]
        asked = [popen(c.host, "godwit", "protect", str(c.pid), "--every", every, "--copies", str(copies), stdout=-3) for c in batch]
        assert not any(p.wait() for p in asked)


def clean(made, options, counters):
    for counter in counters:
        counter.end()
    for host in HOSTS:
        if lab_driver.init_of(host) is None:
            lab("start", host)
            if options.store:
                use_etcd(host, options.lease)
    wait_until("all is told", lambda: not any(p.name == "godwit-protect" for host in HOSTS for p in processes(host)), 60)
    for host in HOSTS:
        inside(host, "sh", "-c", f"rm -rf /var/lib/godwit/{host}.copies/*", check=False)
    made.mend()


def one_failover(made, options, asked):
    """Seconds until each runs elsewhere, and seconds of work that each has lost."""
    counters = [protect.Counter(made, "n1") for _ in range(options.units)]
    try:
        protect_all(counters, options.every)
        time.sleep(random.random() * 5)     # anywhere between two copies
        for counter in counters[::4]:
            protect.wait_copy(counter, PATIENCE_SECONDS)
        lab("kill", "n1")
        died = time.time()
        if asked:
            done = protect.godwit("n2", "failover", "n1", "--yes")
            assert len(done["restored"]) == options.units, done
        after = []
        for counter in counters:
            wait_until(f"{counter.unit} runs elsewhere", lambda c=counter: c.lines()[-1][2] != "n1", PATIENCE_SECONDS)
            before = {n: when for n, when, host in counter.lines() if host == "n1"}
            first = next((n, when) for n, when, host in counter.lines() if host != "n1")
            assert len(counter.hosts()) == 1 and len(counter.ran_on()) == 2, (counter.unit, counter.hosts(), counter.ran_on())
            after.append((first[1] - died, max(before.values()) - before.get(first[0] - 1, before[max(before)])))
        return after
    finally:
        clean(made, options, counters)


def failovers(made, options, asked):
    rounds = []
    for i in range(options.rounds):
        after = one_failover(made, options, asked)
        begun, lost = [a for a, _ in after], [b for _, b in after]
        rounds.append({"first_s": min(begun), "all_s": max(begun), "lost_median_s": statistics.median(lost), "lost_most_s": max(lost)})
        print(f"{'asked' if asked else 'failover'} {i + 1}: {options.units} units, every {options.every}: the first runs after {min(begun):.2f} s, all after {max(begun):.2f} s; "
              f"lost {statistics.median(lost):.2f} s (median), {max(lost):.2f} s (most)", flush=True)
    return rounds


def speed(path, seconds):
    lines = [line.split() for line in lab_driver.read(path).splitlines() if line.count(" ") == 1]
    last = [(int(n), float(when)) for n, when in lines if float(when) > float(lines[-1][1]) - seconds]
    return (last[-1][0] - last[0][0]) / (last[-1][1] - last[0][1])


def overhead(made, options):
    worker = protect.Counter(made, "n1", WORKER)
    result = {}
    try:
        for every in (None, "5s", "1s", None):
            if every:
                protect.godwit("n1", "protect", worker.pid, "--every", every, "--copies", "2")
            elif result:
                protect.godwit("n1", "unprotect", worker.pid)
            time.sleep(options.seconds + 1)
            rate = speed(worker.path, options.seconds)
            unit = protect.unit_of("n1", worker) or {}
            name = every or ("without" if not result else "without, again")
            result[name] = {"rate": rate, "freeze_us": unit.get("protect_freeze_us"), "bytes": unit.get("protect_bytes")}
            print(f"overhead {name}: {rate / 1e6:.2f} million steps a second" + (f"; it stood still for {unit['protect_freeze_us'] / 1000:.1f} ms" if every else ""), flush=True)
    finally:
        clean(made, options, [worker])
    return result


DAEMONS = ("godwitd", "godwit-cluster", "godwit-etcd", "godwit-protect")


def cut(host, verb):
    protect.cut_off(host, verb)


def cut_store(host, verb):
    lab(verb, host, "x1")


def hang(host, verb):
    for p in processes(host):
        if p.name in DAEMONS:
            kill(p.pid, signal.SIGSTOP if verb == "cut" else signal.SIGCONT)


def partitions(made, options):
    """A unit is driven from host to host."""
    counter, counted, twice = protect.Counter(made, "n1"), {}, 0
    try:
        protect_all([counter], "300ms")
        protect.wait_copy(counter)
        for i in range(options.partitions):
            kind, here, seen = random.choice((cut, cut, cut_store, hang)), counter.hosts()[0], len(counter.ran_on())
            kind(here, "cut")
            begun = time.time()
            try:
                wait_until("it runs elsewhere", lambda: set(counter.hosts()) - {here}, PATIENCE_SECONDS)
            finally:
                kind(here, "heal")
            took = time.time() - begun
            wait_until("it is copied to two nodes again", lambda: (protect.unit_of(counter.hosts()[0], counter) or {}).get("protect_have") == 2, PATIENCE_SECONDS, 0.2)
            ran, now = counter.ran_on(), counter.hosts()
            wrong = len(now) != 1 or ran[-1] != now[0] or any(a == b for a, b in zip(ran, ran[1:])) or len(ran) < seen + 1 or len(ran) > seen + 2
            twice += wrong
            counted.setdefault(kind.__name__, []).append(took)
            print(f"partition {i + 1}: {kind.__name__} {here}: on {now[0]} after {took:.1f} s{'  WRONG: ' + str((ran[seen - 1:], now)) if wrong else ''}", flush=True)
            counter.host = now[0]
    finally:
        clean(made, options, [counter])
    for kind, took in sorted(counted.items()):
        print(f"{kind:10} {len(took):4} times, elsewhere after {statistics.median(took):.1f} s ({min(took):.1f} to {max(took):.1f})")
    print(f"there twice, or interleaved: {twice}")
    return {"times": {k: v for k, v in counted.items()}, "twice": twice}


def main():
    parser = argparse.ArgumentParser(prog="./dev protect", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--units", type=int, default=20)
    parser.add_argument("--every", default="5s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=100)
    parser.add_argument("--lease", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json")
    options = parser.parse_args()
    only, result = options.only.split(","), {"units": options.units, "every": options.every, "lease_s": options.lease}
    options.store = None
    made = lab_driver.Lab(3)
    try:
        if "asked" in only:
            result["asked"] = failovers(made, options, True)
        if "overhead" in only:
            result["overhead"] = overhead(made, options)
        if "failover" in only or "partitions" in only:
            options.store = start_etcd(options.lease)
        if "failover" in only:
            result["failover"] = failovers(made, options, False)
        if "partitions" in only:
            result["partitions"] = partitions(made, options)
    finally:
        made.down()
    if options.json:
        with open(options.json, "w") as f:
            json.dump(result, f, indent=1)
    sys.exit(result.get("partitions", {}).get("twice", 0) > 0)


if __name__ == "__main__":
    main()
