# SPDX-License-Identifier: GPL-2.0-or-later
"""States that cannot move are refused before the process is touched: exit status 3, the thing named, the process goes on unharmed."""

import os
import re

import pytest

from lab_driver import EXIT_REFUSED, REFUSED, VICTIMS, Victim, copies, inside, lab, migrate, read, strangers, victim_kinds

KINDS = [(name, text) for name, flags, text in victim_kinds() if flags & REFUSED]


# What the kernel shows to the process alone: known when it stands still, so that `godwit check` cannot tell.
ONLY_WHEN_STOPPED = ("refuse_in_flight",)


def refusals_text(result):
    return "\n".join(" ".join(str(r.get(k, "")) for k in ("thing", "cause", "way_out")) for r in result.json.get("refusals") or [])


@pytest.mark.parametrize("name,text", KINDS, ids=[name for name, _ in KINDS])
def test_refused(lab2, name, text):
    v = Victim(lab2, name, expect_move=False).wait_ready()
    try:
        expected = text.replace("fd N", f"fd {v.info('fd')}")
        result = migrate("n1", v.pid, "n2")
        assert result.status == EXIT_REFUSED, f"{name}: expected exit status {EXIT_REFUSED}: {result.why()}"
        assert result.json.get("outcome") == "refused", result.text
        assert re.search(expected, refusals_text(result)), f"{name}: expected a refusal about {expected}, got: {refusals_text(result)}"
        for r in result.json["refusals"]:
            assert r.get("code") and r.get("thing") and r.get("cause") and r.get("way_out"), r
        assert not copies(["n2"], v.status), "something of it is on n2"
        assert not strangers("n2"), strangers("n2")
        if name not in ONLY_WHEN_STOPPED:
            check = inside("n1", "godwit", "check", str(v.pid), check=False)
            assert check.returncode != 0 and re.search(expected, check.stdout + check.stderr, re.S), f"godwit check: {check.stdout}{check.stderr}"
        v.ask()
        assert v.verdict() == "ok", v.verdict_line()
    finally:
        v.clean()


def test_refused_32_bit(lab2):
    v = Victim(lab2, "i386", command=[os.path.join(VICTIMS, "i386"), "STATUS"], expect_move=False).wait_ready()
    result = migrate("n1", v.pid, "n2")
    assert result.status == EXIT_REFUSED, result.why()
    assert re.search("(?i)32-bit|i386|64-bit", refusals_text(result)), refusals_text(result)
    assert copies(["n1"], v.status) and not copies(["n2"], v.status)


def test_controlling_terminal(lab2):
    """A shell on a terminal, as a person would have it."""
    from lab_driver import popen
    p = popen("n1", "script", "-qec", "sleep 33.25", "/dev/null", stdin=-3, stdout=-3, stderr=-3)
    try:
        from lab_driver import processes, wait_until
        sleeper = wait_until("sleep under script", lambda: next((q for q in processes("n1") if q.cmdline == "sleep 33.25"), None))
        result = migrate("n1", sleeper.host_pid, "n2")
        assert result.status == EXIT_REFUSED, result.why()
        assert re.search("(?i)tty|terminal|pts", refusals_text(result)), refusals_text(result)
    finally:
        p.kill()
        p.wait()


def test_no_such_process(lab2):
    result = migrate("n1", 29999, "n2")
    assert result.status not in (0, 99), result.text
    assert "29999" in result.text, result.text


def test_no_such_host(lab2):
    v = Victim(lab2, "ws_small", 8, expect_move=False).wait_ready()
    result = migrate("n1", v.pid, "n77")
    assert result.status not in (0, 99) and "n77" in result.text, result.text
    v.assert_ok()


def test_to_the_same_host(lab2):
    v = Victim(lab2, "ws_small", 8, expect_move=False).wait_ready()
    result = migrate("n1", v.pid, "n1")
    assert result.status == EXIT_REFUSED, result.why()
    v.assert_ok()


def test_unreachable_host(lab2):
    """The link is cut before anything begins: one sentence, no harm, no long wait."""
    v = Victim(lab2, "ws_small", 8, expect_move=False).wait_ready()
    lab("cut", "n1", "n2")
    try:
        result = migrate("n1", v.pid, "n2", options=("--timeout", "3"), timeout=30)
        assert result.status not in (0, 99), result.text
        assert "n2" in result.text, result.text
        v.assert_ok()
    finally:
        lab("heal", "n1", "n2")


def test_kernel_check(lab2):
    done = inside("n1", "godwit", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_of_a_process_that_can_move(lab2):
    v = Victim(lab2, "ws_small", 8, expect_move=False).wait_ready()
    before = read(f"/proc/{v.process().pid}/maps")
    done = inside("n1", "godwit", "check", str(v.pid), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read(f"/proc/{v.process().pid}/maps") == before, "godwit check changed the process"
    v.assert_ok()
