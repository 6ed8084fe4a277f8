# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a freeze goes: the marks that the workers of both hosts write to their logs (src/migrate/timeline.h), laid side by side."""

import os
import re

import victims as v

MARK = re.compile(rb'event=mark at_us=(\d+) after_us=\d+ what="([^"]*)"')
TURN_US = 100000000     # the marks' clock begins anew there
SPAN_US = 50000000


class Timeline:
    """Collects the marks of many migrations; a mark that comes several times in one is told apart by its turn."""

    def __init__(self):
        self.at = {host: self.size(host) for host in ("n1", "n2")}
        self.runs = []

    @staticmethod
    def path(host):
        return os.path.join(v.lab.host_dir(host), "godwitd.log")

    def size(self, host):
        try:
            return os.path.getsize(self.path(host))
        except OSError:
            return 0

    def lines(self, host):
        with open(self.path(host), "rb") as f:
            f.seek(self.at[host])
            text = f.read()
        self.at[host] += len(text)
        return MARK.findall(text)

    def take(self, source, dest, stopped_ns, freeze_us):
        """What has been written since the last call. stopped_ns: when the process stood still; freeze_us: as the process saw it."""
        begin, marks = stopped_ns // 1000 % TURN_US, []
        for side, host in (("source", source), ("dest", dest)):
            seen = {}
            for at, what in self.lines(host):
                name = f"{side}: {what.decode()}"
                seen[name] = seen.get(name, 0) + 1
                after = (int(at) - begin + SPAN_US) % TURN_US - SPAN_US
                marks.append((name if seen[name] == 1 else f"{name} ({seen[name]})", after))
        self.runs.append((marks, freeze_us))

    def rows(self):
        """Name, median and range of the time since the stop, in the order of the medians."""
        values = {}
        for marks, _ in self.runs:
            for name, after in marks:
                values.setdefault(name, []).append(after)
        rows = [(name, sorted(a)) for name, a in values.items() if 2 * len(a) >= len(self.runs)]
        return sorted(((name, a[len(a) // 2], a[0], a[-1]) for name, a in rows), key=lambda row: row[1])

    def print(self):
        before = None
        for name, middle, low, high in self.rows():
            if -20000 < middle < 2000000:
                step = "" if before is None else f"{middle - before:+8,d}"
                print(f"      {middle:>9,d} us {step:>9}   {low:,d} to {high:,d}   {name}", flush=True)
                before = middle
