# SPDX-License-Identifier: GPL-2.0-or-later
"""Units are copied to other nodes, and go on there when theirs has failed: once, and as they were when they were last copied."""

import json
import os
import shutil
import signal
import time

import pytest
from lab_driver import STATE, copies, inside, kill, lab, main_daemon, popen, read, wait_until

# Counts, in memory and in a file, so that what was lost can be seen; ends when it is told to.
COUNTER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
n = 0
while True:
    n += 1
    with open(sys.argv[1], "a") as f:
        f.write("%d %.3f %s\\n" % (n, time.time(), os.uname().nodename))
    time.sleep(0.02)
"""


class Counter:
    """One of them, in a host; its file is told apart by its name."""

    def __init__(self, lab_, host="n1", text=COUNTER):
        self.directory = lab_.directory("counter")
        self.path = os.path.join(self.directory, "count")
        program = os.path.join(self.directory, "counter.py")
        with open(program, "w") as f:
            f.write(text)
        inside(host, "sh", "-c", f"setsid -f /usr/bin/python3 {program} {self.path} </dev/null >/dev/null 2>&1")
        wait_until("it counts", lambda: read(self.path))
        self.host, self.pid = host, self.processes()[0][1].host_pid
        self.unit = f"{host}:{self.pid}"

    def processes(self):
        return copies(["n1", "n2", "n3"], self.path)

    def hosts(self):
        return [host for host, _ in self.processes()]

    def counts(self):
        return [int(line.split()[0]) for line in read(self.path).splitlines() if line]

    def goes_on(self):
        n = len(self.counts())
        wait_until("it counts on", lambda: len(self.counts()) > n + 2)

    def end(self):
        for _, p in self.processes():
            kill(p.pid, signal.SIGKILL)


    def lines(self):
        """(number, time, host)"""
        return [(int(n), float(when), host) for n, when, host in (line.split() for line in read(self.path).splitlines() if line.count(" ") == 2)]

    def ran_on(self):
        """Hosts, one after the other: what has ended on one before it begins on another is there once."""
        hosts = [host for _, _, host in sorted(self.lines(), key=lambda line: line[1])]
        return [host for i, host in enumerate(hosts) if not i or host != hosts[i - 1]]


def godwit(host, *arguments, check=True):
    done = inside(host, "godwit", *map(str, arguments), "--json", check=False, timeout=120)
    assert not check or done.returncode == 0, f"godwit {' '.join(map(str, arguments))}: {done.returncode}: {done.stdout} {done.stderr}"
    return json.loads(done.stdout)


def unit_of(host, counter):
    return next((u for u in godwit(host, "ps")["units"] if u["unit"] == counter.unit and "moves" in u), None)


def protect(counter, *options):
    return godwit(counter.host, "protect", counter.pid, "--every", "300ms", *options)


def records(host):
    """What a node keeps of copies: {unit: record}."""
    text = inside(host, "sh", "-c", f"cat /var/lib/godwit/{host}.copies/*.json 2>/dev/null; true").stdout
    return {r["unit"].split("@")[0]: r for r in map(json.loads, text.replace("}{", "}\n{").splitlines())}


def files(host):
    return inside(host, "sh", "-c", f"ls /var/lib/godwit/{host}.copies 2>/dev/null; true").stdout.split()


@pytest.fixture
def counters(lab2):
    made = []

    def make(host="n1"):
        made.append(Counter(lab2, host))
        return made[-1]
    yield make
    for counter in made:
        counter.end()
    wait_until("nothing is protected any more", lambda: not any(p.name == "godwit-protect" for host in lab2.hosts if main_daemon(host) for p in lab_processes(host)), 20)
    for host in lab2.hosts:
        inside(host, "sh", "-c", f"rm -rf /var/lib/godwit/{host}.copies", check=False)


def lab_processes(host):
    from lab_driver import processes
    return processes(host)


def complete(host, counter):
    """When the newest copy that all have was made, if there is a newer one than before."""
    u = unit_of(host, counter)
    return u and u.get("protect_complete_ms")


def wait_copy(counter, seconds=10):
    """A copy of what is now."""
    now = time.time() * 1000
    return wait_until("a new copy", lambda: (complete(counter.host, counter) or 0) > now, seconds)


def test_failover(counters):
    """A node dies: what was protected there goes on elsewhere, under its name, as it was, once, and is copied again. Who protects was restarted before."""
    counter, plain = counters(), counters()
    result = protect(counter, "--copies", "2")
    assert result["protect_have"] == 2 and result["protect_made"] == 1 and result["protect_freeze_us"] > 0
    for host in ("n2", "n3"):
        assert records(host)[counter.unit]["owner"] == "n1"
        mode = inside(host, "sh", "-c", f"stat -c %a /var/lib/godwit/{host}.copies /var/lib/godwit/{host}.copies/*").stdout.split()
        assert mode[0] == "700" and set(mode[1:]) == {"600"}, mode
    lab("restart-daemon", "n1")
    wait_copy(counter)
    assert unit_of("n3", counter)["protect_have"] == 2
    refused = godwit("n2", "failover", "n1", "--yes", check=False)
    assert "n1 answers" in refused["error"]["message"] and counter.hosts() == ["n1"], refused
    lab("kill", "n1")
    before = counter.counts()
    done = godwit("n3", "failover", "n1", "--yes")
    assert [u["unit"] for u in done["restored"]] == [counter.unit] and done["left"] == [] and 0 < done["restored"][0]["age_ms"] < 5000, done
    assert len(counter.hosts()) == 1 and plain.hosts() == []
    counter.goes_on()
    after = counter.counts()[len(before):]
    assert before[-1] - 50 * (done["restored"][0]["age_ms"] / 1000 + 1) < after[0] <= before[-1] + 1, (before[-3:], after[:3], done)
    assert after == list(range(after[0], after[0] + len(after)))
    counter.host = counter.hosts()[0]
    assert unit_of(counter.host, counter)["moves"] == 1 and "n1 has failed" in unit_of(counter.host, counter)["reason"]
    assert godwit("n2", "failover", "n1", "--yes") == {"restored": [], "left": []} and len(counter.hosts()) == 1
    other = "n3" if counter.host == "n2" else "n2"
    wait_until("it is copied again", lambda: records(other)[counter.unit]["owner"] == counter.host)
    lab("start", "n1")


def chain(host, counter):
    """The sizes of the images that a node keeps of a unit, the first one's first; and what it says of them."""
    directory = f"/var/lib/godwit/{host}.copies"
    lines = inside(host, "sh", "-c", f"cd {directory} && stat -c '%n %s' *.img").stdout.splitlines()
    return [int(line.split()[1]) for line in sorted(lines) if line.startswith(counter.unit + "@")], records(host)[counter.unit]


def test_only_what_is_new(counters):
    """Copies are of what is new; who has lost what they need gets a whole one, and the last of a chain is restored as it was."""
    counter = counters()
    protect(counter, "--copies", "2")

    def grown(n=3):
        sizes, record = chain("n2", counter)
        return len(sizes) >= n and record["base"] < record["seq"] and sizes
    sizes = wait_until("a chain", grown)
    assert all(size < sizes[0] / 4 for size in sizes[1:]), sizes
    assert chain("n2", counter)[1]["bytes"] >= sum(sizes)
    before = records("n3")[counter.unit]["base"]
    inside("n3", "sh", "-c", f"rm /var/lib/godwit/n3.copies/{counter.unit}@*.{before}.img")
    wait_until("a whole one", lambda: records("n3")[counter.unit]["base"] > before and records("n2")[counter.unit]["base"] == records("n3")[counter.unit]["base"])
    wait_copy(counter)
    assert unit_of("n1", counter)["protect_have"] == 2
    wait_until("a chain", lambda: grown(2))
    lab("kill", "n1")
    seen = counter.counts()
    done = godwit("n3", "failover", "n1", "--yes")
    assert [u["unit"] for u in done["restored"]] == [counter.unit], done
    counter.goes_on()
    after = counter.counts()[len(seen):]
    assert seen[-1] - 200 < after[0] <= seen[-1] + 1 and after == list(range(after[0], after[0] + len(after)))
    counter.host = counter.hosts()[0]
    lab("start", "n1")


def test_moves_and_ends(counters):
    """Protection goes along with a unit, by its own words and in time; a unit that has ended is never restored, nor is one that is not protected any more."""
    counter, other = counters(), counters()
    protect(counter, "--to", "n2")
    protect(other, "--to", "n2")
    assert godwit("n3", "unprotect", other.unit)["was_protected"] and not godwit("n1", "unprotect", other.pid)["was_protected"]
    assert godwit("n1", "migrate", counter.pid, "n3")["outcome"] == "moved"
    counter.host = "n3"
    wait_until("its copies come from there", lambda: records("n2")[counter.unit]["owner"] == "n3" and records("n2")[counter.unit]["moves"] == 1 and records("n2")[counter.unit]["state"] == 1)
    wait_copy(counter)
    assert records("n2")[other.unit]["state"] == 2
    for _, p in counter.processes():
        os.kill(p.pid, signal.SIGTERM)
    wait_until("its end is known", lambda: records("n2")[counter.unit]["state"] == 2)
    assert not [name for name in files("n2") if name.endswith(".img")]
    lab("kill", "n3")
    assert godwit("n1", "failover", "n3", "--yes")["restored"] == [] and counter.hosts() == []
    lab("start", "n3")


def test_cut_off(counters):
    """A node that was taken for dead and is not: when it is reachable again it ends its old copies, and what runs elsewhere goes on."""
    counter = counters()
    protect(counter, "--copies", "2")
    lab("cut", "n1", "n2")
    refused = godwit("n3", "failover", "n1", "--yes", check=False)
    assert "n1 answers" in refused["error"]["message"], refused
    lab("cut", "n1", "n3")
    assert [u["unit"] for u in godwit("n3", "failover", "n1", "--yes")["restored"]] == [counter.unit]
    assert sorted(counter.hosts())[0] == "n1" and len(counter.hosts()) == 2      # the price of saying that it is dead
    lab("heal", "n1", "n2")
    lab("heal", "n1", "n3")
    wait_until("the old copy has ended", lambda: "n1" not in counter.hosts(), 15)
    assert len(counter.hosts()) == 1
    counter.goes_on()
    time.sleep(1)
    assert len(counter.hosts()) == 1 and counter.hosts() != ["n1"]


def test_two_ask_at_once(counters):
    """Two say at the same time that a node is dead: each unit is restored once."""
    made = [counters() for _ in range(3)]
    asked = [popen("n1", "godwit", "protect", str(c.pid), "--every", "1s", "--copies", "2", stdout=-3) for c in made]
    assert [p.wait() for p in asked] == [0, 0, 0]
    lab("kill", "n1")
    asked = [popen(host, "godwit", "failover", "n1", "--yes", "--json", stdout=-1) for host in ("n2", "n3")]
    said = [json.loads(p.communicate()[0]) for p in asked]
    restored = [u["unit"] for answer in said for u in answer["restored"]]
    assert sorted(restored) == sorted(c.unit for c in made), said
    for counter in made:
        assert len(counter.hosts()) == 1
        counter.goes_on()
    lab("start", "n1")


def test_cannot(counters):
    """What cannot be copied, or is not wanted anywhere, is not protected, and it is said why."""
    counter = counters()
    refused = godwit("n1", "protect", counter.pid, "--copies", "3", check=False)
    assert "2 nodes can be reached" in refused["error"]["message"], refused
    inside("n2", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && printf '[access]\\narriving_users = 1000-2000\\n' >> /etc/godwit/godwit.conf")
    inside("n3", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && printf '[protect]\\nkeep = no\\n' >> /etc/godwit/godwit.conf")
    try:
        lab("restart-daemon", "n3")
        lab("restart-daemon", "n2")
        refused = godwit("n1", "protect", counter.pid, "--to", "n2", check=False)
        assert "could not restore it" in refused["error"]["message"], refused
        refused = godwit("n1", "protect", counter.pid, "--to", "n3", check=False)
        assert "it keeps no copies" in refused["error"]["message"], refused
        assert not godwit("n1", "unprotect", counter.pid)["was_protected"]
    finally:
        for host in ("n2", "n3"):
            inside(host, "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
            lab("restart-daemon", host)
    piped = popen("n1", "sh", "-c", "echo $$; exec sleep 97.5", stdin=-1, stdout=-1)
    try:
        pid = piped.stdout.readline().strip()
        refused = godwit("n1", "protect", pid, check=False)
        assert "no image could be made" in refused["error"]["message"] and "pipe" in refused["error"]["message"], refused
    finally:
        piped.kill()
        inside("n1", "pkill", "-f", "sleep 97.5", check=False)


ETCD = """[node]
name = {name}
listen = {address}
[cluster]
etcd = http://10.66.0.101:2379
etcd_lease_s = 4
"""


@pytest.fixture
def with_etcd(lab2):
    """etcd on a host that is no node; leases of four seconds."""
    inside("x1", "rm", "-rf", "/tmp/etcd")
    etcd = popen("x1", "etcd", "--data-dir", "/tmp/etcd", "--listen-client-urls", "http://10.66.0.101:2379", "--advertise-client-urls", "http://10.66.0.101:2379", "--listen-peer-urls",
                 "http://127.0.0.1:2380", stdin=-3, stdout=-3, stderr=-3)
    wait_until("etcd", lambda: "true" in inside("x1", "curl", "-s", "http://10.66.0.101:2379/health", check=False).stdout, 20)
    for i, host in enumerate(lab2.hosts):
        path = os.path.join(STATE, f"hosts/{host}/etc/godwit.conf")
        shutil.copy(path, path + ".kept")
        with open(path, "a") as f:
            f.write(ETCD.format(name=host, address=f"10.66.0.{i + 1}"))
        lab("restart-daemon", host)
    yield
    lab2.mend()
    for host in lab2.hosts:
        path = os.path.join(STATE, f"hosts/{host}/etc/godwit.conf")
        os.rename(path + ".kept", path)
    inside("x1", "pkill", "-x", "etcd", check=False)
    etcd.wait()
    for host in lab2.hosts:
        lab("restart-daemon", host)


def cut_off(host, verb="cut"):
    for other in ("n1", "n2", "n3", "x1"):
        if other != host:
            lab(verb, host, other)


def test_by_itself(counters, with_etcd):
    """With etcd nobody has to say that a node has failed. One that is cut off and lives has ended its units before they begin elsewhere; one that dies is missed, as well."""
    counter = counters()
    wait_until("a lease", lambda: "no-lease" not in str(godwit("n1", "protect", counter.pid, "--every", "300ms", "--copies", "2", check=False)))
    wait_copy(counter)
    assert "nobody need say it" in godwit("n2", "failover", "n1", "--yes", check=False)["error"]["message"]
    lab("restart-daemon", "n1")
    wait_copy(counter)
    assert counter.hosts() == ["n1"]
    cut_off("n1")
    wait_until("it runs elsewhere", lambda: set(counter.hosts()) - {"n1"}, 20)
    assert len(counter.hosts()) == 1
    assert counter.ran_on() == ["n1", counter.hosts()[0]]
    cut_off("n1", "heal")
    counter.host = counter.hosts()[0]
    wait_until("it is protected on two nodes again", lambda: (unit_of(counter.host, counter) or {}).get("protect_have") == 2, 20)
    assert len(counter.hosts()) == 1 and unit_of("n1", counter)["moves"] == 1
    dies = counter.host
    lab("kill", dies)
    wait_until("it runs elsewhere again", lambda: set(counter.hosts()) - {dies}, 20)
    assert len(counter.hosts()) == 1 and dies not in counter.hosts()
    counter.goes_on()
    assert counter.ran_on() == ["n1", dies, counter.hosts()[0]]
    lab("start", dies)
