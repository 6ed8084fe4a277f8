# SPDX-License-Identifier: GPL-2.0-or-later
"""--dry-run: what it says comes true, and until then nothing has been touched, here or there."""

import json
import os

from lab_driver import Victim, copies, inside, migrate, read, strangers, wait_until

COMMAND = ["/usr/bin/python3", "-c", """
import os, sys, socket, threading, time
memory = os.urandom(32 << 20)
pipe, listener = os.pipe(), socket.create_server(('127.0.0.1', 0))
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
open(sys.argv[1], 'w').write('ready %d\\n' % os.getpid())
time.sleep(1000)
""", "STATUS"]


def switches(pid):
    """How often each thread has stopped of itself or been stopped; who sleeps all the time is not woken by anybody."""
    base = f"/proc/{pid}/task"
    return {t: [x for x in read(f"{base}/{t}/status").split("\n") if "ctxt_switches" in x or x.startswith("State")] for t in sorted(os.listdir(base))}


def state(v):
    pid = v.process().pid
    return switches(pid), read(f"/proc/{pid}/maps"), sorted(os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd"))


def test_what_it_says_comes_true(lab2):
    v = Victim(lab2, "planned", command=COMMAND).wait_ready()
    wait_until("its threads sleep", lambda: all("S (sleeping)" in x[0] for x in switches(v.process().pid).values()))
    before, files = state(v), inside("n2", "sh", "-c", "find /var/lib/godwit /run/godwit -type f | sort").stdout
    words = inside("n1", "godwit", "migrate", str(v.pid), "n2", "--dry-run").stdout
    said = json.loads(inside("n1", "godwit", "migrate", str(v.pid), "n2", "--dry-run", "--json", "--strategy", "pre-copy").stdout)
    assert state(v) == before, "--dry-run touched the process"
    assert not copies(["n2"], v.status)
    wait_until("the destination's worker has ended", lambda: not strangers("n2"), 2)
    assert inside("n2", "sh", "-c", "find /var/lib/godwit /run/godwit -type f | sort").stdout == files, "--dry-run left something on n2"
    assert f"n1:{v.pid} would move to n2 by freeze-free" in words and "It would take about" in words and "2 threads" in words, words
    assert (said["dry_run"], said["outcome"], said["strategy"], said["processes"], said["threads"]) == (True, "possible", "pre-copy", 1, 2), said
    kinds = {d["kind"]: d["n"] for d in said["descriptors"]}
    assert kinds["pipe"] == 2 and kinds["tcp-listener"] == 1, said
    assert 32 << 20 < said["memory"]["own_bytes"] <= said["memory"]["send_bytes_max"], said
    assert 0 < said["estimate"]["low_ms"] <= said["estimate"]["high_ms"] and said["estimate"]["basis"], said
    moved = migrate("n1", v.pid, "n2", strategy="pre-copy")
    assert moved.status == 0, moved.why()
    assert moved.json["strategy"] == said["strategy"] and 32 << 20 < moved.json["bytes_sent"] < said["memory"]["send_bytes_max"] + (4 << 20), (moved.json, said)
    back = json.loads(inside("n1", "godwit", "migrate", f"n1:{v.pid}", "home", "--dry-run", "--json").stdout)
    assert (back["unit"], back["from"], back["to"]) == (f"n1:{v.pid}", "n2", "n1"), back
    v.clean()


def test_refused_as_the_move_is(lab2):
    v = Victim(lab2, "refuse_watch", expect_move=False).wait_ready()
    for options in ([], ["--json"]):
        planned = inside("n1", "godwit", "migrate", str(v.pid), "n2", "--dry-run", *options, check=False)
        real = inside("n1", "godwit", "migrate", str(v.pid), "n2", *options, check=False)
        assert planned.returncode == real.returncode == 3, (planned, real)
        if options:
            assert json.loads(planned.stdout)["refusals"] == json.loads(real.stdout)["refusals"] != []
        else:
            assert planned.stderr == real.stderr
    for where, status in (("nowhere.invalid", 1), ("n1", 3)):
        planned, real = (inside("n1", "godwit", "migrate", str(v.pid), where, *options, check=False) for options in (["--dry-run"], []))
        assert (planned.returncode, planned.stderr) == (real.returncode, real.stderr) and planned.returncode == status, (planned, real)
    v.clean()


def test_drain_and_balance(lab2):
    v, w = Victim(lab2, "drained", command=COMMAND).wait_ready(), Victim(lab2, "refuse_watch", expect_move=False).wait_ready()
    before = state(v)
    also = ["--also", str(v.pid), "--also", str(w.pid)]
    done = inside("n1", "godwit", "drain", "n1", "--dry-run", "--json", *also, check=False)
    said = json.loads(done.stdout)
    words = inside("n1", "godwit", "drain", "--dry-run", *also, check=False)
    assert done.returncode == words.returncode == 3, (done, words)
    assert state(v) == before and said["state"] == "ok", "--dry-run drained"
    assert "ok" in inside("n1", "sh", "-c", "godwit nodes | grep ^n1").stdout
    assert [(m["unit"], m["plan"]["outcome"]) for m in said["moves"]] == [(f"n1:{v.pid}", "possible")] and said["moves"][0]["to"] in ("n2", "n3"), said
    assert [u["pid"] for u in said["stayed"]] == [w.pid] and said["stayed"][0]["error"]["refusals"], said
    assert "1 would move, 1 cannot" in words.stdout and f"n1:{v.pid} to n" in words.stdout and f"n1:{w.pid} (process" in words.stdout, words
    real = json.loads(inside("n1", "godwit", "drain", "--json", *also, check=False).stdout)
    inside("n1", "godwit", "undrain")
    assert [m["unit"] for m in real["moved"]] == [f"n1:{v.pid}"] and [u["pid"] for u in real["stayed"]] == [w.pid], real
    balance = json.loads(inside("n1", "godwit", "balance", "--dry-run", "--json").stdout)
    assert balance["plan"] == [] and balance["balance"] is False, balance
    assert "it would move nothing now" in inside("n1", "godwit", "balance", "on", "--dry-run").stdout
    assert not json.loads(inside("n1", "godwit", "balance", "status", "--json").stdout)["balance"]
    assert inside("n1", "godwit", "balance", "off", "--dry-run", check=False).returncode == 2
    v.clean()
    w.clean()
