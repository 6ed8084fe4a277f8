# SPDX-License-Identifier: GPL-2.0-or-later
"""What Godwit holds on each host of a lab: counted before and after many moves, so that what leaks is seen."""

import json
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "tests/e2e"))
import lab_driver  # noqa: E402

MEMORY_SLACK_KIB = 1024     # what allocators and tables may grow by, once


def entries(path):
    try:
        return len(os.listdir(path))
    except OSError:
        return 0


def count(host):
    """{what: number}"""
    init = lab_driver.init_of(host)
    there = lab_driver.processes(host)
    main = lab_driver.main_daemon(host)
    ours = [p for p in there if main and (p.pid == main.pid or p.parent == main.pid)]
    anonymous = [re.search(r"^RssAnon:\s*(\d+)", lab_driver.read(f"/proc/{p.pid}/status"), re.M) for p in ours]
    said = lab_driver.inside(host, "godwit", "connections", "--json", check=False).stdout
    namespaces = {lab_driver.readlink(f"/proc/{p.pid}/ns/{kind}") for p in there for kind in ("pid", "net", "mnt", "ipc", "uts", "user", "time", "cgroup")}
    root = f"/proc/{init}/root"
    return {"processes": len(there), "zombies": sum(p.state in "ZX" for p in there), "descriptors": sum(entries(f"/proc/{p.pid}/fd") for p in ours),
            "namespaces": len(namespaces - {""}), "mounts": lab_driver.read(f"/proc/{init}/mountinfo").count("\n"),
            "connections": len(json.loads(said)["connections"]) if said else -1,
            "files": entries(f"{root}/run/godwit") + entries(f"{root}/var/lib/godwit"),
            "KiB": sum(int(m.group(1)) for m in anonymous if m)}


def differences(before, after):
    """What there is more of, as text; memory may grow by a little. What units of before have left for a while (connections that end) may be gone meanwhile."""
    return [f"{host}: {what} {old} before, {after[host][what]} after" for host, counted in before.items() for what, old in counted.items()
            if after[host][what] > old + (MEMORY_SLACK_KIB if what == "KiB" else 0)]


def settled(hosts, before=None, seconds=60):
    """The counts of all hosts; with some from before, as soon as they are the same, or after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        now = {host: count(host) for host in hosts}
        if not before or not differences(before, now) or time.monotonic() > end:
            return now
        time.sleep(0.5)
