#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""Values for a redis that can be verified later, by anybody: demo_values.py fill|verify COUNT

Value number i is 4 KiB of SHAKE-128 of i: incompressible, no two are alike, and nothing has to be kept to compare with. `fill` writes
commands for `redis-cli --pipe`; `verify` reads every key from 127.0.0.1:6379 and compares, and checks that there are no others.
"""

import hashlib
import socket
import sys

VALUE_BYTES = 4096
BATCH = 256


def key(i):
    return b"key:%d" % i


def value(i):
    return hashlib.shake_128(b"godwit %d" % i).digest(VALUE_BYTES)


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def fill(count):
    for i in range(count):
        sys.stdout.buffer.write(command(b"SET", key(i), value(i)))


def verify(count):
    wrong = 0
    with socket.create_connection(("127.0.0.1", 6379), timeout=20) as s, s.makefile("rb") as answers:
        s.sendall(command(b"DBSIZE"))
        size = answers.readline()
        if size != b":%d\r\n" % count:
            print(f"the number of keys is {size.decode().strip()[1:]}, not {count}")
            wrong += 1
        for first in range(0, count, BATCH):
            batch = range(first, min(first + BATCH, count))
            s.sendall(b"".join(command(b"GET", key(i)) for i in batch))
            for i in batch:
                header = answers.readline()
                found = answers.read(VALUE_BYTES + 2)[:-2] if header == b"$%d\r\n" % VALUE_BYTES else header
                if found != value(i):
                    wrong += 1
                    if wrong < 5:
                        print(f"{key(i).decode()} is wrong: {found[:32]!r}...")
                    if header != b"$%d\r\n" % VALUE_BYTES and header != b"$-1\r\n":
                        raise SystemExit("the answers make no sense from here on")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("fill", "verify"):
        sys.exit(__doc__)
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]))
    else:
        sys.exit(1 if verify(int(sys.argv[2])) else 0)
