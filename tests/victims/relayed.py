#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-2.0-or-later
"""Works in a directory that only its first host has, and does there, wherever it runs, what programs do with files.

relayed.py DIRECTORY STATUS: appends to DIRECTORY/log, counts in a shared mapping of DIRECTORY/map, keeps locks, a file that has lost its name, and a half-read directory.
A line in the FIFO-like file STATUS.ask names a check; the answer goes to STATUS. On the line "end" it looks at everything that it has, says ok, and ends."""

import ctypes
import errno
import fcntl
import mmap
import os
import sqlite3
import stat
import struct
import sys
import time

directory, status = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
path = lambda name: os.path.join(directory, name)


def say(text):
    with open(status, "a") as f:
        f.write(text + "\n")


def expect(what, got, wanted):
    assert got == wanted, f"{what}: {got!r} instead of {wanted!r}"


def expect_errno(what, number, call, *arguments):
    try:
        call(*arguments)
    except OSError as e:
        expect(what, e.errno, number)
    else:
        raise AssertionError(f"{what}: no error")


def check_names():
    os.mkdir(path("d"), 0o2755)
    for i in range(300):
        with open(path(f"d/{i:03}"), "w") as f:
            f.write(str(i))
    expect("listing", sorted(os.listdir(path("d"))), [f"{i:03}" for i in range(300)])
    os.rename(path("d/000"), path("d/001"))
    expect("rename over", open(path("d/001")).read(), "0")
    os.link(path("d/001"), path("hard"))
    expect("links", os.stat(path("hard")).st_nlink, 2)
    expect("one file", os.stat(path("hard")).st_ino, os.stat(path("d/001")).st_ino)
    os.symlink("d/002", path("soft"))
    expect("symbolic link", (os.readlink(path("soft")), open(path("soft")).read()), ("d/002", "2"))
    expect_errno("not empty", errno.ENOTEMPTY, os.rmdir, path("d"))
    expect_errno("exclusive", errno.EEXIST, os.open, path("hard"), os.O_CREAT | os.O_EXCL)
    os.mkfifo(path("fifo"), 0o640)
    expect("FIFO", stat.S_IFMT(os.stat(path("fifo")).st_mode), stat.S_IFIFO)
    for i in range(1, 300):
        os.unlink(path(f"d/{i:03}"))
    for name in ("hard", "soft", "fifo"):
        os.unlink(path(name))
    os.rmdir(path("d"))


def check_attributes():
    fd = os.open(path("attr"), os.O_RDWR | os.O_CREAT, 0o604)
    os.fchmod(fd, 0o4751)
    os.fchown(fd, 1234, 5678)
    os.utime(fd, ns=(1111111111222222222, 1333333333444444444))
    st = os.stat(path("attr"))
    expect("owner", (st.st_uid, st.st_gid), (1234, 5678))
    expect("times", (st.st_atime_ns, st.st_mtime_ns), (1111111111222222222, 1333333333444444444))
    os.setxattr(path("attr"), "user.colour", b"blue")
    expect("attribute", (os.getxattr(fd, "user.colour"), os.listxattr(fd)), (b"blue", ["user.colour"]))
    os.removexattr(fd, "user.colour")
    expect_errno("no attribute", errno.ENODATA, os.getxattr, fd, "user.colour")
    os.close(fd)
    os.unlink(path("attr"))
    if os.fork() == 0:  # who is not root is kept out, and owns what it makes
        try:
            os.chmod(directory, 0o1777)
            with open(path("secret"), "w") as f:
                f.write("x")
            os.chmod(path("secret"), 0o600)
            os.setgid(4321)
            os.setuid(4321)
            expect_errno("permission", errno.EACCES, os.open, path("secret"), os.O_RDONLY)
            with open(path("mine"), "w") as f:
                expect("maker", (os.fstat(f.fileno()).st_uid, os.fstat(f.fileno()).st_gid), (4321, 4321))
            os._exit(0)
        except BaseException as e:
            say(f"FAIL {e}")
            os._exit(1)
    expect("child", os.wait()[1], 0)
    os.unlink(path("mine"))
    os.unlink(path("secret"))


def check_contents():
    fd = os.open(path("data"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    big = bytes(range(256)) * 4096
    expect("written", os.write(fd, big), len(big))
    os.fsync(fd)
    expect("read", os.pread(fd, len(big), 0), big)
    os.ftruncate(fd, 5000)
    expect("size", os.fstat(fd).st_size, 5000)
    os.pwrite(fd, b"end", 1 << 20)
    expect("hole", (os.pread(fd, 4, 6000), os.lseek(fd, 100000, os.SEEK_DATA) > 0), (b"\0\0\0\0", True))
    os.posix_fallocate(fd, 0, 1 << 21)
    expect("allocated", os.fstat(fd).st_size, 1 << 21)
    a = os.open(path("data"), os.O_WRONLY | os.O_APPEND)
    os.pwrite(a, b"tail", 0)
    expect("appended", os.pread(fd, 4, 1 << 21), b"tail")
    m = mmap.mmap(fd, 8192)
    m[4096:4101] = b"hello"
    m.flush()
    expect("mapping, read", os.pread(fd, 5, 4096), b"hello")
    os.pwrite(fd, b"HELLO", 4096)
    expect("written, mapping", m[4096:4101], b"HELLO")
    os.unlink(path("data"))
    expect("without a name", os.pread(fd, 5, 4096), b"HELLO")
    m.close()
    os.close(fd)
    os.close(a)


def check_locks():
    with open(path("lock"), "a+") as f:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        if os.fork() == 0:
            busy = struct.unpack("hhqqi", fcntl.fcntl(f, fcntl.F_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))[:28])
            ok = busy[0] == fcntl.F_WRLCK and busy[2:4] == (5, 10)
            os._exit(0 if ok else 1)
        expect("lock seen by a child", os.wait()[1], 0)
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_database():
    with sqlite3.connect(path("base"), timeout=20) as base:
        base.execute("create table if not exists t (n integer)")
        base.execute("insert into t values (?)", (int(time.time()),))
        base.commit()
        expect("integrity", base.execute("pragma integrity_check").fetchone(), ("ok",))


# What only somebody at home can have done: another program there holds the locks, or has written.
def check_busy():
    with open(path("lock"), "a+") as f:
        expect_errno("lock of a program at home", errno.EAGAIN, fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        expect_errno("flock of a program at home", errno.EAGAIN, fcntl.flock, f, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_news():
    expect("news from home", open(path("news")).read(), "from home\n")
    with open(path("news"), "w") as f:
        f.write("from away\n")


def main():
    os.chdir(directory)
    log = open(path("log"), "a", buffering=1)
    gone = os.open(path("gone"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.write(gone, b"nameless")
    os.unlink(path("gone"))
    fd = os.open(path("map"), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 16)
    counter = mmap.mmap(fd, 1 << 16)
    held = open(path("held"), "w+")
    fcntl.lockf(held, fcntl.LOCK_EX, 4, 4)
    with open(path("whole"), "w+") as whole:
        fcntl.flock(whole, fcntl.LOCK_EX)
        say(f"ready {os.getpid()}")
        n = asked = 0
        while True:
            n += 1
            if asked >= 0:
                log.write(f"{n}\n")
            counter[:8] = counter[32768:32776] = struct.pack("Q", n)
            lines = open(status + ".ask").read().splitlines() if os.path.exists(status + ".ask") else []
            for word in lines[asked:]:
                asked += 1
                if word != "end":
                    globals()["check_" + word]()
                    say(f"done {asked}")
                    continue
                expect("nameless", os.pread(gone, 100, 0), b"nameless")
                expect("working directory", os.getcwd(), directory)
                expect("log", open(path("log")).read(), "".join(f"{i}\n" for i in range(1, n + 1)))
                expect("both places of the mapping", (counter[:8], os.pread(fd, 8, 32768)), (struct.pack("Q", n),) * 2)
                counter.flush()
                say(f"ok {n}")
                return
            time.sleep(0.005)


try:
    main()
except BaseException as e:
    say(f"FAIL {type(e).__name__} {e}")
    raise
