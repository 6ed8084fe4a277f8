# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP connections with others, measured from the peers (conns.c): the silence that a peer hears, what a connection costs, and retransmission timeouts."""

import mmap
import os
import struct
import time

import timeline
import victims as v
from victims import BenchError

CONNS = os.path.join(v.BUILD, "bench/conns")
SEEN = struct.Struct("<5Q")     # struct seen of conns.c
SILENCES = 8192
PEERS = {"outside": "x1", "Godwit": "n3", "source": "n1"}
PORT = 7400


class Server(v.Process):
    """conns serve, whose peers are elsewhere."""

    def __init__(self, port):
        super().__init__(CONNS, "n1")
        self.port = port
        v.start_in("n1", "sh", "-c", f"ulimit -n $(ulimit -Hn); exec {CONNS} serve {port}")
        self.find()

    def candidates(self):
        return [pid for pid in v.processes(self.host, CONNS) if f"\0serve\0{self.port}\0" in v.read_text(f"/proc/{pid}/cmdline")]


class Talk:
    """conns talk on a host; what it sees is in a file that is mapped here as well."""

    def __init__(self, host, port, idle, mode):
        self.host, self.port, self.file = host, port, os.path.join(v.BUILD, f"conns-seen-{host}")
        with open(self.file, "wb") as f:
            f.truncate(SEEN.size + 16 * SILENCES)
        with open(self.file, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 0)
        v.start_in(host, "sh", "-c", f"ulimit -n $(ulimit -Hn); exec {CONNS} talk 10.66.0.1 {port} {idle} {mode} {self.file}")
        self.pid = v.wait_until("the client begins", lambda: next(iter(self.processes()), None))
        v.wait_until(f"{idle + 1} connections", lambda: self.seen()["ready"] == idle + 1, 120)

    def processes(self):
        return [pid for pid in v.processes(self.host, CONNS) if f"\0{self.port}\0" in v.read_text(f"/proc/{pid}/cmdline") and "\0talk\0" in v.read_text(f"/proc/{pid}/cmdline")]

    def seen(self):
        return dict(zip(("ready", "messages", "bytes", "wrong", "n_silences"), SEEN.unpack(self.memory[:SEEN.size])))

    def begin(self):
        self.before, self.began_ns = self.counters(), time.time_ns()

    def counters(self):
        text = v.read_text(f"/proc/{self.pid}/net/netstat").splitlines()
        return next(dict(zip(a.split()[1:], map(int, b.split()[1:]))) for a, b in zip(text[::2], text[1::2]) if a.startswith("TcpExt:"))

    def silences(self):
        n = self.seen()["n_silences"]
        ring = [struct.unpack_from("<QQ", self.memory, SEEN.size + i % SILENCES * 16) for i in range(max(0, n - SILENCES), n)]
        return [(at, ns) for at, ns in ring if at >= self.began_ns]

    def result(self, report):
        """The longest silence that touches the freeze and the longest of all, in us, and the retransmission timeouts."""
        if not self.processes():
            raise BenchError(f"the client on {self.host} has ended")
        bytes_before = self.seen()["bytes"]
        v.wait_until("the client hears something", lambda: self.seen()["bytes"] != bytes_before, 10)
        if self.seen()["wrong"]:
            raise BenchError(f"the client on {self.host} has seen {self.seen()['wrong']} wrong bytes")
        since, until = report["stopped_at_ns"], report["stopped_at_ns"] + 1000 * report["freeze_us"]
        silences = self.silences()
        return {"gap_us": max((ns for at, ns in silences if at <= until and at + ns >= since), default=0) / 1000, "longest_us": max((ns for _, ns in silences), default=0) / 1000,
                "timeouts": self.counters()["TCPTimeouts"] - self.before["TCPTimeouts"]}

    def end(self):
        v.lab.end_processes(self.processes(), 9)
        self.memory.close()
        os.unlink(self.file)


def series(host, port, idle, mode, runs, marks=None):
    """Moves a server to and fro, `runs` times: [{freeze_us, gap_us, timeouts, total_ms}]. marks: a timeline.Timeline, or None."""
    server, talk, done = Server(port), None, []
    try:
        talk = Talk(host, port, idle, mode)
        for _ in range(runs):
            time.sleep(0.3)     # so that there is something to compare with
            talk.begin()
            report = v.migrate(server, "freeze-free")
            time.sleep(0.3)
            if marks:
                marks.take(server.other(), server.host, report["stopped_at_ns"], report["freeze_us"])
            done.append({"freeze_us": report["freeze_us"], "total_ms": (report["ended_ns"] - report["began_ns"]) / 1e6, **talk.result(report)})
    finally:
        if talk:
            talk.end()
        server.end()
    return done


def gaps(table, runs, ports):
    """What a peer hears: the longest silence, less the freeze of the same run."""
    raw = {}
    for mode, name in (("e", "ping-pong"), ("b", "bulk both ways")):
        for where, host in PEERS.items():
            allowed = 2000 if where == "outside" else 1000
            done = raw[f"{name} {where}"] = series(host, next(ports), 0, mode, runs)
            table.add(f"{name}, peer: {where}: freeze", [r["freeze_us"] for r in done], "us")
            table.add("  longest silence about it, less the freeze", [r["gap_us"] - r["freeze_us"] for r in done], "us", f"<= {allowed:,} us", lambda x, a=allowed: x <= a)
            table.add("  longest silence in the whole move", [r["longest_us"] for r in done], "us")
            table.add("  retransmission timeouts of its host", [r["timeouts"] for r in done], "", "0 each", lambda x: x == 0, figure=max(r["timeouts"] for r in done))
    return raw


def costs(table, runs, counts, ports, with_marks=False):
    """What idle connections beside a busy one add to the freeze, and what ones over which something goes do."""
    raw, base = {}, None
    for mode, name in (("i", "idle"), ("a", "each asked once a second")):
        for n in sorted({1, *counts}):     # what one costs is the base of what more add
            marks = timeline.Timeline() if with_marks else None
            done = raw[f"{name} {n}"] = series("x1", next(ports), n - 1, "e" if mode == "i" else "a", runs if n < 10000 else min(runs, 3), marks)
            if marks:
                print(f"      since the stop; {n:,} connections, {name}")
                marks.print()
            freeze = table.add(f"{n:,} connections, {name}: freeze", [r["freeze_us"] for r in done], "us", "<= 20,000 us" if n == 10000 else None,
                               (lambda x: x <= 20000) if n == 10000 else None)
            if n == 1:
                base = freeze
            else:
                table.add("  a connection", [(r["freeze_us"] - base) / n for r in done], "us", "<= 25 us", lambda x: x <= 25)
            table.add("  total time", [r["total_ms"] for r in done], "ms")
            table.add("  retransmission timeouts of its host", [r["timeouts"] for r in done], "", "0 each", lambda x: x == 0, figure=max(r["timeouts"] for r in done))
    return raw
