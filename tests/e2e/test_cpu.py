# SPDX-License-Identifier: GPL-2.0-or-later
"""Processors that are not alike: a host of the lab that is said to lack what this machine has."""

import json
import re

from lab_driver import inside, wait_until

REFUSED = 3
SLEEPER = """import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
[os.close(f) for f in (0, 1, 2)]
while not os.path.exists('/tmp/now'): time.sleep(0.05)
os.execv('/bin/sleep', ['sleep', '900'])
"""


def start(host, *before):
    return int(inside(host, *before, "/usr/bin/python3", "-c", SLEEPER).stdout)


def refusal(host, unit, to):
    """What is said of the processor; the process is where it was."""
    done = inside(host, "godwit", "migrate", "--json", str(unit), to, check=False)
    assert done.returncode == REFUSED, done
    assert inside(host, "test", "-e", f"/proc/{unit}", check=False).returncode == 0
    return [r["thing"] for r in json.loads(done.stdout)["refusals"] if r["code"] == "host.cpu"]


def test_a_host_lacks_something(lab2):
    inside("n2", "sh", "-c", "cp /etc/godwit/godwit.conf /tmp/conf && sed -i 's/^name = /cpu_without = sse4_2, popcnt\\n&/' /etc/godwit/godwit.conf")
    try:
        lab2.restart_daemon("n2")
        plain, confined, its = start("n1"), start("n1", "godwit", "run", "--here", "--cpu-baseline", "x86-64", "--"), start("n2")
        said = refusal("n1", plain, "n2")
        assert len(said) == 1 and "sse4_2" in said[0] and "popcnt" in said[0] and "avx" not in said[0], said
        inside("n1", "godwit", "migrate", str(confined), "n2")
        inside("n2", "godwit", "migrate", str(confined), "n1")
        # What began there has chosen what is there, and may go back, also over a third host; what begins elsewhere may not.
        for host, to in (("n2", "n1"), ("n1", "n3"), ("n3", "n2"), ("n2", "n1")):
            inside(host, "godwit", "migrate", f"n2:{its}", to)
        inside("n1", "touch", "/tmp/now")
        wait_until("it is another program", lambda: "sleep" in inside("n1", "cat", f"/proc/{its}/comm").stdout)
        assert refusal("n1", its, "n2")
        for host, pid in (("n1", plain), ("n1", confined), ("n1", its)):
            inside(host, "kill", str(pid))
    finally:
        inside("n2", "sh", "-c", "cp /tmp/conf /etc/godwit/godwit.conf")
        inside("n1", "rm", "-f", "/tmp/now")
        lab2.restart_daemon("n2")


def test_libraries_know_of_the_level(lab2):
    """What the dynamic linker finds usable, with and without."""
    def active(*before):
        text = inside("n1", *before, "/lib64/ld-linux-x86-64.so.2", "--list-diagnostics").stdout
        return int(re.search(r"features\[0x1\]\.active\[0x1\]=(0x[0-9a-f]+)", text).group(1), 16)

    avx2 = 1 << 5
    with open("/proc/cpuinfo") as cpus:
        has = " avx2 " in cpus.read()
    assert bool(active() & avx2) == has
    assert not active("godwit", "run", "--here", "--cpu-baseline", "x86-64-v2", "--") & avx2
    assert bool(active("godwit", "run", "--here", "--cpu-baseline", "x86-64-v3", "--") & avx2) == has
    done = inside("n1", "godwit", "run", "--cpu-baseline", "v2", "--", "true", check=False)
    assert done.returncode == 2 and "x86-64-v2" in done.stderr
