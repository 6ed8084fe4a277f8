#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./dev bench [--quick] [--runs N] [--sizes MIB,...] [--only WORD,...] [--minutes M] [--json FILE]: measures migrations between two hosts of a lab made for it.

How each figure is taken is said in docs/benchmarks.md. A program moves to and fro between n1 and n2, once a run, and every word of
its memory is checked after each move. What is compared with the bare link is compared within the same run.
The figures are printed with their targets; a missed target is no failure (exit status 0), a migration that fails or loses data is (1).
"""

import argparse
import itertools
import json
import mmap
import os
import platform
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import cluster  # noqa: E402
import conns  # noqa: E402
import redirected  # noqa: E402
import timeline  # noqa: E402
import victims as v  # noqa: E402
from victims import BenchError  # noqa: E402

MS = 1000000
VALUES = os.path.join(v.ROOT, "tools/demo_values.py")


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def median(values):
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def number(x):
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}".rstrip("0").rstrip(".")


class Table:
    """Figures with their targets, printed as they come."""

    def __init__(self):
        self.rows, self.failures = [], []
        self.color = sys.stdout.isatty()

    def heading(self, text):
        print(f"\n{text}", flush=True)
        print(f"  {'':<46} {'median':>8} {'':<6}{'range':>18} {'p99':>9}   target", flush=True)

    def paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.color else text

    def add(self, name, values, unit, target=None, holds=None, figure=None):
        """A row. holds: what the median (or `figure`) must satisfy; None: reported only."""
        values = [x for x in values if x is not None]
        if not values:
            return None
        m = median(values)
        judged = figure if figure is not None else m
        passed = None if holds is None else bool(holds(judged))
        text = f"{number(min(values))} to {number(max(values))}"
        verdict = "" if passed is None else self.paint("32", "pass") if passed else self.paint("31;1", "MISS")
        print(f"  {name:<46} {number(m):>8} {unit:<6}{text:>18} {number(quantile(values, 0.99)):>9}   {target or '(reported)'}  {verdict}", flush=True)
        self.rows.append({"name": name, "unit": unit, "median": m, "min": min(values), "max": max(values), "p99": quantile(values, 0.99),
                          "target": target, "pass": passed, "judged": judged, "values": values})
        return m

    def failed(self, name, error):
        print(f"  {name:<46} {self.paint('31;1', 'FAILED')}: {error}", flush=True)
        self.failures.append({"name": name, "error": str(error)})


def warm_up(mib):
    """Touches memory once, so that a hypervisor that has not given it yet does so now and not in the first run."""
    available = next(int(line.split()[1]) // 1024 for line in v.read_text("/proc/meminfo").splitlines() if line.startswith("MemAvailable"))
    pid = os.fork()
    if pid == 0:
        mmap.mmap(-1, min(mib, available * 7 // 10) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x8000)
        os._exit(0)
    os.waitpid(pid, 0)


def freeze_pause(pauses, report):
    """The pause that is the freeze: the longest of those that touch the time in which godwit says that the process stood still."""
    since = report["stopped_at_ns"]
    until = since + 1000 * report["freeze_us"]
    return max((p for p in pauses if p[0] <= until and p[0] + p[1] >= since), key=lambda p: p[1], default=(since, until - since))


def move(gap, strategy, layout_before=None, settle_s=0.6, verify=True):
    """One move and everything that the program saw of it."""
    before_ns = time.time_ns()
    report = v.migrate(gap, strategy)
    time.sleep(settle_s)
    after_ns = time.time_ns()
    pauses, marks = gap.pauses(report["began_ns"]), gap.marks()
    start, length = freeze_pause(pauses, report)
    resumed = start + length
    normal = v.rate(marks, before_ns - 500 * MS, before_ns)
    later = [p[1] for p in pauses if p[0] >= resumed]
    run = {
        "strategy": strategy, "mib": gap.mib, "report": report,
        "largest_gap_us": max((p[1] for p in pauses), default=0) / 1000,
        "freeze_us": length / 1000,
        "reported_freeze_us": report["freeze_us"],
        "total_ms": (report["ended_ns"] - report["began_ns"]) / MS,
        "push_ms": max(0.001, (report["ended_ns"] - resumed) / MS),
        "before_gap_us": max((p[1] for p in pauses if p[0] < start), default=0) / 1000,
        "later_gap_ms": max(later, default=0) / MS,
        "fault_us": [x / 1000 for x in later[:4000]],
        "progress": v.iterations_between(marks, resumed, resumed + 100 * MS) / (normal * 0.1) if normal else None,
        "speed_after": (v.rate(marks, after_ns - (settle_s * 1e9 - 100 * MS), after_ns) or 0) / normal if normal else None,
    }
    run["push_gib_s"] = report["bytes_sent"] / 2**30 / (run["push_ms"] / 1000)
    if layout_before is not None:
        run["attached"] = v.attached(gap.pid, layout_before)
    if verify:
        run["bad_words"] = gap.verify()
        if run["bad_words"]:
            raise BenchError(f"{run['bad_words']} words of the memory are wrong after {strategy} of {gap.mib} MiB")
    return run


LEAST_RUNS = 3


class Budget:
    """The time that there is (--minutes), shared out among the series of runs by what they weigh: by the memory that they move."""

    def __init__(self, minutes, weights):
        self.ends = time.monotonic() + 60 * minutes if minutes else None
        self.weights = dict(weights)

    def runs(self, name, most):
        """Counts to `most`, or until the share of that series is used up, but to LEAST_RUNS in any case."""
        began = time.monotonic()
        weight = self.weights.pop(name, 0)
        left = weight + sum(self.weights.values())
        until = began + max(0, self.ends - began) * weight / left if self.ends and left else None
        for i in range(most):
            now = time.monotonic()
            if until and i >= LEAST_RUNS and now + (now - began) / i > until:
                print(f"  note: {i} runs of {most}, in the time there was: {name}", flush=True)
                return
            yield i


class Bench:
    """The scenarios. Each keeps its raw runs for the JSON file."""

    def __init__(self, options):
        self.options, self.table, self.raw = options, Table(), {}
        self.runs = options.runs or (3 if options.quick else 10)
        self.sizes = options.sizes or ([16, 256] if options.quick else [16, 256, 1024, 4096])
        self.load = os.getloadavg()[0]
        if self.load > 0.7:
            print(f"note: the load average is {self.load:.1f}; other work on this machine shows in every figure")
        self.big = 256 if options.quick else 1024
        self.budget = Budget(None, {})

    def weights(self, wanted):
        """Of the series that these words stand for; the others are not limited."""
        of = {"freeze": {f"freeze-free {mib}": mib + 512 for mib in self.sizes}, "redis": {"redis": self.big + 512}, "faults": {"faults": 512},
              "strategies": {name: self.big + 512 for name in ("pre-copy", "hybrid", "stop-copy")}}
        return {name: weight for word in wanted for name, weight in of.get(word, {}).items()}

    def series(self, name, make, strategy, runs=None, bare=None, settle_s=0.6):
        """Moves one program to and fro; a failed move is recorded and a new program is started."""
        done, gap, marks = [], None, timeline.Timeline() if self.options.timeline else None
        try:
            for _ in self.budget.runs(name, runs or self.runs):
                try:
                    gap = gap or make()
                    layout = v.layout(gap.pid)
                    link = v.bare("push", gap.host, gap.other(), bare)["gib_per_s"] if bare else None
                    aside = v.bare("push", gap.host, gap.other(), bare, v.cpu_of(gap.pid))["gib_per_s"] if bare else None
                    run = move(gap, strategy, layout, settle_s)
                    run["bare_gib_s"], run["bare_aside_gib_s"] = link, aside
                    if marks:
                        marks.take(gap.other(), gap.host, run["report"]["stopped_at_ns"], run["freeze_us"])
                    done.append(run)
                except (BenchError, OSError, subprocess.TimeoutExpired, StopIteration) as e:
                    self.table.failed(name, e)
                    if gap:
                        gap.end()
                    gap = None
                    if len(self.table.failures) > 12:
                        raise BenchError("too many failures") from e
        finally:
            if gap:
                gap.end()
        if marks and marks.runs:
            print(f"      since the stop; {name}")
            marks.print()
        self.raw[name] = done
        return done

    def machine(self):
        """What the machine does to the program without any migration: the floor of every gap."""
        t = self.table
        t.heading("the machine by itself: the same program, not moved")
        gap, idle, pushed, faults = v.Gap(64, 64), [], [], []
        try:
            for _ in range(self.runs):
                since = time.time_ns()
                time.sleep(1.2)     # some machines have something of their own to do once a second
                idle.append(max((p[1] for p in gap.pauses(since)), default=0) / MS)
                since = time.time_ns()
                v.bare("push", "n1", "n2", 1024)
                pushed.append(max((p[1] for p in gap.pauses(since)), default=0) / MS)
                faults.append(v.bare("ask", "n2", "n1", 2000)["median_us"])
        finally:
            gap.end()
        t.add("largest gap in 1.2 s, nothing else runs", idle, "ms")
        t.add("largest gap while the bare link pushes 1 GiB", pushed, "ms")
        t.add("bare request and reply beside it", faults, "us")

    def freeze(self):
        t = self.table
        t.heading("freeze-free: one thread, working set 64 pages, as the process sees it")
        medians, total, peak = {}, {}, []
        for mib in self.sizes:
            runs = self.series(f"freeze-free {mib}", lambda mib=mib: v.Gap(mib, 64), "freeze-free", bare=mib if mib >= 256 else None)
            if not runs:
                continue
            medians[mib] = t.add(f"freeze, {mib:,} MiB", [r["freeze_us"] for r in runs], "us", "<= 400 us", lambda x: x <= 400)
            peak += [r["freeze_us"] for r in runs]
            t.add("  largest gap in the whole move", [r["largest_gap_us"] for r in runs], "us")
            t.add("  largest gap before the freeze (preparation)", [r["before_gap_us"] for r in runs], "us")
            total[mib] = t.add("  total time", [r["total_ms"] for r in runs], "ms")
            t.add("  later gap", [r["later_gap_ms"] for r in runs], "ms", "<= 5 ms each", lambda x: x <= 5,
                  figure=max(r["later_gap_ms"] for r in runs))
            t.add("  progress in the first 100 ms", [100 * r["progress"] for r in runs if r["progress"] is not None], "%", ">= 85 %",
                  lambda x: x >= 85)
            if mib >= 256:
                t.add("  push", [r["push_gib_s"] for r in runs], "GiB/s")
                t.add("  bare link in the same run", [r["bare_gib_s"] for r in runs], "GiB/s")
                t.add("  bare link, kept off the program's CPU", [r["bare_aside_gib_s"] for r in runs], "GiB/s")
                t.add("  push of the bare link", [100 * r["push_gib_s"] / r["bare_gib_s"] for r in runs], "%", ">= 80 %", lambda x: x >= 80)
            self.after(runs)
        if medians:
            t.add("freeze, all sizes, 99th percentile", peak, "us", "<= 2,000 us", lambda x: x <= 2000, figure=quantile(peak, 0.99))
        if len(medians) > 1:
            t.add("largest median / smallest", [max(medians.values()) / min(medians.values())], "x", "<= 1.5", lambda x: x <= 1.5)
        if 1024 in total and 4096 in total:
            t.add("total time, 4 GiB / 1 GiB", [total[4096] / total[1024]], "x", "linear: 3 to 5", lambda x: 3 <= x <= 5)

    def after(self, runs):
        """A process that has moved: native speed, nothing attached."""
        self.table.add("  speed afterwards", [100 * r["speed_after"] for r in runs if r["speed_after"]], "%", ">= 97 %", lambda x: x >= 97)
        left = sorted({sentence for r in runs for sentence in r["attached"]})
        self.table.add("  runs with something still attached", [sum(bool(r["attached"]) for r in runs)], "", "0", lambda x: x == 0)
        for sentence in left[:6]:
            print(f"      {sentence}")

    def whole(self):
        t = self.table
        t.heading(f"freeze-free: the whole memory as working set, {self.sizes[min(1, len(self.sizes) - 1)]} MiB")
        for pattern in ("sequential", "random"):
            runs = self.series(f"whole {pattern}", lambda p=pattern: v.Gap(self.sizes[min(1, len(self.sizes) - 1)], 0, p), "freeze-free")
            if runs:
                t.add(f"{pattern}: freeze", [r["freeze_us"] for r in runs], "us")
                t.add("  progress in the first 100 ms", [100 * r["progress"] for r in runs if r["progress"] is not None], "%")
                t.add("  pages sent on demand", [r["report"]["pages_faulted"] for r in runs], "")
                t.add("  later gap", [r["later_gap_ms"] for r in runs], "ms")

    def faults(self):
        """copy-on-reference with random accesses: nothing is pushed, each access is a remote fault."""
        t = self.table
        t.heading("remote faults: copy-on-reference, random accesses, 64 MiB, against request and reply of 4 KiB")
        link = [v.bare("ask", "n2", "n1", 5000)["median_us"] for _ in range(self.runs)]
        b = t.add("bare request and reply", link, "us")
        medians, tails, freezes = [], [], []
        for _ in self.budget.runs("faults", min(self.runs, 5)):
            gap = v.Gap(64, 0, "random", 4)
            try:
                pauses = v.migrate_lazily(gap, 1.0)
                start, length = max(pauses, key=lambda p: p[1])
                faults = [x[1] / 1000 for x in pauses if x[0] > start][:4000]
                if faults:
                    medians.append(median(faults))
                    tails.append(quantile(faults, 0.99))
                    freezes.append(length / 1000)
            except (BenchError, OSError) as e:
                t.failed("faults", e)
            finally:
                gap.end()
        t.add("fault, as the process sees it", medians, "us", f"<= {2 * b:.0f} us (2 x bare)", lambda x: x <= 2 * b)
        t.add("  99th percentile of each run", tails, "us")
        t.add("  longest gap (the freeze)", freezes, "us")
        self.raw["faults"] = {"median_us": medians, "p99_us": tails, "freeze_us": freezes}

    def strategies(self):
        t = self.table
        t.heading(f"other strategies, {self.big:,} MiB, 64 pages being written")
        for strategy in ("pre-copy", "hybrid"):
            runs = self.series(strategy, lambda: v.Gap(self.big, 64), strategy)
            if runs:
                t.add(f"{strategy}: freeze", [r["freeze_us"] for r in runs], "us", "<= 1,000 us", lambda x: x <= 1000)
                t.add("  largest gap in the whole move", [r["largest_gap_us"] for r in runs], "us")
                t.add("  total time", [r["total_ms"] for r in runs], "ms")
        runs = self.series("stop-copy", lambda: v.Gap(self.big, 64), "stop-copy", bare=self.big)
        if runs:
            speed = [r["report"]["bytes_sent"] / 2**30 / (r["freeze_us"] / 1e6) for r in runs]
            t.add("stop-copy: freeze", [r["freeze_us"] / 1000 for r in runs], "ms")
            t.add("  copying", speed, "GiB/s")
            t.add("  of the bare link in the same run", [100 * s / r["bare_gib_s"] for s, r in zip(speed, runs)], "%", ">= 70 %", lambda x: x >= 70)

    def crowds(self):
        t = self.table
        t.heading("freeze-free: what else there is beside the busy thread, 16 MiB")
        wanted = self.options.crowds.split(",") if self.options.crowds else None
        for crowd, target_ms in (("threads=8", 0.8), ("threads=64", 3), ("threads=512", 20), ("processes=8", 2), ("processes=64", 10), ("mappings=20000", 3),
                                 ("descriptors=10000", 3)):
            if wanted and crowd not in wanted:
                continue
            kind, n = crowd.split("=")
            runs = self.series(f"{int(n):,} {kind}", lambda crowd=crowd: v.Gap(16, 64, crowd=crowd), "freeze-free", runs=self.options.runs or 5)
            if runs:
                t.add(f"{int(n):,} {kind}: freeze", [r["freeze_us"] for r in runs], "us", f"<= {target_ms * 1000:,.0f} us", lambda x, most=target_ms: x <= most * 1000)
                t.add("  total time", [r["total_ms"] for r in runs], "ms")

    def redis(self):
        t = self.table
        mib = self.big
        t.heading(f"redis-server, {mib:,} MiB, its default threads")
        server = v.Process("redis-server", "n1")
        program = "redis-check-rdb"     # Debian's redis-server is a link to it
        freezes, totals = [], []
        try:
            v.start_in("n1", "redis-server", "--save", "", "--dir", "/", "--bind", "0.0.0.0", "--protected-mode", "no")
            server.program = v.wait_until("redis-server starts", lambda: next((p for p in ("redis-server", program) if v.processes("n1", p)), None))
            v.wait_until("redis answers", lambda: v.inside("n1", "redis-cli", "PING", check=False).stdout.strip() == "PONG")
            keys = mib * 1048576 // 4096
            v.inside("n1", "sh", "-c", f"/usr/bin/python3 -I {VALUES} fill {keys} | redis-cli --pipe")
            server.find()
            for _ in self.budget.runs("redis", self.runs):
                report = v.migrate(server, "freeze-free")
                freezes.append(report["freeze_us"])
                totals.append((report["ended_ns"] - report["began_ns"]) / MS)
                if v.inside(server.host, "redis-cli", "DBSIZE").stdout.strip() != str(keys):
                    raise BenchError("redis has not all of its keys")
                time.sleep(0.2)
            done = v.inside(server.host, "/usr/bin/python3", "-I", VALUES, "verify", str(keys), check=False)
            if done.returncode != 0:
                raise BenchError(f"redis: {(done.stdout + done.stderr).strip()}")
        except (BenchError, OSError, subprocess.TimeoutExpired) as e:
            t.failed("redis", e)
        finally:
            server.end()
        t.add("freeze, as godwit measured it", freezes, "us", "<= 1,000 us", lambda x: x <= 1000)
        t.add("total time", totals, "ms")
        self.raw["redis"] = {"freeze_us": freezes, "total_ms": totals}

    def tcp(self):
        """Connections with hosts that stay where they are."""
        t, ports = self.table, itertools.count(conns.PORT)
        try:
            t.heading("TCP: what a peer of the moved server hears")
            self.raw["tcp gaps"] = conns.gaps(t, self.runs, ports)
            t.heading("TCP: what connections with an outside peer add to the freeze")
            self.raw["tcp costs"] = conns.costs(t, self.runs, self.options.connections or [1, 100, 1000, 10000], ports, self.options.timeline)
        except (BenchError, OSError, subprocess.TimeoutExpired) as e:
            t.failed("tcp", e)

    def redirect(self):
        redirected.measure(self)

    def daemon_memory(self):
        """Peak resident memory of godwitd and its workers, sampled while the largest size moves."""
        t = self.table
        mib = self.sizes[-1]
        t.heading(f"memory of godwitd and its workers while {mib:,} MiB move")
        peaks, stop = {}, threading.Event()

        def sample():
            while not stop.is_set():
                for host in ("n1", "n2"):
                    for pid in v.processes(host, "godwitd"):
                        for line in v.read_text(f"/proc/{pid}/status").splitlines():
                            if line.startswith("VmHWM:"):
                                peaks[(host, pid)] = int(line.split()[1]) / 1024
                time.sleep(0.005)

        watcher = threading.Thread(target=sample)
        watcher.start()
        try:
            for strategy in ("freeze-free", "pre-copy"):
                self.series(f"memory {strategy}", lambda: v.Gap(mib, 64), strategy, runs=2)
        finally:
            stop.set()
            watcher.join()
        t.add("peak of any one (VmHWM)", list(peaks.values()), "MiB", "< 32 MiB", lambda x: x < 32, figure=max(peaks.values(), default=0))

    def run(self):
        steps = {"machine": self.machine, "freeze": self.freeze, "whole": self.whole, "faults": self.faults, "strategies": self.strategies, "crowds": self.crowds,
                 "redis": self.redis, "tcp": self.tcp, "redirect": self.redirect, "memory": self.daemon_memory}
        wanted = self.options.only.split(",") if self.options.only else list(steps)
        for name in wanted:
            if name not in steps:
                raise BenchError(f"--only {name}: there are {', '.join(steps)}")
        self.budget = Budget(self.options.minutes, self.weights(wanted))
        if wanted != ["redirect"]:
            warm_up(2 * self.sizes[-1] + 2048)
        v.start_in("n1", v.BARELINK, "serve", str(v.BARE_PORT))
        v.start_in("n2", v.BARELINK, "serve", str(v.BARE_PORT))
        for host in ("n1", "n2"):
            v.wait_until("barelink serves", lambda host=host: v.processes(host, v.BARELINK))
        time.sleep(0.1)
        for name in wanted:
            steps[name]()

    def write(self, path):
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(), "cores": os.cpu_count(),
                       "runs": self.runs, "load_average_before": self.load, "quick": self.options.quick, "figures": self.table.rows, "failures": self.table.failures,
                       "raw": self.raw}, f, indent=1)
            f.write("\n")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measures migrations between two hosts made on this machine.")
    parser.add_argument("--quick", action="store_true", help="3 runs, 16 and 256 MiB")
    parser.add_argument("--runs", type=int, help="runs a figure (default 10, with --quick 3)")
    parser.add_argument("--sizes", type=lambda text: [int(x) for x in text.split(",")], metavar="MIB,...", help="instead of 16, 256, 1,024 and 4,096")
    parser.add_argument("--only", metavar="WORD,...", help="machine, freeze, whole, faults, strategies, crowds, redis, tcp, redirect, memory; or cluster, which has hosts of its own and is not among all")
    parser.add_argument("--connections", type=lambda text: [int(x) for x in text.split(",")], metavar="N,...", help="of tcp, instead of 1, 100, 1,000 and 10,000")
    parser.add_argument("--crowds", metavar="KIND=N,...", help="of the crowds only these: threads=64,processes=8")
    parser.add_argument("--timeline", action="store_true", help="print where the time of each freeze goes")
    parser.add_argument("--minutes", type=float, help="of freeze, faults, strategies and redis fewer runs, but 3, where they would take longer together")
    parser.add_argument("--json", metavar="FILE", default=os.path.join(v.BUILD, "bench.json"), help="where the figures go (default: %(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: making hosts needs root")
    if options.timeline:
        os.environ["GODWIT_LOG"] = "debug"
    if options.only == "cluster":
        sys.exit(cluster.main(["--json", options.json]))
    bench, status = Bench(options), 0
    try:
        v.dev_lab("up", "3", "--outside", "1", "--force")
        bench.run()
    except (BenchError, v.lab.LabError) as e:
        print(f"bench: {e}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    finally:
        v.dev_lab("down", check=False)
    bench.write(options.json)
    rows = bench.table.rows
    print(f"\n{sum(r['pass'] is True for r in rows)} targets reached, {sum(r['pass'] is False for r in rows)} missed, "
          f"{len(bench.table.failures)} failures; {options.json}")
    sys.exit(status or (1 if bench.table.failures else 0))


if __name__ == "__main__":
    main()
