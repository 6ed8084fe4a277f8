#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""What `godwit metrics` prints: that it is what Prometheus reads, that it counts, and that the dashboard and the documents name what there is. Usage: test_metrics.py GODWITD_FAKE GODWIT ROOT"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
spec = importlib.util.spec_from_file_location("test_daemon", os.path.join(HERE, "test_daemon.py"))
common = importlib.util.module_from_spec(spec)
spec.loader.exec_module(common)
GODWIT, ROOT = sys.argv[2:4]
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})(?:\{{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\}})? (\S+)')


def parse(text):
    """{family: (type, {(name, labels): value})}; what is not as the format wants it is an AssertionError."""
    families, current = {}, None
    assert text.endswith("\n")
    for line in text.splitlines():
        if found := re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line):
            current = found[1]
            assert current not in families, f"{current}: twice, or in two pieces"
            families[current] = [None, {}]
        elif found := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            assert found[1] == current and families[current][0] is None, line
            families[current][0] = found[2]
        else:
            found = SAMPLE.fullmatch(line)
            assert found, f"no sample: {line}"
            suffixes = ("_bucket", "_sum", "_count") if families[current][0] == "histogram" else ("",)
            assert found[1] in [current + s for s in suffixes], f"{line} is not of {current}"
            labels = tuple(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', found[2] or ""))
            assert len({k for k, _ in labels}) == len(labels), line
            assert (found[1], labels) not in families[current][1], f"{line}: twice"
            families[current][1][found[1], labels] = float(found[3])
    for name, (kind, samples) in families.items():
        assert kind and samples, f"{name} has nothing"
        assert (kind == "counter") == name.endswith("_total"), f"{name} is a {kind}"
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        others = tuple(l for l in labels if l[0] != "le")
        if sample == f"{name}_bucket":
            series.setdefault(others, []).append((float(dict(labels)["le"]), value))
    for others, buckets in series.items():
        assert buckets == sorted(buckets) and [v for _, v in buckets] == sorted(v for _, v in buckets), f"{name}: not cumulative: {buckets}"
        assert buckets[-1] == (float("inf"), samples[f"{name}_count", others]), f"{name}: {buckets[-1]}"
        assert samples[f"{name}_sum", others] >= 0


class Metrics(unittest.TestCase):
    def setUp(self):
        self.b = common.Daemon()
        self.a = common.Daemon(f"b = 127.0.0.1:{self.b.port}\n")
        self.child = subprocess.Popen(["sleep", "60"])

    def tearDown(self):
        self.child.kill()
        self.child.wait()
        self.a.stop()
        self.b.stop()

    def godwit(self, daemon, *arguments):
        return subprocess.run([GODWIT, "--socket", daemon.socket, *arguments], capture_output=True, text=True, timeout=30)

    def metrics(self, daemon):
        done = self.godwit(daemon, "metrics")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return parse(done.stdout)

    def migrate(self, strategy):
        return self.godwit(self.a, "migrate", str(self.child.pid), "b", "--strategy", strategy, "--json")

    def test_counts(self):
        before = self.metrics(self.a)
        self.assertEqual(sum(before["godwit_migrations_total"][1].values()), 0)
        for _ in range(2):
            os.kill(json.loads(self.migrate("freeze-free").stdout)["pid"], signal.SIGKILL)
        self.migrate("pre-copy")
        self.migrate("hybrid")
        after = self.metrics(self.a)
        self.assertEqual(set(before), set(after))
        counted = {tuple(v for _, v in labels): n for (_, labels), n in after["godwit_migrations_total"][1].items() if n}
        self.assertEqual(counted, {("moved", "freeze-free"): 2, ("refused", "pre-copy"): 1, ("in-doubt", "hybrid"): 1})
        freeze, strategy = after["godwit_freeze_seconds"][1], ("strategy", "freeze-free")
        self.assertEqual((freeze["godwit_freeze_seconds_count", (strategy,)], freeze["godwit_freeze_seconds_sum", (strategy,)]), (2, 0.0003))
        self.assertEqual(freeze["godwit_freeze_seconds_bucket", (strategy, ("le", "0.00025"))], 2)
        self.assertEqual(after["godwit_migration_seconds"][1]["godwit_migration_seconds_count", (strategy,)], 2)
        self.assertEqual(after["godwit_sent_bytes_total"][1]["godwit_sent_bytes_total", ()], 2 * 90 * 4096)
        self.assertEqual(after["godwit_migrations_running"][1]["godwit_migrations_running", (("direction", "leaving"),)], 0)

    def test_names(self):
        """Each metric that the dashboard asks for is there, with those labels, and the document lists all."""
        families = self.metrics(self.a)
        samples = {}
        for _, (_, of) in families.items():
            for name, labels in of:
                samples.setdefault(name, set()).update(k for k, _ in labels)
        with open(os.path.join(ROOT, "docs/grafana.json"), encoding="ascii") as f:
            dashboard = json.load(f)
        asked = set()
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                names = set(re.findall(r"\bgodwit_\w+", target["expr"]))
                known = {"instance", "le"}.union(*(samples.get(n, set()) for n in names))
                self.assertTrue(names and names <= set(samples), f"{panel['title']}: {names - set(samples)}")
                used = set(re.findall(r'(\w+)(?:=~|!=|=)"', target["expr"])) | {w for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for w in by.split(", ")} | set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                self.assertLessEqual(used, known, panel["title"])
                asked |= {re.sub(r"_(bucket|sum|count)$", "", n) if n not in families else n for n in names}
        self.assertLessEqual(set(families) - asked, {"godwit_build_info", "godwit_start_time_seconds", "godwit_load"})
        with open(os.path.join(ROOT, "docs/watching.md"), encoding="utf-8") as f:
            self.assertEqual(set(re.findall(r"^\| `(godwit_\w+)", f.read(), re.M)), set(families))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
