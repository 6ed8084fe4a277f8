# SPDX-License-Identifier: GPL-2.0-or-later
"""./dev demo: a real redis-server with a few hundred MiB moves from one host to another while it runs.

Both hosts are made for it, in a lab of its own, and are removed at the end, whatever happens. Nothing that is printed is taken on trust: the keys
are compared with what they must be, and the first host is searched for what may have been left.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VALUES = os.path.join(ROOT, "tools/demo_values.py")
ENV = {**os.environ, "GODWIT_LAB": "demo"}
ENV.pop("GODWIT_LAB_DIR", None)
VALUE_BYTES = 4096
COLOR = sys.stdout.isatty()


class DemoError(Exception):
    """What went wrong, for the user."""


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOR else text


def step(text):
    print(paint("1", f"\n{text}"), flush=True)


def say(name, text):
    print(f"  {name:<22} {text}", flush=True)


def lab(*arguments, check=True):
    done = subprocess.run([os.path.join(ROOT, "dev"), "lab", *arguments], env=ENV, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise DemoError(f"{' '.join(arguments)}\n{(done.stdout + done.stderr).strip()}")
    return done


def inside(host, *command, check=True):
    return lab("exec", host, "--", *command, check=check)


def redis(host, *command):
    return inside(host, "redis-cli", *command).stdout.strip()


def server_info(host):
    lines = redis(host, "INFO", "server").splitlines() + redis(host, "INFO", "memory").splitlines()
    return dict(line.strip().split(":", 1) for line in lines if ":" in line)


def start_redis(mib):
    """A redis-server in n1 as anybody would start it, filled; returns its pid there and the number of keys."""
    inside("n1", "sh", "-c", "setsid redis-server --save '' --dir / --bind 0.0.0.0 --protected-mode no </dev/null >/dev/null 2>&1 &")
    deadline = time.monotonic() + 10
    while inside("n1", "redis-cli", "PING", check=False).stdout.strip() != "PONG":
        if time.monotonic() > deadline:
            raise DemoError("redis-server does not answer in n1")
        time.sleep(0.02)
    keys = mib * 1024 * 1024 // VALUE_BYTES
    inside("n1", "sh", "-c", f"/usr/bin/python3 -I {VALUES} fill {keys} | redis-cli --pipe")
    info = server_info("n1")
    say("redis-server", f"version {info['redis_version']}, pid {info['process_id']} on n1")
    say("holds", f"{keys:,} keys, {info['used_memory_human']} of incompressible values")
    return int(info["process_id"]), keys, info


def migrate(pid, strategy):
    done = inside("n1", "godwit", "migrate", "--json", "--strategy", strategy, str(pid), "n2", check=False)
    if done.returncode != 0:
        raise DemoError(f"godwit migrate ended with status {done.returncode}\n{(done.stdout + done.stderr).strip()}")
    try:
        return json.loads(done.stdout)
    except ValueError as e:
        raise DemoError(f"godwit migrate --json did not print one JSON object: {e}\n{done.stdout}") from e


def show(report):
    def pages(name):
        count = report[name]
        return f"{count:>9,} pages  {count * 4096 / 1048576:>8.1f} MiB"

    say("freeze", paint("1;32", f"{report['freeze_us'] / 1000:.3f} ms"))
    say("in all", f"{report['total_ms']:.0f} ms, {report['bytes_sent'] / 1048576:.1f} MiB sent "
                  f"({report['bytes_sent'] / 1073741824 / (report['total_ms'] / 1000):.2f} GiB/s)")
    say("sent", pages("pages_sent"))
    say("  of these on demand", pages("pages_faulted") + "  the program touched them before the stream brought them")
    say("not sent: same file", pages("pages_skipped_file") + "  n2 maps them from its own copy of the program and libraries")
    say("not sent: zero", pages("pages_skipped_zero") + "  nothing in them")
    say("strategy", report["strategy"])


def check_destination(before, keys):
    info = server_info("n2")
    for field in ("run_id", "process_id"):
        if info[field] != before[field]:
            raise DemoError(f"{field} is {info[field]} on n2 and was {before[field]} on n1: not the same server")
    say("the same server", f"pid {info['process_id']}, run id {info['run_id'][:16]}..., up for {info['uptime_in_seconds']} s")
    done = inside("n2", "/usr/bin/python3", "-I", VALUES, "verify", str(keys), check=False)
    if done.returncode != 0:
        raise DemoError(f"the data is not right\n{(done.stdout + done.stderr).strip()}")
    say("every key", paint("1;32", f"{keys:,} of {keys:,} right"))
    if redis("n2", "SET", "after", "the move") != "OK" or redis("n2", "GET", "after") != "the move":
        raise DemoError("redis on n2 does not take new values")
    say("goes on", "takes new values")


def check_source(pid):
    """Nothing of the process may be left on n1: no process, no listener, no copy that Godwit holds."""
    left = inside("n1", "sh", "-c", f"ls -d /proc/{pid} 2>/dev/null; ps -eo pid,args | grep '[r]edis-server'; ss -Hltn 'sport = :6379'; :").stdout
    if left.strip():
        raise DemoError(f"something is left on n1:\n{left}")
    processes = inside("n1", "ps", "-eo", "args=").stdout.splitlines()
    others = [line for line in processes if "labhost init" not in line and "godwitd" not in line and not line.startswith("ps ")]
    if others:
        raise DemoError("something is left on n1:\n" + "\n".join(others))
    say("left on n1", paint("1;32", "nothing") + ": no process, no listening socket, no memory")


def demo(options):
    step("Two hosts on this machine, each with its own network, processes and godwitd")
    lab("up", "2", "--force")
    say("n1, n2", "10.66.0.1, 10.66.0.2")
    step("A redis-server on n1")
    pid, keys, before = start_redis(options.mib)
    step(f"n1# godwit migrate {pid} n2")
    report = migrate(pid, options.strategy)
    show(report)
    step("On n2")
    check_destination(before, keys)
    step("On n1")
    check_source(pid)


def interrupted(number, _):
    raise DemoError(f"interrupted by {signal.Signals(number).name}")


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description="Moves a redis-server between two hosts made on this machine.")
    parser.add_argument("--mib", type=int, default=256, help="how much redis holds (256)")
    parser.add_argument("--strategy", default="freeze-free")
    parser.add_argument("--keep", action="store_true", help="leave the hosts (GODWIT_LAB=demo) for a look around")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("demo: making hosts needs root")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    failure = None
    try:
        demo(options)
    except DemoError as e:
        failure = e
        for host in ("n1", "n2"):
            log = lab("logs", host, check=False).stdout.splitlines()[-15:]
            if log:
                print(paint("2", f"\nlog of godwitd on {host}:\n  " + "\n  ".join(log)))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not options.keep:
            lab("down", check=False)
    if failure:
        print(paint("1;31", f"\ndemo FAILED: {failure}"), file=sys.stderr)
        sys.exit(1)
    print(paint("1;32", "\nredis moved, and nobody asked it to stop."))


if __name__ == "__main__":
    main()
