# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened in moves is remembered where they began, and shown to whom it is for."""

import json

from lab_driver import inside, migrate, wait_until

USER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def start_as(*ids):
    pid = int(inside("n1", *ids, "sh", "-c", "setsid sleep 900 </dev/null >/dev/null 2>&1 & echo $!").stdout)
    wait_until("it sleeps", lambda: "sleep" in inside("n1", "cat", f"/proc/{pid}/comm", check=False).stdout)
    return pid


def trace(host, *options, user=()):
    return json.loads(inside(host, *user, "godwit", "trace", "--json", *options).stdout)


def test_trace(lab2):
    """A unit goes to n2 and n3: the whole of it is known on each node, also when it has ended; what is another's is not."""
    theirs, roots = start_as(*USER), start_as("setpriv", "--reuid=0")
    unit = f"n1:{theirs}"
    try:
        for source, dest in (("n1", "n2"), ("n2", "n3")):
            inside(source, "godwit", "migrate", unit, dest)
        migrate("n1", roots, "n2", "pre-copy")
    finally:
        inside("n3", "kill", str(theirs))
        inside("n2", "kill", str(roots))
    for host in ("n1", "n2", "n3"):
        said = trace(host, "--all", unit)
        assert [(m["node"], m["from"], m["to"], m["outcome"]) for m in said["moves"]] == [("n1", "n1", "n2", "moved"), ("n2", "n2", "n3", "moved")], said
        assert not said["silent"] and not said["running"], said
    first = trace("n3", "--all", unit)["moves"][0]
    spans = {s["name"]: s for s in first["spans"]}
    steps = ["begin", "hello", "offer", "agent", "content", "prepare", "rounds", "freeze", "go", "commit", "home", "push", "release"]
    assert list(spans) == ["migrate", *steps, "frozen"], spans
    ends = [spans[s]["end_ns"] for s in steps]
    assert ends == sorted(ends) and [spans[s]["start_ns"] for s in steps[1:]] == ends[:-1], spans
    whole, frozen = spans["migrate"], spans["frozen"]
    assert whole["start_ns"] == spans["begin"]["start_ns"] and ends[-1] <= whole["end_ns"], spans
    assert spans["freeze"]["start_ns"] <= frozen["start_ns"] <= spans["freeze"]["end_ns"] and spans["go"]["start_ns"] < frozen["end_ns"] < whole["end_ns"], spans
    assert {"parked", "go sent"} <= {e["name"] for e in first["events"]}, first["events"]
    assert [m["unit"] for m in trace("n2", "--last", "100", user=USER)["moves"]].count(f"n1:{roots}") == 0
    assert [m["unit"] for m in trace("n2", "--last", "100", user=USER)["moves"]].count(unit) == 2
    assert [m["strategy"] for m in trace("n3", f"n1:{roots}")["moves"]] == ["pre-copy"]
