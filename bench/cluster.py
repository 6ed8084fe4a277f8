#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster layer, live: bench/cluster.py [balance] [memory] [drain] [--json FILE], or ./dev bench --only cluster.

Four hosts of the lab that have parts of this machine (control groups: CPU and memory).

- balance: jobs with heavy-tailed work (P(W > w) = 1 / w between two bounds, always the same ones) begin at once on n1, as children of one shell. Time until all have ended: with balancing off,
  on, and placed beforehand by who knows how long each takes (longest first, to where it ends first).
- memory: jobs whose memory grows, together beyond what n1 has. Every one must end well; what the kernel says of the group (limit hit, killed) is told.
- drain: 50 units, each with 4 MiB, that wait; time until the node is empty, with 4 and 16 moves at once.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import victims as v  # noqa: E402
from victims import BenchError  # noqa: E402

BURN = os.path.join(v.BUILD, "bench/burn")
HOSTS = ["n1", "n2", "n3", "n4"]
CORES = {"n1": 0.3, "n2": 0.5, "n3": 0.4, "n4": 0.4}     # of the machine's two: what is left is for what no group limits
MEMORY_MIB = 256
JOBS, WORK_MIN_S, WORK_MAX_S, SEED = 24, 0.25, 6, 1
UNITS = 50
GROWING, GROW_MIB, GROW_MIB_S = 6, 60, 4


def works():
    """CPU seconds of each job: a Pareto distribution with exponent 1, cut off."""
    rng = random.Random(SEED)
    return [1 / (1 / WORK_MIN_S - rng.random() * (1 / WORK_MIN_S - 1 / WORK_MAX_S)) for _ in range(JOBS)]


def say(text):
    print(text, flush=True)


class Cluster:
    def __init__(self, cores):
        self.cores = cores

    def __enter__(self):
        v.dev_lab("up", str(len(HOSTS)), "--force")
        for host in HOSTS:
            v.dev_lab("limit", host, f"{MEMORY_MIB}M", "--cpu", str(self.cores[host]))
        time.sleep(3)       # until everybody has measured that, and told the others
        return self

    def __exit__(self, *_):
        v.dev_lab("down", check=False)


def godwit(host, *arguments, check=True):
    return json.loads(v.inside(host, "godwit", *arguments, "--json", check=check).stdout)


def run_shell(host, script, timeout=220):
    """Seconds until the script has ended on the host, and what it said."""
    begun = time.monotonic()
    done = v.inside(host, "bash", "-c", script, check=False, timeout=timeout)
    return time.monotonic() - begun, done


def moves():
    return sum(state["moves"] for state in (godwit(host, "balance", "status") for host in HOSTS))


def jobs_script(command, jobs):
    """Starts all at once; ends with all, and says how many did not end well."""
    lines = "".join(f"{command} {BURN} {job} & pids+=($!)\n" for job in jobs)
    return f'pids=()\n{lines}bad=0\nfor p in "${{pids[@]}}"; do wait $p || bad=$((bad+1)); done\necho $bad'


def on_one(per_s, balancing):
    godwit("n1", "balance", "on" if balancing else "off", "--all")
    before = moves()
    took, done = run_shell("n1", jobs_script("godwit run --", [int(per_s * w) for w in works()]))
    if done.stdout.strip() != "0":
        raise BenchError(f"jobs that did not end well: {done.stdout} {done.stderr[-300:]}")
    return {"seconds": took, "moves": moves() - before}


def placed(per_s):
    """By who knows everything: the longest first, each to where it ends first; all of a host's are started at once, as above."""
    load, jobs = dict.fromkeys(HOSTS, 0.0), {host: [] for host in HOSTS}
    for w in sorted(works(), reverse=True):
        best = min(HOSTS, key=lambda h: (load[h] + w) / CORES[h])
        load[best] += w
        jobs[best].append(int(per_s * w))
    begun = time.monotonic()
    running = [subprocess.Popen([os.path.join(v.ROOT, "dev"), "lab", "exec", host, "--", "bash", "-c", jobs_script("", jobs[host])], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, text=True) for host in HOSTS]
    bad = [p.communicate()[0].strip() for p in running]
    if any(word != "0" for word in bad):
        raise BenchError(f"placed jobs that did not end well: {bad}")
    return {"seconds": time.monotonic() - begun, "bound_s": max(load[h] / CORES[h] for h in HOSTS)}


def balance():
    per_s = float(subprocess.run([BURN, "0"], capture_output=True, text=True, check=True).stdout.split()[0])
    say(f"balance: {JOBS} jobs of {sum(works()):.1f} s CPU in all (the longest {max(works()):.1f} s, the median {sorted(works())[JOBS // 2]:.2f} s), hosts with {CORES} CPUs")
    found = {}
    with Cluster(CORES):
        found["placed"] = placed(per_s)
        say(f"  placed beforehand: {found['placed']['seconds']:.1f} s (the sum of work over CPUs: {found['placed']['bound_s']:.1f} s)")
        found["on"] = on_one(per_s, True)
        say(f"  balancing on:      {found['on']['seconds']:.1f} s, {found['on']['moves']} moves")
        found["off"] = on_one(per_s, False)
        say(f"  balancing off:     {found['off']['seconds']:.1f} s")
    return found


def group_file(host, v1, v2):
    directory, is_v2 = v.lab.group_kind("memory")
    return v.read_text(os.path.join(directory, host, v2 if is_v2 else v1))


def paging(host):
    """What the kernel has counted of a host's group: pages that had to be read because they had been dropped or swapped out (major faults), and how often it reclaimed memory for the limit's sake."""
    counters = dict(line.split() for line in group_file(host, "memory.stat", "memory.stat").splitlines())
    hits = group_file(host, "memory.failcnt", "memory.events.local")
    return {"major_faults": int(counters.get("total_pgmajfault", counters.get("pgmajfault", 0))), "swap_mib": int(counters.get("total_swap", 0)) >> 20,
            "limit_hit": int((hits.partition("max ")[2] or hits).split()[0])}


def memory():
    say(f"memory: {GROWING} jobs on n1 that grow to {GROW_MIB} MiB each at {GROW_MIB_S} MiB/s, hosts with {MEMORY_MIB} MiB")
    found = {}
    for on in (True, False):
        with Cluster(dict.fromkeys(HOSTS, "none")):
            godwit("n1", "balance", "on" if on else "off", "--all")
            before = [paging(host) for host in HOSTS]
            took, done = run_shell("n1", jobs_script("godwit run --", [f"1000000 {GROW_MIB} {GROW_MIB_S}"] * GROWING))
            paged = [{name: after - old[name] for name, after in paging(host).items()} for host, old in zip(HOSTS, before)]
            killed = [group_file(host, "memory.oom_control", "memory.events").partition("oom_kill ")[2].split("\n")[0] for host in HOSTS]
            word = "on" if on else "off"
            found[word] = {"seconds": took, "not_well": int(done.stdout.split()[-1]), "killed": killed, "paging": paged, "moves": moves()}
            say(f"  balancing {word}: {found[word]['not_well']} of {GROWING} did not end well; killed on each host {killed}; {found[word]['moves']} moves, {took:.1f} s")
            say(f"    of each host: major faults {[p['major_faults'] for p in paged]}, memory limit hit {[p['limit_hit'] for p in paged]}, swapped {[p['swap_mib'] for p in paged]} MiB")
    return found


def drain():
    say(f"drain: {UNITS} units of 4 MiB that wait")
    found = {}
    for parallel in (4, 16):
        v.dev_lab("up", str(len(HOSTS)), "--force")
        try:
            starter = subprocess.Popen([os.path.join(v.ROOT, "dev"), "lab", "exec", "n1", "--", "bash", "-c",
                                        f"for i in $(seq {UNITS}); do godwit run -- {BURN} -1 4 & done; wait"], stdin=subprocess.DEVNULL)
            while len(godwit("n1", "ps")["units"]) < UNITS:
                time.sleep(0.1)
            time.sleep(1)
            begun = time.monotonic()
            result = godwit("n1", "drain", "--parallel", str(parallel), check=False)
            took = time.monotonic() - begun
            alive = {host: len(v.processes(host, BURN)) for host in HOSTS}
            freezes = sorted(m["freeze_us"] / 1000 for m in result["moved"])
            found[parallel] = {"seconds": took, "moved": len(result["moved"]), "stayed": len(result["stayed"]), "alive": alive, "freeze_ms": freezes}
            say(f"  {parallel} at once: {took:.1f} s, {len(result['moved'])} moved, {len(result['stayed'])} stayed; now {alive}; stood still for {freezes[len(freezes) // 2]:.1f} ms"
                f" (median; {freezes[0]:.1f} to {freezes[-1]:.1f})")
            for host in HOSTS:
                v.inside(host, "pkill", "-f", BURN, check=False)
            starter.wait()
        finally:
            v.dev_lab("down", check=False)
    return found


PARTS = {"balance": balance, "memory": memory, "drain": drain}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which of them; all when none is named")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        found = {name: PARTS[name]() for name in options.parts or PARTS}
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(found, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
