#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""libgodwit: what it exports, and what it makes of a godwitd's answers, good and bad. Usage: test_client.py LIBRARY MAP HEADER"""

import ctypes
import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

LIBRARY, MAP, HEADER = sys.argv[1:4]


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


class Error(ctypes.Structure):
    _fields_ = [("number", ctypes.c_int), ("code", ctypes.c_char * 32), ("message", ctypes.c_char * 768)]


class Unit(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("name", "on", "home", "command", "state", "reason")] + [("pid", ctypes.c_int), ("moves", ctypes.c_int), ("since", ctypes.c_int64)]


class Node(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("name", "address", "state", "labels", "error")] + [
        ("self", ctypes.c_int), ("units", ctypes.c_int), ("age_ms", ctypes.c_int64), ("cores", ctypes.c_double), ("load", ctypes.c_double), ("mem_mib", ctypes.c_double)]


class Refusal(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("code", "thing", "cause", "way_out")]


class Progress(ctypes.Structure):
    _fields_ = [("phase", ctypes.c_char_p), ("pages_total", ctypes.c_int64), ("pages_sent", ctypes.c_int64), ("bytes_sent", ctypes.c_int64)]


class Result(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("unit", "from_", "to", "strategy")] + [("pid", ctypes.c_int), ("freeze_us", ctypes.c_int64), ("total_ms", ctypes.c_double), ("bytes_sent", ctypes.c_int64)]


class Event(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("unit", ctypes.POINTER(Unit)), ("node", ctypes.POINTER(Node)), ("from_", ctypes.c_char_p), ("to", ctypes.c_char_p)]


lib = ctypes.CDLL(LIBRARY)
lib.godwit_move_progress.restype = ctypes.POINTER(Progress)
lib.godwit_move_result.restype = ctypes.POINTER(Result)
lib.godwit_move_refusals.restype = ctypes.POINTER(ctypes.POINTER(Refusal))
for function in ("close", "free", "move_wait", "move_fd", "move_cancel", "move_progress", "move_result", "move_refusals", "move_free", "events_next", "events_close"):
    getattr(lib, "godwit_" + function).argtypes = [ctypes.c_void_p] + ([ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p][:{"move_wait": 2, "events_next": 3}.get(function, 0)])
lib.godwit_move_cancel.argtypes = [ctypes.c_void_p, ctypes.c_void_p]


def unit(name, on, **more):
    return {"unit": name, "on": on, "pid": 7, "home": name.split(":")[0], "command": "sh", "state": "running", "moves": 0, "since": 5, **more}


RESULT = {"unit": "n1:7", "from": "n1", "to": "n2", "strategy": "freeze-free", "pid": 7, "freeze_us": 900, "total_ms": 12.5, "bytes_sent": 4096}


class FakeDaemon:
    """Answers each question by `answer(request, connection)`, which returns lines (objects, or bytes as they are)."""

    def __init__(self, answer):
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "s")
        self.asked, self.answer = [], answer
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            request = json.loads(lines.readline())
            self.asked.append(request)
            for line in self.answer(request, lines):
                connection.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.directory.cleanup()


class Symbols(unittest.TestCase):
    def test_exported_are_those_of_map_and_header(self):
        lines = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout.splitlines()
        exported = sorted(line.split()[-1] for line in lines if line.split()[-2] != "A")
        mapped = re.findall(r"^\t(\w+);", read(MAP), re.MULTILINE)
        code = re.sub(r"/\*.*?\*/", "", read(HEADER), flags=re.DOTALL)
        declared = re.findall(r"\b(godwit_\w+)\(", code)
        self.assertEqual(exported, sorted(f"{name}@@GODWIT_1" for name in mapped))
        self.assertEqual(sorted(mapped), sorted(declared))


class Client(unittest.TestCase):
    def begin(self, answer):
        self.daemon = FakeDaemon(answer)
        self.addCleanup(self.daemon.close)
        self.g, self.e = ctypes.c_void_p(), Error()
        self.assertEqual(lib.godwit_open(self.daemon.path.encode(), ctypes.byref(self.g), ctypes.byref(self.e)), 0)
        self.addCleanup(lib.godwit_close, self.g)

    def failed(self, r, code, number=None):
        self.assertLess(r, 0)
        self.assertEqual(r, self.e.number)
        self.assertEqual(self.e.code.decode(), code)
        self.assertTrue(self.e.message)
        if number:
            self.assertEqual(r, -number)

    def items(self, function, of, *arguments):
        """What it returns, and the list, which is copied and given back."""
        got = ctypes.POINTER(ctypes.POINTER(of))()
        r = function(self.g, *arguments, ctypes.byref(got), ctypes.byref(self.e))
        found = []
        while r >= 0 and got[len(found)]:
            found.append({name: getattr(got[len(found)][0], name) for name, _ in of._fields_})
        lib.godwit_free(got)
        return r, found

    def move(self, *options, to=b"n2", name=b"n1:7"):
        texts = (ctypes.c_char_p * (len(options) + 1))(*options, None)
        move = ctypes.c_void_p()
        r = lib.godwit_move_begin(self.g, name, to, texts, ctypes.byref(move), ctypes.byref(self.e))
        if r == 0:
            self.addCleanup(lib.godwit_move_free, move)
        return r, move

    def test_lists(self):
        answers = {"ps": {"node": "n1", "units": [unit("n1:7", "n2", moves=3, reason="load"), unit("n2:9", "n1")], "silent": []},
                   "nodes": {"node": "n1", "nodes": [{"name": "n1", "address": "a:1", "state": "ok", "self": True, "units": 2, "age_ms": 3, "labels": "x", "indices": {"cores": 2.0, "r1m": 0.5, "mem": 100}},
                                                     {"name": "n2", "address": "b:1", "state": "unknown", "self": False}]}}
        self.begin(lambda request, lines: [{"event": "result", "result": answers[request["verb"]]}])
        r, units = self.items(lib.godwit_units, Unit)
        self.assertEqual((r, [u["name"] for u in units], units[0]["moves"], units[0]["reason"], units[1]["reason"], units[1]["since"]), (2, [b"n1:7", b"n2:9"], 3, b"load", b"", 5))
        r, nodes = self.items(lib.godwit_nodes, Node)
        self.assertEqual((r, nodes[0]["load"], nodes[0]["self"], nodes[0]["units"]), (2, 0.5, 1, 2))
        self.assertEqual((nodes[1]["load"], nodes[1]["units"], nodes[1]["labels"], nodes[1]["age_ms"]), (-1, -1, b"", -1))

    def test_check(self):
        why = [{"code": "x", "thing": "fd 3", "cause": "c", "way_out": "w"}]
        said = {"ps": {"node": "n1", "units": [unit("n1:7", "n1", pid=77), unit("n1:8", "n2")]}, "check": {"ok": False, "refusals": why}}
        self.begin(lambda request, lines: [{"event": "result", "result": said[request["verb"]]}])
        self.assertEqual(self.items(lib.godwit_check, Refusal, b"n1:7", b"n2"), (0, [{key: value.encode() for key, value in why[0].items()}]))
        self.assertEqual(self.daemon.asked[-1], {"verb": "check", "pid": 77, "host": "n2"})
        said["check"] = {"ok": True, "refusals": []}
        self.assertEqual(self.items(lib.godwit_check, Refusal, b"12", None), (1, []))
        self.assertEqual(self.daemon.asked[-1], {"verb": "check", "pid": 12})
        self.failed(self.items(lib.godwit_check, Refusal, b"n1:8", None)[0], "unknown-unit", errno.ENOENT)
        for wrong in (b"", b"0", b"-1", b"12x", b"99999999999", b" 1"):
            self.failed(self.items(lib.godwit_check, Refusal, wrong, None)[0], "bad-request", errno.EINVAL)

    def test_move(self):
        go_on = threading.Event()

        def answer(request, lines):
            yield {"event": "progress", "phase": "rounds", "pages_total": 10, "pages_sent": 4, "bytes_sent": 16384}
            yield {"event": "something-later"}
            go_on.wait(10)
            yield {"event": "result", "result": RESULT}

        self.begin(answer)
        r, move = self.move(b"strategy=pre-copy", b"timeout_ms=5000", b"reason=a=b")
        self.assertEqual(r, 0)
        while not (progress := lib.godwit_move_progress(move)[0]).phase:
            self.assertEqual(lib.godwit_move_wait(move, 10, ctypes.byref(self.e)), 0)
        self.assertEqual((progress.phase, progress.pages_total, progress.pages_sent, progress.bytes_sent), (b"rounds", 10, 4, 16384))
        self.assertFalse(lib.godwit_move_result(move))
        self.assertEqual(self.daemon.asked, [{"verb": "migrate", "unit": "n1:7", "host": "n2", "strategy": "pre-copy", "timeout_ms": 5000, "reason": "a=b"}])
        go_on.set()
        self.assertEqual([lib.godwit_move_wait(move, ms, ctypes.byref(self.e)) for ms in (-1, 0, 5)], [1, 1, 1])
        result = lib.godwit_move_result(move)[0]
        self.assertEqual((result.unit, result.from_, result.to, result.freeze_us, result.total_ms), (b"n1:7", b"n1", b"n2", 900, 12.5))
        self.assertFalse(lib.godwit_move_refusals(move)[0])

    def test_options(self):
        self.begin(lambda request, lines: [])
        for wrong in (b"strategy", b"strateg=x", b"=x", b"", b"timeout_ms=", b"timeout_ms=-1", b"timeout_ms=1s", b"reason=\xff"):
            self.failed(self.move(wrong)[0], "bad-request", errno.EINVAL)
        self.failed(self.move(to=b"\xff")[0], "bad-request", errno.EINVAL)
        self.assertEqual(self.daemon.asked, [])

    def test_refused(self):
        why = {"code": "locked", "thing": "fd 3", "cause": "it is", "way_out": "wait"}
        self.begin(lambda request, lines: [{"event": "error", "error": {"code": "refused", "errno": errno.EOPNOTSUPP, "message": "no", "refusals": [why]}}])
        _, move = self.move()
        for _ in range(2):
            self.failed(lib.godwit_move_wait(move, -1, ctypes.byref(self.e)), "refused", errno.EOPNOTSUPP)
        refusals = lib.godwit_move_refusals(move)
        self.assertEqual((refusals[0][0].thing, refusals[0][0].way_out, bool(refusals[1])), (b"fd 3", b"wait", False))

    def test_cancel(self):
        def answer(request, lines):
            asked = json.loads(lines.readline())
            yield {"event": "error", "error": {"code": "cancelled", "errno": errno.ECANCELED, "message": asked["verb"], "refusals": []}}

        self.begin(answer)
        _, move = self.move()
        self.assertEqual(lib.godwit_move_wait(move, 0, ctypes.byref(self.e)), 0)
        threading.Timer(0.05, lambda: lib.godwit_move_cancel(move, None)).start()
        self.failed(lib.godwit_move_wait(move, -1, ctypes.byref(self.e)), "cancelled", errno.ECANCELED)
        self.assertEqual(self.e.message, b"cancel")
        self.assertEqual(lib.godwit_move_cancel(move, ctypes.byref(self.e)), 0)

    def test_in_doubt(self):
        for bad in ([], [b'{"event":"result"'], [b"[]\n"], [b"nonsense\n"]):
            self.begin(lambda request, lines, bad=bad: bad)
            _, move = self.move()
            self.failed(lib.godwit_move_wait(move, 10000, ctypes.byref(self.e)), "in-doubt")

    def test_bad_answers(self):
        for bad, code in (([], "no-answer"), ([b"nonsense\n"], "no-answer"), ([{"event": "result"}], "no-answer"), ([{"event": "error", "error": {"errno": -5}}], "failed"),
                          ([{"event": "error", "error": {"code": "permission", "errno": 13, "message": "no"}}], "permission"), ([{}], "failed")):
            self.begin(lambda request, lines, bad=bad: bad)
            self.failed(self.items(lib.godwit_units, Unit)[0], code)
        self.begin(lambda request, lines: [{"event": "result", "result": {"units": [7, {"unit": 8, "pid": "x"}]}}])
        self.assertEqual(self.items(lib.godwit_units, Unit)[0], 2)

    def test_nobody_there(self):
        self.g, self.e = ctypes.c_void_p(), Error()
        self.failed(lib.godwit_open(b"/" + b"x" * 200, ctypes.byref(self.g), ctypes.byref(self.e)), "bad-request", errno.ENAMETOOLONG)
        self.assertEqual(lib.godwit_open(b"/nonexistent/s", ctypes.byref(self.g), None), 0)
        self.addCleanup(lib.godwit_close, self.g)
        self.failed(self.items(lib.godwit_units, Unit)[0], "no-daemon", errno.ENOENT)
        for function in ("close", "free", "move_free", "events_close"):
            getattr(lib, "godwit_" + function)(None)

    def test_events(self):
        nodes = [[{"name": "n1", "state": "ok"}, {"name": "n2", "state": "ok"}], [{"name": "n1", "state": "ok", "age_ms": 9}, {"name": "n2", "state": "unknown"}]]
        units = [{"units": [unit("n1:1", "n1"), unit("n1:2", "n1"), unit("n1:3", "n2"), unit("n1:4", "n1")]},
                 {"units": [unit("n1:1", "n2"), unit("n1:4", "n1", state="sleeping"), unit("n1:5", "n1")], "silent": [{"node": "n2", "error": "x"}]}]
        later = {"n": 0}

        def answer(request, lines):
            asks = {"nodes": {"nodes": nodes[later["n"]]}, "ps": units[later["n"]]}
            return [{"event": "result", "result": asks[request["verb"]]}]

        self.begin(answer)
        events, event = ctypes.c_void_p(), ctypes.POINTER(Event)()
        self.assertEqual(lib.godwit_events_open(self.g, ctypes.byref(events), ctypes.byref(self.e)), 0)
        self.addCleanup(lib.godwit_events_close, events)
        self.assertEqual(lib.godwit_events_next(events, 0, ctypes.byref(event), ctypes.byref(self.e)), 0)
        later["n"] = 1
        heard = []
        while lib.godwit_events_next(events, 1300, ctypes.byref(event), ctypes.byref(self.e)) == 1:
            e = event[0]
            heard.append((e.kind, (e.unit or e.node)[0].name, e.from_, e.to))
        # n1:3 is on a node that does not answer: it has not ended
        self.assertEqual(sorted(heard), [(1, b"n1:5", b"", b""), (2, b"n1:1", b"n1", b"n2"), (4, b"n1:2", b"", b""), (6, b"n2", b"", b"")])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
