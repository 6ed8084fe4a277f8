# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends of TCP connections in every state, that check themselves: one process moves, the others stay.

ends.py stay PORT                    the other ends: does what a connection's first line says, and the rest when its control connection says "go"
ends.py move PORT FILE ADDRESS,DEVICE...
                                     makes connections of every kind to each address (one of them bound to a device, if one is named), notes all options of all sockets, writes "ready" into FILE, and waits until
                                     FILE says "check"; then finishes each conversation, compares every byte and option, and writes "ok", or what is wrong

The byte at a place of a stream is a function of the place, other in each direction.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time

KINDS = ("plain", "options", "stirred", "unread", "stuffed", "stuffed_end", "sent_end", "got_end", "ended", "reset", "calling")
MANY = 3 << 20
LIMIT_S = 60


def pattern(direction, start, n):
    whole = bytes((i * 7 + direction * 101 + (i >> 8)) & 255 for i in range(4096))
    first = start % 4096
    return (whole * ((first + n) // 4096 + 1))[first:first + n]


def read_exactly(s, direction, n, start=0):
    """Reads n bytes of the stream and compares them."""
    at = start
    while at < start + n:
        data = s.recv(min(65536, start + n - at))
        if not data:
            raise AssertionError(f"the stream ends after {at} of {start + n} bytes")
        if data != pattern(direction, at, len(data)):
            raise AssertionError(f"wrong bytes from {at} on")
        at += len(data)


def read_end(s):
    data = s.recv(100)
    if data:
        raise AssertionError(f"{len(data)} bytes where the stream should end")


# --- who stays ---

def read_line(s):
    line = b""
    while not line.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            return line.decode()
        line += byte
    return line.decode().strip()


def prepare(kind, s):
    """The state of this side before the move; says "k" when it is there."""
    if kind == "stirred":
        threads[s] = threading.Thread(target=answer, args=(s,))
        threads[s].start()
    elif kind == "unread":
        s.sendall(pattern(1, 0, 100000))
    elif kind == "got_end":
        s.sendall(pattern(1, 0, 5000))
        s.shutdown(socket.SHUT_WR)
    elif kind == "ended":
        s.sendall(pattern(1, 0, 100))
        s.shutdown(socket.SHUT_WR)
        s.recv(1)
        s.close()
    elif kind == "reset":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.recv(1)
        s.close()


def answer(s):
    """Each byte comes back; "!" is the last one."""
    byte = b""
    while byte != b"!":
        byte = s.recv(1)
        if not byte:
            return
        s.sendall(byte)


def finish(kind, s):
    if kind == "stirred":
        threads[s].join(LIMIT_S)
    if kind in ("plain", "options", "stirred"):
        s.sendall(pattern(1, 0, 20000))
        read_exactly(s, 0, 20000)
    elif kind == "unread":
        s.sendall(pattern(1, 100000, 50000))
        read_exactly(s, 0, 1000)
    elif kind in ("stuffed", "stuffed_end"):
        sent = int(how_much[s])
        read_exactly(s, 0, sent)
        if kind == "stuffed_end":
            read_end(s)
        s.sendall(pattern(1, 0, 1000))
    elif kind == "sent_end":
        read_end(s)
        s.sendall(pattern(1, 0, 1000))
    elif kind == "got_end":
        read_exactly(s, 0, 3000)


how_much, threads = {}, {}


def accept_all(listener):
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(listener.accept())


def stay(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    full = socket.create_server(("::", port + 1), family=socket.AF_INET6, dualstack_ipv6=True, backlog=0)
    fillers = []
    for _ in range(3):      # what calls now is not answered
        filler = socket.socket(socket.AF_INET6)
        filler.setblocking(False)
        filler.connect_ex(("::1", port + 1))
        fillers.append(filler)
    control, _ = listener.accept()
    conns, wrong = [], []
    while True:
        line = read_line(control).split()
        if not line or line[0] == "go":
            break
        if line[0] == "sent":       # of the stuffed ones: how much
            how_much[conns[int(line[1])][1]] = line[2]
            continue
        s, _ = listener.accept()
        s.settimeout(LIMIT_S)
        conns.append((line[1], s))
        if line[1] not in ("ended", "reset"):
            prepare(line[1], s)
            control.sendall(b"k\n")
        else:
            control.sendall(b"k\n")
            prepare(line[1], s)
    full.settimeout(LIMIT_S)
    if line:
        threading.Thread(target=accept_all, args=(full,), daemon=True).start()
        for kind, s in conns:
            try:
                if kind not in ("ended", "reset"):
                    finish(kind, s)
            except (AssertionError, OSError) as e:
                wrong.append(f"{kind}: {e}")
        control.sendall(json.dumps(wrong).encode() + b"\n")
        read_line(control)


# --- who moves ---

SOL_IP, SOL_TCP, SOL_IPV6, SOL_SOCKET = 0, 6, 41, 1
# What says something of this moment, of this host, or changes when it is read.
VOLATILE = {(SOL_SOCKET, n) for n in (4, 31, 49, 55, 56, 57)} | {(SOL_TCP, n) for n in (11, 12, 19, 20, 21, 22, 24, 26, 29, 35, 38, 40, 41, 42)} | \
    {(SOL_IP, n) for n in (9, 14, 19)} | {(SOL_IPV6, n) for n in (6, 24, 25, 61, 75)}
# What the kernel chooses until the program does: segments, the greatest window; the port of a connection that has ended.
# An IPv6 socket that has been bound to an address is for IPv6 only.
CHOSEN = {(SOL_TCP, 2), (SOL_TCP, 10), (SOL_IP, 52), (SOL_IPV6, 26)}
SET = {(SOL_TCP, 10)}        # by set_options


def all_options(s, all_set):
    found = {}
    for level in (SOL_SOCKET, SOL_IP, SOL_TCP, SOL_IPV6):
        for name in range(1, 140):
            if (level, name) in VOLATILE or (level, name) in (CHOSEN - SET if all_set else CHOSEN) or (level == SOL_IPV6 and s.family == socket.AF_INET):
                continue
            with contextlib.suppress(OSError):
                found[f"{level}/{name}"] = s.getsockopt(level, name, 128).hex()
    with contextlib.suppress(OSError):
        info = s.getsockopt(SOL_TCP, 11, 104)
        found["state"] = info[0]
        found["negotiated"] = info[5:7].hex()      # options, window scales
    found["names"] = str(s.getsockname())
    with contextlib.suppress(OSError):
        found["names"] += str(s.getpeername())
    return found


def set_options(s, device):
    if device:
        s.setsockopt(SOL_SOCKET, 25, device.encode() + b"\0")
    for level, name, value in (
            (SOL_SOCKET, 9, 1), (SOL_TCP, 4, 50), (SOL_TCP, 5, 7), (SOL_TCP, 6, 4), (SOL_TCP, 1, 1), (SOL_TCP, 18, 123456), (SOL_SOCKET, 13, struct.pack("ii", 1, 5)),
            (SOL_SOCKET, 7, 77777), (SOL_SOCKET, 8, 99999), (SOL_SOCKET, 12, 5), (SOL_IP, 1, 0x28), (SOL_IP, 2, 33), (SOL_SOCKET, 36, 77), (SOL_TCP, 8, 20), (SOL_TCP, 25, 12345),
            (SOL_SOCKET, 10, 1), (SOL_SOCKET, 20, struct.pack("ll", 3, 250000)), (SOL_SOCKET, 21, struct.pack("ll", 4, 0)), (SOL_SOCKET, 47, 50000000),
            (SOL_TCP, 16, 1), (SOL_TCP, 7, 3), (SOL_SOCKET, 2, 1), (SOL_SOCKET, 15, 1), (SOL_SOCKET, 60, 1), (SOL_TCP, 36, 1), (SOL_TCP, 10, 60000), (SOL_TCP, 2, 1200), (SOL_SOCKET, 18, 2),
            (SOL_TCP, 13, b"cubic"), (SOL_SOCKET, 29, 1), (SOL_SOCKET, 42, 0), (SOL_IPV6, 67, 0x48), (SOL_IPV6, 16, 44), (SOL_IPV6, 66, 1)):
        if level == SOL_IPV6 and s.family == socket.AF_INET:
            continue
        try:
            s.setsockopt(level, name, value)
        except OSError as e:
            raise AssertionError(f"option {level}/{name}: {e}") from e
    code = struct.pack("HBBI", 0x06, 0, 0, 0xffffffff)       # a filter: everything passes
    memory = ctypes.create_string_buffer(code)
    s.setsockopt(SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(memory)))


def connect(address, port):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    s.settimeout(LIMIT_S)
    s.connect((address, port))
    return s


class End:
    def __init__(self, address, device, port, kind, control, index):
        self.kind, self.sent, self.name = kind, 0, f"{kind} {address}"
        if kind == "calling":
            self.s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            self.s.setblocking(False)
            if self.s.connect_ex((address, port + 1)) != errno.EINPROGRESS:
                raise AssertionError("the call has been answered")
            return
        control.sendall(f"make {kind}\n".encode())
        self.s = s = connect(address, port)
        if read_line(control) != "k":
            raise AssertionError(f"{self.name}: no answer")
        if kind in ("options", "stirred"):
            set_options(s, device if kind == "options" else "")
        if kind == "stirred":
            s.setsockopt(SOL_SOCKET, 18, 1)        # single bytes are waited for
        elif kind in ("stuffed", "stuffed_end"):
            s.setblocking(False)
            quiet = 0
            while self.sent < MANY and quiet < 10:
                try:
                    self.sent += s.send(pattern(0, self.sent, min(65536, MANY - self.sent)))
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    time.sleep(0.02)
            s.settimeout(LIMIT_S)
            control.sendall(f"sent {index} {self.sent}\n".encode())
            if kind == "stuffed_end":
                s.shutdown(socket.SHUT_WR)
        elif kind == "sent_end":
            s.shutdown(socket.SHUT_WR)
        elif kind == "ended":
            s.shutdown(socket.SHUT_WR)
        elif kind == "reset":
            s.send(b"x")

    def stir(self, byte=b"."):
        """So that it is never what it was a moment ago, and yet nothing is on its way."""
        self.s.sendall(byte)
        if self.s.recv(1) != byte:
            raise AssertionError("another byte comes back")

    def settle(self):
        """Until what the other side does has arrived."""
        want = {"unread": 100000, "got_end": 5000, "ended": 100}.get(self.kind, 0)
        end = time.monotonic() + LIMIT_S
        state = {"got_end": 8, "ended": 7, "reset": 7, "sent_end": 5}.get(self.kind)
        while time.monotonic() < end:
            if want:
                self.s.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if len(self.s.recv(200000, socket.MSG_PEEK)) >= want:
                        want = 0
                self.s.settimeout(LIMIT_S)
            if not want and (state is None or self.s.getsockopt(SOL_TCP, 11, 104)[0] == state):
                return
            time.sleep(0.01)
        raise AssertionError(f"{self.name}: state {self.s.getsockopt(SOL_TCP, 11, 104)[0]}")

    def finish(self):
        s, kind = self.s, self.kind
        if kind == "stirred":
            self.stir(b"!")
        if kind in ("plain", "options", "stirred"):
            s.sendall(pattern(0, 0, 20000))
            read_exactly(s, 1, 20000)
        elif kind == "unread":
            read_exactly(s, 1, 150000)
            s.sendall(pattern(0, 0, 1000))
        elif kind in ("stuffed", "stuffed_end", "sent_end"):
            read_exactly(s, 1, 1000)
        elif kind == "got_end":
            read_exactly(s, 1, 5000)
            read_end(s)
            s.sendall(pattern(0, 0, 3000))
        elif kind == "ended":
            read_exactly(s, 1, 100)
            read_end(s)
        elif kind == "reset":
            try:
                s.recv(1)
            except ConnectionResetError:
                return
            raise AssertionError("it has not been reset")
        elif kind == "calling":
            if not select.select([], [s], [], LIMIT_S)[1] or s.getsockopt(SOL_SOCKET, 4):
                raise AssertionError(f"the call is not answered: {os.strerror(s.getsockopt(SOL_SOCKET, 4))}")


def say(path, text):
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path + ".new", path)


def wait_for(path, text, ends):
    while True:
        for end in ends:
            if end.kind == "stirred":
                end.stir()
        with open(path, encoding="utf-8") as f:
            if f.read().startswith(text):
                return
        time.sleep(0.02)


def move(port, path, addresses):
    ends, controls, wrong = [], [], []
    for address, device in (a.split(",") for a in addresses):
        control = connect(address, port)
        controls.append(control)
        index = 0
        for kind in KINDS:
            ends.append(End(address, device, port, kind, control, index))
            index += kind != "calling"
    for end in ends:
        end.settle()
    before = [all_options(end.s, end.kind in ("options", "stirred")) for end in ends]
    say(path, "ready")
    wait_for(path, "check", ends)
    for end, was in zip(ends, before):
        now = all_options(end.s, end.kind in ("options", "stirred"))
        wrong += [f"{end.name}: {k} was {was.get(k)}, is {now.get(k)}" for k in sorted({*was, *now}) if was.get(k) != now.get(k) and (end.kind != "calling" or k != "state")]
    for control in controls:
        control.sendall(b"go\n")
    for end in ends:
        try:
            end.finish()
        except (AssertionError, OSError) as e:
            wrong.append(f"{end.name}: {e!r}")
    for address, control in zip(addresses, controls):
        wrong += [f"{address} says: {w}" for w in json.loads(read_line(control) or '["nothing"]')]
        control.sendall(b"bye\n")
    say(path, "\n".join(wrong) if wrong else "ok")


if sys.argv[1] == "stay":
    stay(int(sys.argv[2]))
else:
    try:
        move(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    except Exception as e:      # whoever waits for the file is to hear of it
        say(sys.argv[3], f"it has failed: {e!r}")
        raise
