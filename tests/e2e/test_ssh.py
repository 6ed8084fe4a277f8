# SPDX-License-Identifier: GPL-2.0-or-later
"""By ssh to a host where nothing but sshd and godwit is set up, and which knows nothing of the one that it comes from."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from lab_driver import BUILD, STATE, Victim, copies, inside, kill, main_daemon, migrate, popen, processes, read, wait_until
from test_home_relay import ECHO, Piped

PORT = "2222"
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
THERE = {f"n{i}": f"root@10.66.0.{i}" for i in (1, 2, 3)}


class Ssh:
    """sshd in hosts of the lab, and how it is called from others."""

    def __init__(self, lab_):
        self.lab, self.directory, self.running = lab_, lab_.directory("ssh"), []
        os.chmod(self.directory, 0o700)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path(key)], check=True)
        self.write("known", "".join(f"[{there[5:]}]:{PORT} {read(self.path('host.pub'))}" for there in THERE.values()))
        for name, known in (("config", "known"), ("stranger", "none")):
            self.write(name, f"Port {PORT}\nIdentityFile {self.path('user')}\nIdentitiesOnly yes\nUserKnownHostsFile {self.path(known)}\nGlobalKnownHostsFile none\n")

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as f:
            f.write(text)

    def start(self, host, path=f"{BUILD}/src/cli:{BUILD}/src/daemon:/usr/bin:/bin"):
        self.write(f"sshd.{host}", f"Port {PORT}\nHostKey {self.path('host')}\nAuthorizedKeysFile {self.path('user.pub')}\nPidFile none\nUsePAM no\nStrictModes no\nSetEnv PATH={path}\n")
        inside(host, "mkdir", "-p", "/run/sshd")
        sshd = popen(host, SSHD, "-D", "-e", "-f", self.path(f"sshd.{host}"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert "Server listening" in sshd.stderr.readline()
        self.running.append(sshd)

    def options(self, config="config"):
        return "--ssh", "ssh -F " + self.path(config)

    def bridge(self, host, there):
        return json.loads(inside(host, "godwit", "bridge", THERE[there], "--json", *self.options()).stdout)

    def end(self):
        for host in self.lab.hosts:
            for p in processes(host):
                if p.name in ("sshd", "ssh", "godwit-bridge"):
                    kill(p.pid, signal.SIGKILL)
        for sshd in self.running:
            sshd.stderr.close()
            sshd.wait()


def bridges(host):
    return json.loads(inside(host, "godwit", "bridge", "--json").stdout)["bridges"]


@pytest.fixture(scope="module")
def alone(whole_lab):
    """Hosts that know of no other, and whose godwitd nobody reaches."""
    whole_lab.mend()
    paths = {host: os.path.join(STATE, "hosts", host, "etc/godwit.conf") for host in whole_lab.hosts}
    before = {host: read(path) for host, path in paths.items()}

    def use(texts):
        for host, path in paths.items():
            with open(path, "w", encoding="ascii") as f:
                f.write(texts[host])
            whole_lab.restart_daemon(host)
    use({host: f"[node]\nname = {host}\nlisten = 127.0.0.1\n" for host in paths})
    yield whole_lab
    use(before)
    whole_lab.mend()


@pytest.fixture
def ssh(alone, lab2):
    made = Ssh(lab2)
    made.start("n2")
    yield made
    made.end()
    for host in lab2.hosts:
        for p in processes(host):
            if p.name == "victim":
                kill(p.pid, signal.SIGKILL)


def test_moves(lab2, ssh):
    """Whom ssh does not trust is not reached; then a process moves, and nothing is left of the way that it has gone."""
    v = Victim(lab2, "mem_anon", 4).wait_ready()
    result = migrate("n1", v.pid, THERE["n2"], options=ssh.options("stranger"))
    assert result.status == 1 and "ssh did not get to" in result.json["error"]["message"], result.text
    result = inside("n1", "godwit", "migrate", *ssh.options("stranger"), str(v.pid), THERE["n2"], check=False)
    assert "Host key verification failed" in result.stderr, result.stderr
    assert [host for host, _ in copies(lab2.hosts, v.status)] == ["n1"]
    moved = migrate("n1", v.pid, THERE["n2"], "hybrid", options=ssh.options())
    assert moved.status == 0 and moved.json["to"] == "n2" and moved.json["from"] == "n1", moved.why()
    v.host = "n2"
    v.assert_one_copy("n1", "hybrid")
    wait_until("the bridge is closed", lambda: not bridges("n1") and not bridges("n2"), 10)
    wait_until("ssh has ended", lambda: not [p for p in processes("n1") if p.name == "ssh"])
    v.assert_ok()
    v.clean()


def test_home_and_back(lab2, ssh):
    """Pipes and signals pass as long as it is away, and it comes home by the way that it has gone; a third host, which home could not reach, is refused."""
    p = Piped(lab2, "/usr/bin/python3", "-c", ECHO)
    assert p.line() == "n1 ready"
    moved = migrate("n1", p.pid, THERE["n2"], options=ssh.options())
    assert moved.status == 0, moved.why()
    p.say("one")
    assert p.line() == "n2 one"
    assert [(b["node"], b["ours"], b["address"]) for b in bridges("n1")] == [("n2", True, "10.66.0.2")]
    assert [(b["node"], b["ours"], b["address"]) for b in bridges("n2")] == [("n1", False, "10.66.0.1")]
    ssh.start("n3")
    assert ssh.bridge("n2", "n3")["node"] == "n3"
    there = migrate("n2", moved.json["pid"], "n3")
    assert there.status == 3 and [r["code"] for r in there.json["refusals"]] == ["bridge.beyond"], there.text
    busy = inside("n1", "godwit", "bridge", "--close", "n2", check=False)
    assert busy.returncode == 1 and re.search("1 connection .* over the bridge to n2", busy.stderr), busy.stderr
    assert re.search(rf"^n1:{p.pid} +n2 ", inside("n1", "godwit", "ps").stdout, re.M)
    back = migrate("n2", moved.json["pid"], "home")
    assert back.status == 0, back.why() + lab2.log_tail("n1") + lab2.log_tail("n2")
    p.say("two")
    assert p.line() == "n1 two"
    p.shell.stdin.close()
    assert p.status() == 7
    p.clean()
    wait_until("the bridge is closed", lambda: not bridges("n1"), 10)


def test_who_may(lab2, ssh):
    """Who has made a bridge may send units over it; the other host may send them back, and no others, before it has made one, too."""
    ssh.bridge("n1", "n2")
    v = Victim(lab2, "mem_anon", 4, host="n2").wait_ready()
    refused = migrate("n2", v.pid, "n1")
    assert refused.status == 3 and [r["code"] for r in refused.json["refusals"]] == ["bridge.back-only"], refused.text
    ordered = inside("n2", "godwit", "drain", "n1", check=False)
    assert ordered.returncode == 1 and "may only send back" in ordered.stderr, ordered.stderr
    ssh.start("n1")
    moved = migrate("n2", v.pid, THERE["n1"], options=ssh.options())
    assert moved.status == 0 and [(b["node"], b["ours"]) for b in bridges("n2")] == [("n1", False)], moved.why()
    v.host = "n1"
    v.assert_ok()
    v.clean()
    inside("n1", "godwit", "bridge", "--close", "n2")


def test_ssh_dies(lab2, ssh):
    """What goes over it waits until somebody makes the bridge anew."""
    p = Piped(lab2, "/usr/bin/python3", "-c", ECHO)
    assert p.line() == "n1 ready"
    moved = migrate("n1", p.pid, THERE["n2"], options=ssh.options())
    assert moved.status == 0, moved.why()
    for process in processes("n1"):
        if process.name == "ssh":
            kill(process.pid, signal.SIGKILL)
    wait_until("it is noticed", lambda: not bridges("n1") and not bridges("n2"))
    p.say("one")
    home = migrate("n2", moved.json["pid"], "home")
    assert home.status == 1 and "home" not in [b["node"] for b in bridges("n2")], home.text
    ssh.bridge("n1", "n2")
    assert p.line() == "n2 one"
    p.shell.stdin.close()
    assert p.status() == 7
    p.clean()
    done = inside("n1", "godwit", "bridge", "--close", "n2")
    assert "closed" in done.stdout and not bridges("n1")


def test_no_daemon_there(lab2, ssh):
    """One is started there, without a port, and ends when the unit has."""
    kill(main_daemon("n2").pid, signal.SIGTERM)
    wait_until("godwitd has ended", lambda: not main_daemon("n2"))
    v = Victim(lab2, "mem_anon", 4).wait_ready()
    moved = migrate("n1", v.pid, THERE["n2"], options=ssh.options())
    assert moved.status == 0, moved.why()
    v.host = "n2"
    wait_until("the bridge is closed", lambda: not bridges("n1"), 10)
    assert "4470" not in inside("n2", "ss", "-ltnu").stdout and main_daemon("n2")
    assert migrate("n2", v.pid, "home").status == 1     # nobody knows where that is
    ssh.bridge("n1", "n2")
    assert migrate("n2", v.pid, "home").status == 0
    v.host = "n1"
    assert migrate("n1", v.pid, "n2").status == 0
    v.host = "n2"
    v.assert_ok()
    v.clean()
    inside("n1", "godwit", "bridge", "--close", "n2")
    wait_until("godwitd has ended", lambda: not main_daemon("n2"), 10)


def test_bootstrap(lab2, ssh):
    """Not even the programs are there: they are brought along, run from a directory of their own, and nothing is left of them in the end."""
    ssh.end()
    ssh.start("n2", path="/usr/bin:/bin")
    kill(main_daemon("n2").pid, signal.SIGTERM)
    wait_until("godwitd has ended", lambda: not main_daemon("n2"))
    v = Victim(lab2, "mem_anon", 4).wait_ready()
    moved = migrate("n1", v.pid, THERE["n2"], options=(*ssh.options(), "--bootstrap"))
    assert moved.status == 0, moved.why()
    v.host = "n2"
    assert re.search("godwit-bootstrap-", inside("n2", "sh", "-c", "ls -l /proc/[0-9]*/exe").stdout)
    v.assert_ok()
    v.clean()
    wait_until("nothing is left", lambda: inside("n2", "sh", "-c", "ls -d /var/tmp/godwit-bootstrap-* 2>/dev/null; pgrep -x godwitd", check=False).stdout == "", 15)


def test_not_there(lab2, ssh):
    """What is missing on the other host is said."""
    ssh.end()
    ssh.start("n2", path="/usr/bin:/bin")
    v = Victim(lab2, "mem_anon", 4).wait_ready()
    if not shutil.which("godwit", path="/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin"):
        result = migrate("n1", v.pid, THERE["n2"], options=ssh.options())
        assert result.status == 1 and "not installed on root@10.66.0.2" in result.json["error"]["message"], result.text
    ssh.end()
    ssh.start("n1")
    result = migrate("n1", v.pid, THERE["n1"], options=ssh.options())
    assert result.status == 1 and "both hosts are the node n1" in result.json["error"]["message"], result.text
    assert [host for host, _ in copies(lab2.hosts, v.status)] == ["n1"]
    v.clean()
