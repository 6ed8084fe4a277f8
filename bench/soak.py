#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./dev soak [--moves N] [--pause SECONDS] [--strategy S] [--clients HOST,...] [--count] [KIND...]: servers are moved again and again while clients check every answer.

Each kind (tests/e2e/server_kinds.py; without one all) moves round n1, n2, n3 while its clients run on the hosts named: x1 is outside. One line a kind; status 1 when a client
has met an error, a migration failed, or what the server holds in the end is not what the clients were told. With --count each kind is moved three times first, and what
Godwit holds on each host then (counted.py) is compared with what it holds in the end; a line is printed every 500 moves. `--moves 10000 --pause 0 --count unit` is the long one.
"""

import argparse
import itertools
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "tests/e2e"))
import counted  # noqa: E402
import lab_driver  # noqa: E402
import server_kinds  # noqa: E402


def moves_text(freezes):
    ordered = sorted(freezes)
    return f"{len(freezes)} moves, freeze {ordered[len(ordered) // 2]:.1f} ms ({ordered[0]:.1f} to {ordered[-1]:.1f})"


def soak_counted(lab, kind, options):
    """As soak, with what is left on the hosts."""
    soak(lab, kind, options, 3)
    before = counted.settled(lab.hosts, counted.settled(lab.hosts), 5)
    said = soak(lab, kind, options, options.moves)
    after = counted.settled(lab.hosts, before)
    differences = counted.differences(before, after)
    assert not differences, f"{said}; LEFT: {'; '.join(differences)}"
    return f"{said}; nothing left: " + ", ".join(f"{host} {after[host]}" for host in lab.hosts) + "; KiB before: " + ", ".join(str(before[host]["KiB"]) for host in lab.hosts)


def soak(lab, kind, options, moves):
    """What there is to say of it."""
    server, clients, freezes = None, [], []
    try:
        server = server_kinds.KINDS[kind](lab)
        for host in options.clients.split(","):
            clients += server.clients(host)
        for number, to in zip(range(1, moves + 1), itertools.cycle(("n2", "n3", "n1"))):
            for c in clients:
                c.must_live(f"before move {number}")
            freezes.append(server.must_move(to, strategy=options.strategy).json.get("freeze_us", 0) / 1000)
            time.sleep(options.pause)
            for c in clients:
                c.must_live(f"after move {number}, to {to}")
            if options.count and number % 500 == 0:
                print(f"{kind}: {moves_text(freezes)}", flush=True)
        said = server_kinds.end_all(clients)
        server.check(clients)
        return f"{moves_text(freezes)}; " + \
            ", ".join(f"{c}: {text.strip().splitlines()[-1]}" for c, text in zip(clients, said) if text.strip())
    except AssertionError as e:
        raise AssertionError(f"{e}\nthe server: {server.log() if server else ''}") from None
    finally:
        server_kinds.abandon(clients)
        if server:
            server.end()


def main():
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between moves")
    parser.add_argument("--strategy", default="freeze-free", choices=lab_driver.STRATEGIES)
    parser.add_argument("--clients", default="x1,n3,n1,n2", help="hosts that clients run on")
    parser.add_argument("--count", action="store_true", help="what Godwit holds on each host must be the same before and after")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=" ".join(server_kinds.KINDS))
    options = parser.parse_args()
    unknown = [k for k in options.kinds if k not in server_kinds.KINDS]
    if unknown:
        parser.error(f"no such kind: {' '.join(unknown)}")
    lab, failed = lab_driver.Lab(3), False
    try:
        for kind in options.kinds or server_kinds.KINDS:
            begun = time.monotonic()
            try:
                print(f"{kind}: {(soak_counted(lab, kind, options) if options.count else soak(lab, kind, options, options.moves))}; {time.monotonic() - begun:.0f} s", flush=True)
            except AssertionError as e:
                print(f"{kind}: FAILED: {e}", flush=True)
                failed = True
    finally:
        lab.down()
    sys.exit(failed)


if __name__ == "__main__":
    main()
