# SPDX-License-Identifier: GPL-2.0-or-later
"""States that cannot move are refused before the process is touched: exit status 3, the thing named, the process goes on unharmed."""

import errno
import os
import re
import subprocess

import pytest

from lab_driver import EXIT_REFUSED, REFUSED, VICTIMS, Victim, copies, inside, lab, migrate, read, strangers, victim_kinds, wait_until

KINDS = [(name, text) for name, flags, text in victim_kinds() if flags & REFUSED]


# What the kernel shows to the process alone: known when it stands still, so that `godwit check` cannot tell.
ONLY_WHEN_STOPPED = ("refuse_seccomp_notify",)
# What only the destination knows.
ONLY_THERE = ("refuse_watch", "refuse_mark")


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
        wait_until("the destination's worker has ended", lambda: not strangers("n2"), 2)
        if name not in ONLY_WHEN_STOPPED:
            check = inside("n1", "godwit", "check", str(v.pid), *(["--to", "n2"] if name in ONLY_THERE else []), check=False)
            assert check.returncode != 0 and re.search(expected, check.stdout + check.stderr, re.S), f"godwit check: {check.stdout}{check.stderr}"
        v.ask()
        assert v.verdict() == "ok", v.verdict_line()
    finally:
        v.clean()


def test_what_only_the_destination_refuses(lab2):
    """Another directory lies where the program's working directory is: nothing that this host knows."""
    inside("n2", "sh", "-c", "mkdir -p /dev/shm/asked && touch /dev/shm/asked/held")
    v = Victim(lab2, "ws_random", 8, expect_move=False).wait_ready()
    said = inside("n1", "godwit", "check", str(v.pid), "--to", "n2")
    assert said.stdout == f"Process {v.pid} can move to n2.\n", said
    assert not copies(["n2"], v.status) and v.process().state != "T"
    v.assert_ok()
    inside("n1", "sh", "-c", "mkdir -p /dev/shm/asked && echo 1 > /dev/shm/asked/held")
    held = "import sys,time\nf=open('/dev/shm/asked/held','r+')\nopen(sys.argv[1],'w').write('ready %d\\n'%__import__('os').getpid())\ntime.sleep(100)\n"
    v = Victim(lab2, "held", command=["/usr/bin/python3", "-c", held, "STATUS"], expect_move=False).wait_ready()
    refused = migrate("n1", v.pid, "n2")
    assert refused.status == EXIT_REFUSED, refused.why()
    alone = inside("n1", "godwit", "check", str(v.pid), check=False)
    assert alone.returncode == 0, alone
    asked = inside("n1", "godwit", "check", str(v.pid), "--to", "n2", check=False)
    assert asked.returncode == 1 and "/dev/shm/asked/held" in asked.stdout and refusals_text(refused).split("\n")[0].split(" ")[0] in asked.stdout, asked
    wait_until("the destination's worker has ended", lambda: not strangers("n2"), 2)
    v.clean()
    for given, status, words in ((["--to", "n2"], 2, "--to needs a process"), ([str(os.getpid()), "--to", "nowhere.invalid"], 1, "nowhere.invalid")):
        bad = inside("n1", "godwit", "check", *given, check=False)
        assert bad.returncode == status and words in bad.stderr, bad


def runs_32_bit():
    try:
        p = subprocess.Popen([os.path.join(VICTIMS, "i386"), "/dev/null"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as e:
        assert e.errno == errno.ENOEXEC, e
        return False
    p.kill()
    p.wait()
    return True


def test_refused_32_bit(lab2):
    if not runs_32_bit():       # a kernel without them has none to refuse
        return
    v = Victim(lab2, "i386", command=[os.path.join(VICTIMS, "i386"), "STATUS"], expect_move=False).wait_ready()
    result = migrate("n1", v.pid, "n2")
    assert result.status == EXIT_REFUSED, result.why()
    assert re.search("(?i)32-bit|i386|64-bit", refusals_text(result)), refusals_text(result)
    assert copies(["n1"], v.status) and not copies(["n2"], v.status)


def test_no_such_process(lab2):
    result = migrate("n1", 29999, "n2")
    assert result.status not in (0, 99), result.text
    assert "29999" in result.text, result.text
    for given, status, words in ((["29999", "n2"], 1, "was not found"), (["--strategy", "none", "1", "n2"], 2, "no strategy 'none'"),
                                 (["--none", "1", "n2"], 2, "there is no option '--none'"), (["one", "n2"], 2, "no process number")):
        said = inside("n1", "godwit", "migrate", *given, check=False)
        assert said.returncode == status and words in said.stderr, said
        assert "goes on" not in said.stderr, said


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


TCP_PORTS = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
l, c = socket.socket(), socket.socket()
for s in l, c:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(("127.0.0.1", 45711)); l.listen(); c.bind(("127.0.0.1", 45712)); c.connect(l.getsockname()); s, _ = l.accept(); l.close()
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
s.sendall(b"still here"); assert c.recv(10) == b"still here"
print("ok", flush=True)
"""


def test_same_ports_taken(lab2):
    """A connection over the loopback interface whose two ports another one has on the destination."""
    from lab_driver import popen, processes
    running = {h: popen(h, "python3", "-c", TCP_PORTS, stdin=-3, stdout=-1, stderr=-3) for h in ("n1", "n2")}
    try:
        for p in running.values():
            assert p.stdout.readline().strip() in ("ready", b"ready")
        units = {h: next(q for q in processes(h) if "45711" in q.cmdline and q.name.startswith("python")) for h in running}
        result = migrate("n1", units["n1"].host_pid, "n2")
        assert result.status == EXIT_REFUSED, result.why()
        assert "same two ports" in refusals_text(result), refusals_text(result)
        for h, p in running.items():
            inside(h, "kill", str(units[h].host_pid))
            assert p.stdout.readline().strip() in ("ok", b"ok"), f"the connection on {h} is broken"
    finally:
        for p in running.values():
            p.kill()
            p.wait()


def test_file_that_something_is_mounted_over(lab2):
    """No path leads to it: at the destination another file would be opened, or made."""
    from lab_driver import popen, processes, wait_until
    inside("n2", "mkdir", "-p", "/tmp/over")
    p = popen("n1", "unshare", "-m", "sh", "-c", "mkdir -p /tmp/over && echo below >/tmp/over/file && exec 5</tmp/over/file && mount -t tmpfs over /tmp/over && sleep 58.5 && cat <&5",
              stdin=-3, stdout=-1, stderr=-3)
    try:
        wait_until("the program", lambda: next((q for q in processes("n1") if q.cmdline == "sleep 58.5"), None))
        unit = next(q for q in processes("n1") if q.cmdline.startswith("sh -c mkdir -p /tmp/over"))
        result = migrate("n1", unit.host_pid, "n2")
        assert result.status == EXIT_REFUSED and "mounted over" in refusals_text(result), result.why()
    finally:
        inside("n1", "pkill", "-f", "^sleep 58.5")
        p.communicate()


def test_shared_file_that_something_is_mounted_over(lab2):
    """The destination's root has it as well, below the mount."""
    v = Victim(lab2, "ns_mounted_over").wait_ready()
    v.migrate("n2")    # and no further: of the first host's mounts, which it has, the third may lack some
    v.assert_ok()


def test_output_from_outside_the_host(lab2, tmp_path):
    """A file that whoever started the program opened in another mount namespace: no name in this one leads to it, but its file system is the root of both hosts."""
    from lab_driver import popen, processes, wait_until
    script = "echo begun; until [ -e $1.1 ]; do sleep 0.1; done; echo one; until [ -e $1.2 ]; do sleep 0.1; done; echo two"
    flag = inside("n1", "mktemp", "-u", "/var/tmp/godwit-XXXXXX").stdout.strip()
    with open(tmp_path / "out", "w", encoding="utf-8") as out:
        p = popen("n1", "sh", "-c", f"sh -c '{script}' godwit-out {flag}", stdin=-3, stdout=out, stderr=-3)
    try:
        unit = wait_until("the program", lambda: next((q for q in processes("n1") if q.cmdline.startswith("sh -c echo begun")), None))
        moved = migrate("n1", unit.host_pid, "n2")
        assert moved.status == 0, moved.why()
        inside("n1", "touch", f"{flag}.1")
        wait_until("output on the second host", lambda: (tmp_path / "out").read_text() == "begun\none\n", 20)
        moved = migrate("n2", moved.json["pid"], "n3", "stop-copy")
        assert moved.status == 0, moved.why()
        inside("n1", "touch", f"{flag}.2")
        wait_until("output on the third host", lambda: (tmp_path / "out").read_text() == "begun\none\ntwo\n", 20)
        assert p.wait(20) == 0
    finally:
        inside("n1", "sh", "-c", f"touch {flag}.1 {flag}.2; sleep 0.5; rm -f {flag}.1 {flag}.2")
        p.kill()
        p.wait()
