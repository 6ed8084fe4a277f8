#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""godwitd's workers, with an engine that moves nothing (fake_engine.c). Usage: test_workers.py GODWITD_FAKE GODWIT"""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
spec = importlib.util.spec_from_file_location("test_daemon", os.path.join(HERE, "test_daemon.py"))
common = importlib.util.module_from_spec(spec)
spec.loader.exec_module(common)
GODWIT = sys.argv[2]


def wait_for(condition, what, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rpartition(")")[2].split()[1])


def command_of(pid):
    with open(f"/proc/{pid}/cmdline") as f:
        return f.read()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Workers(unittest.TestCase):
    def setUp(self):
        self.b = common.Daemon()
        self.a = common.Daemon(f"b = 127.0.0.1:{self.b.port}\n")
        self.child = subprocess.Popen(["sleep", "60"])

    def tearDown(self):
        self.child.kill()
        self.child.wait()
        self.a.stop()
        self.b.stop()

    def command(self, *arguments):
        return [GODWIT, "--socket", self.a.socket, *arguments]

    def godwit(self, *arguments):
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=30)

    def migrate(self, strategy, *options):
        return self.godwit("migrate", str(self.child.pid), "b", "--strategy", strategy, *options)

    def test_move(self):
        done = self.migrate("freeze-free", "--json")
        answer = json.loads(done.stdout)
        self.assertEqual((done.returncode, answer["outcome"], answer["freeze_us"]), (0, "moved", 150), done)
        pid = answer["pid"]
        try:
            # the worker has ended, and what it left is godwitd's child: it lives on and is listed
            wait_for(lambda: parent_of(pid) == self.b.process.pid, "the moved process to become godwitd's child")
            wait_for(lambda: command_of(pid).startswith("sleep"), "its program")
            unit = self.b.ask({"verb": "ps"})[0]["result"]["units"][0]
            self.assertEqual((unit["unit"], unit["pid"], unit["command"], unit["moves"]), ("t1:4711", pid, "sleep 60", 1))
            table = subprocess.run([GODWIT, "--socket", self.b.socket, "ps"], capture_output=True, text=True).stdout
            self.assertIn("t1:4711", table)
        finally:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: f"event=unit-ended pid={pid} signal=9" in self.b.text(), "the log of its end")
        self.assertEqual(self.b.ask({"verb": "ps"})[0]["result"]["units"], [])

    def test_human_result(self):
        done = self.migrate("freeze-free")
        self.assertEqual(done.returncode, 0)
        pid = int(re.search(r"as process (\d+)", done.stdout).group(1))
        os.kill(pid, signal.SIGKILL)
        self.assertIn("stood still for 0.15 ms", done.stdout)
        self.assertLessEqual(len(done.stdout.splitlines()), 3)

    def test_refused(self):
        done = self.migrate("pre-copy")
        self.assertEqual(done.returncode, 3)
        for words in ("fd 7 (TCP): connections cannot move yet", "what to do: close it first", "mapping 3"):
            self.assertIn(words, done.stderr)
        answer = json.loads(self.migrate("pre-copy", "--json").stdout)
        self.assertEqual(answer["outcome"], "refused")
        self.assertEqual([r["code"] for r in answer["refusals"]], ["fd.socket", "vma.hugetlb"])

    def test_in_doubt(self):
        done = self.migrate("hybrid", "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout)["outcome"]), (5, "in-doubt"))

    def test_worker_dies(self):
        done = self.migrate("copy-on-reference", "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout)["outcome"]), (5, "in-doubt"))
        wait_for(lambda: "event=worker-died kind=source" in self.a.text(), "the log of the worker's death")

    def history(self, *options):
        return json.loads(self.godwit("trace", "--json", *options).stdout)

    def move(self):
        os.kill(json.loads(self.migrate("freeze-free", "--json").stdout)["pid"], signal.SIGKILL)

    def test_history(self):
        """What each move came to is remembered, with why, and in the order of time; a limit and a name choose among them."""
        self.assertEqual(self.godwit("trace", str(self.child.pid)).returncode, 1)
        self.move()
        for strategy in ("pre-copy", "hybrid", "copy-on-reference"):
            self.migrate(strategy)
        wait_for(lambda: len(self.history()["moves"]) == 4, "the one whose worker has died")
        said = self.history()
        moves = said["moves"]
        self.assertEqual([(m["strategy"], m["outcome"]) for m in moves], [("freeze-free", "moved"), ("pre-copy", "refused"), ("hybrid", "in-doubt"), ("copy-on-reference", "unknown")])
        self.assertEqual([m["number"] for m in moves], [1, 2, 3, 4])
        self.assertEqual({(m["node"], m["pid"], m["from"], m["to"], m["uid"]) for m in moves}, {("t1", self.child.pid, "t1", "b", 0)})
        self.assertIn("connections cannot move yet", moves[1]["error"])
        self.assertIn("signal 6", moves[3]["error"])
        self.assertEqual((said["running"], [s["node"] for s in said["silent"]]), ([], ["b"]))
        moved = moves[0]
        self.assertEqual((moved["freeze_us"], moved["bytes_sent"], moved["pages_sent"], moved["attempts"]), (150, 90 * 4096, 90, 1))
        spans = {s["name"]: s for s in moved["spans"]}
        self.assertEqual(list(spans), ["migrate", "begin", "hello", "offer", "frozen"])
        self.assertEqual(len({s["span_id"] for s in moved["spans"]} | {""}), 6)
        self.assertEqual({s["parent_span_id"] for s in moved["spans"][1:]}, {spans["migrate"]["span_id"]})
        self.assertEqual((spans["hello"]["end_ns"], spans["offer"]["end_ns"]), (spans["offer"]["start_ns"], moved["ended_ns"]))
        self.assertEqual(spans["frozen"]["end_ns"] - spans["frozen"]["start_ns"], 150000)
        self.assertEqual([e["name"] for e in moved["events"]], ["greeted"])
        self.assertEqual(len({m["trace_id"] for m in moves}), 4)
        unit = moved["unit"]
        self.assertEqual([m["number"] for m in self.history(unit)["moves"]], [4])
        self.assertEqual([m["number"] for m in self.history("--all", str(self.child.pid))["moves"]], [1, 2, 3, 4])
        self.assertEqual(self.history("t1:1")["moves"], [])
        self.assertIn("hello", self.godwit("trace", "--all", unit).stdout)
        self.assertEqual(len(self.godwit("trace").stdout.splitlines()), 5)

    def test_history_ring(self):
        """It is bounded: the newest are there."""
        for _ in range(260):
            with self.a.client() as s:
                s.sendall(json.dumps({"verb": "migrate", "pid": self.child.pid, "host": "b", "strategy": "pre-copy"}).encode() + b"\n")
                while s.recv(65536):
                    pass
        self.assertEqual([m["number"] for m in self.history("--last", "1000")["moves"]], list(range(5, 261)))

    def test_history_of_what_runs(self):
        process = self.start_endless()
        running = self.history()["running"]
        self.assertEqual([(m["pid"], m["phase"], m["outcome"], m["ended_ns"]) for m in running], [(self.child.pid, "rounds", "", 0)])
        self.assertGreater(running[0]["total_ms"], 0)
        self.assertIn("in step rounds", self.godwit("trace", str(self.child.pid)).stdout)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
        self.assertEqual([m["outcome"] for m in self.history()["moves"]], ["cancelled"])

    def test_chrome(self):
        """The file has what Perfetto and chrome://tracing ask for."""
        self.move()
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "trace.json")
            done = self.godwit("trace", "--chrome", path, str(self.child.pid))
            self.assertEqual((done.returncode, done.stdout), (0, ""), done)
            with open(path, encoding="ascii") as f:
                trace = json.load(f)
        events = trace["traceEvents"]
        self.assertEqual([(e["name"], e["args"]["name"]) for e in events if e["ph"] == "M"], [("process_name", f"t1:{self.child.pid}"), ("thread_name", "steps"), ("thread_name", "frozen")])
        self.assertEqual([e["name"] for e in events if e["ph"] == "X"], ["t1 -> b", "begin", "hello", "offer", "frozen"])
        self.assertEqual([e["name"] for e in events if e["ph"] == "i"], ["greeted"])
        for e in events:
            self.assertLessEqual({"name", "ph", "pid", "tid"}, set(e))
            if e["ph"] == "X":
                self.assertTrue(0 <= e["ts"] < 60e6 and e["dur"] >= 0, e)

    def start_endless(self):
        p = subprocess.Popen(self.command("migrate", str(self.child.pid), "b", "--strategy", "stop-copy", "--json"), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        wait_for(lambda: self.a.ask({"verb": "ps"})[0]["result"]["migrations"], "the migration to begin")
        return p

    def test_interrupt_cancels(self):
        p = self.start_endless()
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=10)
        self.assertEqual((p.returncode, json.loads(out)["outcome"]), (4, "cancelled"))

    def test_hang_up_cancels(self):
        p = self.start_endless()
        p.kill()
        p.communicate()
        wait_for(lambda: not self.a.ask({"verb": "ps"})[0]["result"]["migrations"], "the end of the migration")
        self.assertIn("outcome=cancelled", self.a.text())

    def test_same_process_twice(self):
        p = self.start_endless()
        """Who asks for it himself waits for his turn, and can be stopped while he does; who may only have it at once is sent away."""
        refused = self.a.ask({"verb": "migrate", "pid": self.child.pid, "host": "b", "here": True})[-1]["error"]
        self.assertEqual(refused["code"], "busy")
        self.assertIn("is being moved to b already", refused["message"])
        second = subprocess.Popen(self.command("migrate", str(self.child.pid), "b", "--json"), stdout=subprocess.PIPE, text=True)
        wait_for(lambda: self.is_waiting(second), "a client that waits")
        second.send_signal(signal.SIGINT)
        out, _ = second.communicate(timeout=10)
        self.assertEqual((second.returncode, json.loads(out)["error"]["code"], p.poll()), (4, "cancelled", None))
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=10)

    @staticmethod
    def is_waiting(process):
        """It blocks the signals that it asks for by a descriptor before it waits."""
        with open(f"/proc/{process.pid}/status") as f:
            return int(next(line for line in f if line.startswith("SigBlk")).split()[1], 16) & 1 << signal.SIGINT - 1

    def test_half_closed_client_does_not_cancel(self):
        with self.a.client() as s:
            s.sendall(json.dumps({"verb": "migrate", "pid": self.child.pid, "host": "b", "strategy": "stop-copy"}).encode() + b"\n")
            lines = s.makefile()
            self.assertEqual(json.loads(lines.readline())["event"], "progress")
            s.shutdown(socket.SHUT_WR)
            for _ in range(3):
                self.assertEqual(json.loads(lines.readline())["event"], "progress")

    def test_workers_outlive_the_daemon(self):
        for sig in (signal.SIGKILL, signal.SIGTERM):
            p = self.start_endless()
            worker = self.a.ask({"verb": "ps"})[0]["result"]["migrations"][0]["worker"]
            self.a.process.send_signal(sig)
            self.a.process.wait(10)
            self.assertTrue(alive(worker))
            self.a.start()
            self.assertTrue(alive(worker))
            p.send_signal(signal.SIGINT)
            out, _ = p.communicate(timeout=10)
            self.assertEqual(json.loads(out)["outcome"], "cancelled")

    def test_check(self):
        self.assertEqual(self.godwit("check", str(self.child.pid)).returncode, 0)
        done = self.godwit("check", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("process 1: init cannot move", done.stdout)

    def test_other_pid_namespace(self):
        if os.geteuid():
            self.skipTest("needs root to make a pid namespace")
        done = subprocess.run(["unshare", "-pf", "--mount-proc", *self.command("migrate", "1", "b")], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 3)
        self.assertIn("another pid namespace", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
