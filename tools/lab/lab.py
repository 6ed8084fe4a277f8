#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts on this machine: makes them, ends them, and cuts the links between them.

Theory of operation
-------------------
A lab is a switch and hosts. The switch is a bridge in a network namespace of its own (PREFIX-net), so that the
machine's own network is neither used nor changed; its ports have the names of the hosts. A host is a network namespace
(PREFIX-n1, with eth0 and lo) and, held by its init, a pid, mount, uts and ipc namespace; labhost (C) makes, enters and
ends those. Links are cut in the switch (nftables, family bridge): the hosts notice nothing but silence.

Everything that a lab has can be found by name: namespaces by their prefix, inits by their command line, files in the state
directory. So `down` needs no record of what `up` did, and works after any crash.

Environment: GODWIT_LAB=NAME makes a lab of its own beside the default one ("gw"): namespaces NAME-n1, state in
/var/tmp/godwit-lab-NAME, the same addresses. GODWIT_LAB_DIR sets the state directory, GODWIT_BUILD the build directory
whose programs the hosts run. GODWIT_LAB_PEER_TIMEOUT_MS goes into the hosts' godwit.conf as peer_timeout_ms.
With GODWIT_LAB_TLS=1 they have certificates, by a CA in the state directory (pki), and speak TLS with each other.
"""

import argparse
import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PREFIX = os.environ.get("GODWIT_LAB") or "gw"
STATE = os.environ.get("GODWIT_LAB_DIR") or "/var/tmp/godwit-lab" + ("" if PREFIX == "gw" else "-" + PREFIX)
BUILD = os.path.realpath(os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build"))
LABHOST = os.path.join(BUILD, "tools/lab/labhost")
SUBNET = "10.66.0."
OUTSIDE = 100                   # x1 is 10.66.0.101
PID_STEP = 10000                # distance between the first pids of two hosts
DAEMON_READY_SECONDS = 30
MOUNT_POINTS = ["/var/lib/godwit", "/etc/godwit"]


class LabError(Exception):
    """A failure with a sentence for the user."""


def run(*command, check=True):
    """Runs a command; a failure is a LabError with what it printed."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as e:
        raise LabError(f"{command[0]}: {e.strerror}") from e
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip() or f'exit status {done.returncode}'}")
    return done


def netns(name):
    return f"{PREFIX}-{name}"


def in_switch(*command, check=True):
    return run("ip", "netns", "exec", netns("net"), *command, check=check)


def host_dir(name):
    return os.path.join(STATE, "hosts", name)


def host_index(name):
    """n1 is 1, x1 is 101: the last number of the address."""
    number = int(name[1:])
    return number if name[0] == "n" else OUTSIDE + number


def address(name):
    return SUBNET + str(host_index(name))


def is_node(name):
    return name[0] == "n"


def write_file(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


def read_file(path, default=""):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return default


def load():
    """What `up` was asked for, or an error that says that there is no lab."""
    text = read_file(os.path.join(STATE, "lab.json"))
    if not text:
        raise LabError(f"there is no lab '{PREFIX}' (state directory {STATE}); ./dev lab up 2 makes one")
    return json.loads(text)


def hosts_of(lab):
    return [f"n{i + 1}" for i in range(lab["nodes"])] + [f"x{i + 1}" for i in range(lab["outside"])]


def require_host(lab, name):
    if name not in hosts_of(lab):
        raise LabError(f"{name} is no host of this lab; it has {', '.join(hosts_of(lab))}")


# --- processes -------------------------------------------------------------------------------------------------------

def process_stat(pid):
    """(parent, start time) of a process, or None."""
    text = read_file(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def init_pid(name):
    """The pid of the host's init on this side, or None when the host is down."""
    fields = read_file(os.path.join(host_dir(name), "init")).split()
    if len(fields) != 2:
        return None
    stat = process_stat(int(fields[0]))
    return int(fields[0]) if stat and stat[1] == int(fields[1]) else None


def all_pids():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def readlink(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


def daemon_pid(init):
    """The godwitd that listens in a host (workers do not), as a pid of this side; None when there is none."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(f"/proc/{init}/root/run/godwit/godwitd.sock")
        except OSError:
            return None
        pid = struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid if process_stat(pid) else None


def pid_inside(pid):
    """The pid that a process of a host has there."""
    return read_file(f"/proc/{pid}/status").partition("NSpid:")[2].split("\n")[0].split()[-1]


def leftover_inits(prefix):
    """Every init or launcher of a lab (None: of any), recorded or not."""
    found = []
    for pid in all_pids():
        words = read_file(f"/proc/{pid}/cmdline").split("\0")
        if len(words) > 5 and os.path.basename(words[0]) == "labhost" and words[1] == "init" and prefix in (None, words[3]):
            found.append(pid)
    return found


def end_processes(pids, number, seconds=10):
    """Sends a signal and waits for the end; returns those that are still there."""
    left = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            left[pid] = os.pidfd_open(pid)
            signal.pidfd_send_signal(left[pid], number)
    deadline = time.monotonic() + seconds
    for pid, fd in list(left.items()):
        if select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            del left[pid]
        os.close(fd)
    return list(left)


# --- limits of memory and CPU ------------------------------------------------------------------------------------------

PERIOD_US = 100000


def group_kind(controller):
    """(directory of this lab's control groups, whether they are of version 2) for the version that this machine has the controller in."""
    if os.path.isdir(f"/sys/fs/cgroup/{controller}"):
        return f"/sys/fs/cgroup/{controller}/godwit-lab-{PREFIX}", False
    if controller in read_file("/sys/fs/cgroup/cgroup.controllers").split():
        return f"/sys/fs/cgroup/godwit-lab-{PREFIX}-limits", True
    return None, None


def group_directories():
    return {group_kind(controller)[0] for controller in ("memory", "cpu")} - {None}


def write_kernel(path, text):
    try:
        with open(path, "w") as f:
            f.write(text)
    except OSError as e:
        raise LabError(f"{path}: {e.strerror}") from e


def join_group(name, group):
    """Everything that runs in the host, and what will be started in it."""
    path = os.path.join(host_dir(name), "cgroup")
    procs = os.path.join(group, "cgroup.procs")
    write_file(path, "".join(f"{line}\n" for line in dict.fromkeys([*read_file(path).split(), procs])))
    space = readlink(f"/proc/{init_pid(name)}/ns/pid")
    for pid in all_pids():
        if readlink(f"/proc/{pid}/ns/pid") == space:
            with contextlib.suppress(LabError):     # it may have ended since
                write_kernel(procs, str(pid))


def limit(name, controller, values):
    """values(version 2?): (file, text) to write."""
    directory, v2 = group_kind(controller)
    if not directory:
        raise LabError(f"this kernel has no {controller} control groups")
    group = os.path.join(directory, name)
    os.makedirs(group, exist_ok=True)
    if v2:
        for path in ("/sys/fs/cgroup", directory):
            write_kernel(os.path.join(path, "cgroup.subtree_control"), f"+{controller}")
    for file, text in values(v2):
        write_kernel(os.path.join(group, file), text)
    join_group(name, group)


def limit_memory(name, size):
    """Version 1 of control groups takes no limit below what is in use and cannot be reclaimed at that moment."""
    tries = 20
    while True:
        try:
            limit(name, "memory", lambda v2: [("memory.max" if v2 else "memory.limit_in_bytes", size if size != "none" else "max" if v2 else "-1")])
            return
        except LabError as e:
            if getattr(e.__cause__, "errno", 0) != errno.EBUSY or not tries:
                raise
        tries -= 1
        time.sleep(0.1)


def limit_cpu(name, cores):
    """A host that is limited gets what it is limited to, whatever else runs on the machine."""
    quota = None if cores == "none" else str(int(float(cores) * PERIOD_US))
    file, share = ("cpu.weight", "10000") if group_kind("cpu")[1] else ("cpu.shares", "262144")
    limit(name, "cpu", lambda v2: [("cpu.max", f"{quota or 'max'} {PERIOD_US}"), (file, share)] if v2 else
          [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", quota or "-1"), (file, share)])
    write_kernel(os.path.join(group_kind("cpu")[0], file), share)


def own_groups():
    """Where hosts have their own part of the hierarchy of version 2 (labhost.h), or None."""
    for line in read_file("/proc/self/mounts").splitlines():
        if line.split()[2] == "cgroup2":
            return f"{line.split()[1]}/godwit-lab-{PREFIX}"
    return None


def remove_groups(names=None):
    """Removes the control groups of dead hosts (None: of all)."""
    own = own_groups()
    for top in [own] if own and names is None else [f"{own}/{name}" for name in names or []]:
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
    for directory in group_directories():
        if not os.path.isdir(directory):
            continue
        for name in names or [entry.name for entry in os.scandir(directory) if entry.is_dir()]:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(directory, name))
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(host_dir(name), "cgroup"))
        if names is None:
            with contextlib.suppress(OSError):
                os.rmdir(directory)


# --- making a lab ----------------------------------------------------------------------------------------------------

def make_switch():
    run("ip", "netns", "add", netns("net"))
    # Packets on the bridge are none of the IP firewall's business, and the bridge itself speaks no IP.
    in_switch("sh", "-c", "for f in iptables ip6tables arptables; do echo 0 2>/dev/null >/proc/sys/net/bridge/bridge-nf-call-$f || :; done;"
              " echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || :")
    in_switch("ip", "link", "add", "switch", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
    in_switch("ip", "link", "set", "switch", "up")
    in_switch("nft", "add table bridge lab; add set bridge lab cuts { type ifname . ifname; };"
              " add chain bridge lab forward { type filter hook forward priority 0; policy accept; };"
              " add rule bridge lab forward iifname . oifname @cuts drop")


def make_link(name):
    """The host's network namespace, and its cable to the switch."""
    i = host_index(name)
    run("ip", "netns", "add", netns(name))
    run("ip", "link", "add", name, "netns", netns("net"), "type", "veth", "peer", "name", "eth0", "netns", netns(name),
        "address", f"02:47:57:00:00:{i:02x}")
    in_switch("ip", "link", "set", name, "master", "switch", "up")
    inside = ["ip", "-n", netns(name)]
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "addr", "add", f"{address(name)}/24", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")


def write_key(path):
    """The key of the cluster: the same for all hosts of a lab."""
    common = os.path.join(STATE, "cluster.key")
    if not os.path.exists(common):
        write_file(common, os.urandom(32).hex() + "\n")
    write_file(path, read_file(common))
    os.chmod(path, 0o600)


def write_certificates(name, etc):
    """The host's certificate and key, in its /etc/godwit/tls, and the lines of its godwit.conf; "" without TLS."""
    if os.environ.get("GODWIT_LAB_TLS") != "1":
        return ""
    godwit, pki, to = os.path.join(BUILD, "src/cli/godwit"), os.path.join(STATE, "pki"), os.path.join(etc, "tls")
    if not os.path.exists(os.path.join(pki, "ca.pem")):
        run(godwit, "pki", "init", pki)
    if not os.path.exists(os.path.join(pki, "nodes", name)):
        run(godwit, "pki", "issue", name, "--dir", pki)
    shutil.copytree(os.path.join(pki, "nodes", name), to, dirs_exist_ok=True)
    files = {"ca": "ca.pem", "certificate": "node.pem", "key": "node.key", "crl": "crl.pem"}
    return "\n[tls]\n" + "".join(f"{key} = /etc/godwit/tls/{file}\n" for key, file in files.items())


def write_host_files(lab, name):
    directory = host_dir(name)
    for sub in ("lib", "etc"):
        os.makedirs(os.path.join(directory, sub), exist_ok=True)
    names = hosts_of(lab)
    write_file(os.path.join(directory, "etc-hosts"), "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"
               + "".join(f"{address(other)} {other}\n" for other in names))
    if is_node(name):
        nodes = "".join(f"{other} = {address(other)}\n" for other in names if is_node(other))
        patience = os.environ.get("GODWIT_LAB_PEER_TIMEOUT_MS")
        patience = f"peer_timeout_ms = {patience}\n" if patience else ""
        write_key(os.path.join(directory, "etc/cluster.key"))
        write_file(os.path.join(directory, "etc/godwit.conf"),
                   f"# written by ./dev lab\n[node]\nname = {name}\nlisten = {address(name)}\n{patience}\n[nodes]\n{nodes}"
                   + write_certificates(name, os.path.join(directory, "etc")))


def shared_directories():
    """What must stay visible in the hosts although they have a /tmp and a /run of their own."""
    return [path for path in dict.fromkeys([ROOT, BUILD]) if path.startswith(("/tmp/", "/run/"))]


def pid_base(lab, name):
    if lab["same_pids"]:
        return 300
    pid_max = int(read_file("/proc/sys/kernel/pid_max"))
    return 300 + PID_STEP * host_index(name) % (pid_max - 1000)


def start_host(lab, name):
    write_host_files(lab, name)
    make_link(name)
    run(LABHOST, "init", STATE, PREFIX, name, str(pid_base(lab, name)), *shared_directories())
    if is_node(name):
        start_daemon(name)


def start_daemon(name):
    """Starts godwitd and waits until its socket answers."""
    daemon = os.path.join(BUILD, "src/daemon/godwitd")
    log = os.path.join(host_dir(name), "godwitd.log")
    if not os.access(daemon, os.X_OK):
        print(f"lab: {name}: no godwitd: {daemon} is not built", file=sys.stderr)
        return
    init = init_pid(name)
    run(LABHOST, "exec", STATE, PREFIX, name, "--spawn", log, "--", daemon)
    deadline = time.monotonic() + DAEMON_READY_SECONDS
    while time.monotonic() < deadline:
        if daemon_pid(init):
            return
        time.sleep(0.005)
    tail = "".join(read_file(log).splitlines(keepends=True)[-5:])
    raise LabError(f"{name}: godwitd does not answer on /run/godwit/godwitd.sock; the end of its log {log}:\n{tail}")


def daemons(init):
    """The godwitd of a host, and any that does not answer yet: it would come after the one that is started next."""
    space, answers = readlink(f"/proc/{init}/ns/pid"), daemon_pid(init)
    return [pid for pid in all_pids() if pid == answers or ((process_stat(pid) or (0, 0))[0] == init and readlink(f"/proc/{pid}/ns/pid") == space and
                                                            read_file(f"/proc/{pid}/comm").strip() == "godwitd")]


def stop_daemon(name):
    init = init_pid(name)
    if init is None:
        raise LabError(f"{name} is not running")
    left = end_processes(daemons(init), signal.SIGTERM, seconds=2)
    if end_processes(left, signal.SIGKILL):
        raise LabError(f"{name}: godwitd does not end")


# --- ending ----------------------------------------------------------------------------------------------------------

def namespaces():
    pattern = re.compile(re.escape(PREFIX) + r"-(net|[nx]\d+)\Z")
    try:
        return [entry for entry in os.listdir("/run/netns") if pattern.match(entry)]
    except FileNotFoundError:
        return []


def processes_in(spaces):
    """Processes of this side in network namespaces of the lab: what somebody ran with `ip netns exec`."""
    inodes = set()
    for entry in spaces:
        with contextlib.suppress(OSError):
            inodes.add(os.stat(f"/run/netns/{entry}").st_ino)
    found = []
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/net").st_ino in inodes and pid != os.getpid():
                found.append(pid)
    return found


def remove_everything():
    """Ends and removes all that belongs to this lab; finds it by name. Returns whether there was anything."""
    spaces = namespaces()
    inits = leftover_inits(PREFIX)
    had = bool(spaces or inits or os.path.exists(STATE))
    left = end_processes(inits, signal.SIGKILL)
    left += end_processes(processes_in(spaces), signal.SIGKILL)
    for entry in spaces:
        run("ip", "netns", "delete", entry)
    remove_groups()
    shutil.rmtree(STATE, ignore_errors=True)
    # Removing a directory unmounts what other hosts have there. A lab that is being made has no hosts yet.
    if not leftover_inits(None) and not any(os.path.isdir(path) for path in glob.glob("/var/tmp/godwit-lab*")):
        for path in MOUNT_POINTS:
            with contextlib.suppress(OSError):
                os.rmdir(path)          # only when it is empty: then we had made it, or nobody misses it
    if left:
        raise LabError(f"processes {', '.join(map(str, left))} do not end after SIGKILL")
    return had


# --- verbs -----------------------------------------------------------------------------------------------------------

def do_up(options):
    if os.geteuid() != 0:
        raise LabError("making hosts needs root")
    if not 1 <= options.nodes < OUTSIDE or not 0 <= options.outside < 150:
        raise LabError("a lab has 1 to 99 hosts, and up to 149 outside")
    if not os.access(LABHOST, os.X_OK):
        raise LabError(f"{LABHOST} is not built; ./dev build makes it")
    if os.path.exists(os.path.join(STATE, "lab.json")) and not options.force:
        raise LabError(f"lab '{PREFIX}' is there already ({', '.join(hosts_of(load()))}); ./dev lab down ends it, --force replaces it")
    remove_everything()
    lab = {"nodes": options.nodes, "outside": options.outside, "same_pids": options.same_pids}
    os.makedirs(os.path.join(STATE, "hosts"))
    for path in MOUNT_POINTS:
        os.makedirs(path, exist_ok=True)
    write_file(os.path.join(STATE, "lab.json"), json.dumps(lab))
    write_file(os.path.join(STATE, "labhost"), LABHOST + "\n")
    write_file(os.path.join(STATE, "path"), f"{BUILD}/src/cli:{BUILD}/src/daemon\n")
    try:
        make_switch()
        for name in hosts_of(lab):
            start_host(lab, name)
    except LabError as e:
        if not options.keep:
            logs = "/var/tmp/godwit-lab-failed.log"
            with open(logs, "w") as f:
                for name in hosts_of(lab):
                    f.write(f"--- {name}\n" + read_file(os.path.join(host_dir(name), "godwitd.log")))
            remove_everything()
            raise LabError(f"{e}\n(nothing is left of it; the logs of the daemons are in {logs}; --keep leaves everything as it is)") from e
        raise
    print(" ".join(f"{name}={address(name)}" for name in hosts_of(lab)))


def do_down(_):
    print(f"lab '{PREFIX}' removed" if remove_everything() else f"there was no lab '{PREFIX}'")


def cuts():
    done = in_switch("nft", "-j", "list", "set", "bridge", "lab", "cuts", check=False)
    if done.returncode != 0:
        return []
    for item in json.loads(done.stdout)["nftables"]:
        if "set" in item:
            return sorted({tuple(sorted(pair["concat"])) for pair in item["set"].get("elem", [])})
    return []


def do_status(_):
    lab = load()
    for name in hosts_of(lab):
        init = init_pid(name)
        pid = daemon_pid(init) if init and is_node(name) else None
        daemon = f"godwitd pid {pid_inside(pid)}" if pid else "no godwitd" if is_node(name) else "-"
        print(f"{name:5} {address(name):12} {'up, init ' + str(init) if init else 'down':18} {daemon}")
    for a, b in cuts():
        print(f"cut   {a} {b}")


def do_kill(options):
    lab = load()
    require_host(lab, options.host)
    done = run(LABHOST, "kill", STATE, PREFIX, options.host, check=False)
    if done.returncode != 0:
        raise LabError(done.stderr.strip().removeprefix("lab: "))
    # The sockets that are still being closed must never see the network again.
    run("ip", "netns", "delete", netns(options.host))
    in_switch("ip", "link", "delete", options.host, check=False)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(host_dir(options.host), "init"))
    remove_groups([options.host])


def do_start(options):
    lab = load()
    require_host(lab, options.host)
    if init_pid(options.host):
        raise LabError(f"{options.host} is running already")
    if os.path.exists(f"/run/netns/{netns(options.host)}"):     # its init ended in another way than `lab kill`
        run("ip", "netns", "delete", netns(options.host))
        in_switch("ip", "link", "delete", options.host, check=False)
    start_host(lab, options.host)


def change_cut(options, verb):
    lab = load()
    for name in (options.a, options.b):
        require_host(lab, name)
    if options.a == options.b:
        raise LabError(f"{options.a} has no link to itself")
    # Adding first makes the deletion of what is not there succeed; both happen in one transaction.
    pairs = f"bridge lab cuts {{ {options.a} . {options.b}, {options.b} . {options.a} }}"
    in_switch("nft", f"add element {pairs}" + (f"; delete element {pairs}" if verb == "heal" else ""))


def do_restart_daemon(options):
    require_host(load(), options.host)
    if not is_node(options.host):
        raise LabError(f"{options.host} is an outside host: no Godwit software runs there")
    stop_daemon(options.host)
    start_daemon(options.host)


def do_limit(options):
    require_host(load(), options.host)
    if options.memory is None and options.cpu is None:
        raise LabError("a limit is expected: of memory, or --cpu")
    if options.memory and not re.fullmatch(r"none|[0-9]+[KMG]?", options.memory):
        raise LabError(f"{options.memory} is no size; examples: 64M, 1G, none")
    if options.cpu and not (options.cpu == "none" or re.fullmatch(r"[0-9]+|[0-9]*\.[0-9]+", options.cpu) and float(options.cpu) >= 0.01):
        raise LabError(f"{options.cpu} is no number of CPUs; examples: 0.25, 2, none")
    if init_pid(options.host) is None:
        raise LabError(f"{options.host} is not running")
    if options.memory:
        limit_memory(options.host, options.memory)
    if options.cpu:
        limit_cpu(options.host, options.cpu)


def do_logs(options):
    require_host(load(), options.host)
    log = os.path.join(host_dir(options.host), "godwitd.log")
    if options.follow:
        os.execvp("tail", ["tail", "-n", "+1", "-F", log])
    sys.stdout.write(read_file(log))


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev lab", description="Hosts on this machine, in namespaces.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, function, text):
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    up = verb("up", do_up, "make hosts n1..nN, and x1..xM without Godwit")
    up.add_argument("nodes", type=int, metavar="N")
    up.add_argument("--outside", type=int, default=0, metavar="M")
    up.add_argument("--same-pids", action="store_true", help="let all hosts count pids from the same number, so that they collide")
    up.add_argument("--force", action="store_true", help="replace a lab that is there")
    up.add_argument("--keep", action="store_true", help="leave everything in place when it fails")
    verb("down", do_down, "remove everything, also what a crash left")
    verb("status", do_status, "show the hosts, their daemons and the links that are cut")
    verbs.add_parser("exec", help="exec [--tty] HOST -- COMMAND...: run a command inside a host")
    for name, function, text in (("kill", do_kill, "end a host as a power cut would"), ("start", do_start, "start a killed host again"),
                                 ("restart-daemon", do_restart_daemon, "end godwitd of a host and start it again")):
        verb(name, function, text).add_argument("host")
    for name, text in (("cut", "let every packet between two hosts vanish"), ("heal", "mend that link")):
        sub = verb(name, lambda options, name=name: change_cut(options, name), text)
        sub.add_argument("a")
        sub.add_argument("b")
    limits = verb("limit", do_limit, "limit the memory and the CPUs of a host's processes, until it is killed")
    limits.add_argument("host")
    limits.add_argument("memory", nargs="?", help="64M, 1G, none")
    limits.add_argument("--cpu", metavar="N", help="0.25, 2, none")
    logs = verb("logs", do_logs, "print the log of a host's godwitd")
    logs.add_argument("host")
    logs.add_argument("-f", "--follow", action="store_true")
    return parser.parse_args()


def main():
    options = parse_arguments()
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", PREFIX):
        raise LabError(f"GODWIT_LAB={PREFIX}: small letters and digits only, at most 16")
    # One change at a time; the lock is no part of the state, so that removing that cannot remove it.
    with open(STATE.rstrip("/") + ".lock", "w") as lock:
        if options.verb not in ("status", "logs"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        options.function(options)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
