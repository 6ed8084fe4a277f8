# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoint and restart: a unit becomes a file, and the file a unit, which says by itself whether it is what it was."""

import json
import os
import shutil
import signal
import stat
import struct
import subprocess

import pytest

from lab_driver import HIDDEN, REFUSED, TIMED, Victim, copies, inside, kill, main_daemon, popen, read, strangers, victim_kinds, wait_until, workers

REFUSAL = 3

# What it is about, at home again and on another host. Those that measure time would find that it has passed.
KINDS = ["mem_anon", "mem_sparse", "mem_thp", "mem_shared_file", "mem_private_file", "mem_memfd", "mem_vmflags", "file_offsets", "file_unlinked", "file_writer",
         "file_posix_lock", "signal_pending", "signal_deliver", "thread_ident", "thread_robust", "aio_events", "uring_rest", "mqueue_messages",
         "late_objects", "shm_sysv", "shm_named", "ident_creds"]
FAMILIES = ["tree_family", "tree_zombies", "tree_cow", "tree_jobs", "share_pipeline", "share_locks", "tty_session", "tcp_pair", "tcp_waiting", "unix_in_flight",
            "unix_accept_queue", "ipc_listen", "kernel_inotify", "seccomp_filter", "sysv_family", "stop_children"]


@pytest.fixture
def image(lab2):
    directory = lab2.directory("image")
    yield os.path.join(directory, "unit.img")
    shutil.rmtree(directory, ignore_errors=True)


def godwit(host, *arguments, check=True):
    done = inside(host, "godwit", *map(str, arguments), check=False, timeout=120)
    assert not check or done.returncode == 0, f"godwit {' '.join(map(str, arguments))}: {done.returncode}: {done.stdout} {done.stderr}"
    return done


def checkpoint(victim, image, *options):
    return json.loads(godwit(victim.host, "checkpoint", "--json", *options, victim.pid, image).stdout)


def restore(victim, image, host="n1", *options):
    result = json.loads(godwit("n1", "restore", "--json", "--on", host, *options, image).stdout)
    victim.host, victim.pid = host, result["pid"]
    return result


def start(lab, name, host="n1", **options):
    flags = {n: f for n, f, _ in victim_kinds()}.get(name)
    if flags is None:
        pytest.fail(f"there is no victim {name}")
    return Victim(lab, name, host=host, flags=flags, **options).wait_ready()


def left_beside(image):
    return sorted(os.listdir(os.path.dirname(image)))


def kinds_there(names):
    known = {name: flags for name, flags, _ in victim_kinds()}
    return [name for name in names if not known.get(name, HIDDEN) & (HIDDEN | REFUSED | TIMED)]


@pytest.mark.parametrize("kinds", [KINDS[:9], KINDS[9:], FAMILIES[:7], FAMILIES[7:]], ids=["memory", "state", "families", "more-families"])
def test_restored(lab2, image, kinds):
    """What has ended goes on elsewhere, which time has passed for and nothing else."""
    assert kinds_there(kinds) == kinds
    victims, wrong = [], []
    try:
        for kind in kinds:
            victims.append(Victim(lab2, kind, flags=next(f for name, f, _ in victim_kinds() if name == kind)))
        for victim in victims:
            victim.wait_ready()
        for victim in victims:
            checkpoint(victim, image)
            assert left_beside(image) == ["unit.img"]
            assert stat.S_IMODE(os.stat(image).st_mode) == 0o600
            wait_until("its end", lambda v=victim: not copies(["n1"], v.status))
            restore(victim, image, "n2")
        for victim in victims:
            victim.ask()
        wrong = [f"{v.name}: {v.verdict()}" for v in victims if v.verdict() != "ok"]
    finally:
        for victim in victims:
            victim.clean()
    assert not wrong, wrong
    lab2.assert_clean()


@pytest.mark.parametrize("kind", kinds_there(["mem_anon", "thread_ident", "signal_pending", "storm_mremap", "tree_family", "share_pipeline"]))
def test_goes_on(lab2, image, kind):
    """With --keep-running it goes on as if nothing had happened, and so does what is made of the image."""
    victim = start(lab2, kind, expect_move=False)
    try:
        result = checkpoint(victim, image, "--keep-running")
        assert 0 < result["freeze_us"] < 30_000_000 and result["file_bytes"] == os.path.getsize(image)
        assert left_beside(image) == ["unit.img"]
        victim.assert_untouched_by_godwit()
        kept = read(victim.status)
        victim.assert_ok()
        wait_until("its end", lambda: not copies(["n1"], victim.status))
        # what it has written since is taken back, so that it can be told apart from what its other self says
        with open(victim.status, "w") as f:
            f.write(kept)
        restore(victim, image, "n1", "--changed-files=accept")
        victim.assert_ok()
    finally:
        victim.clean()
    lab2.assert_clean()


def test_twice_and_beside_itself(lab2, image):
    """A number that is taken is no obstacle; each has its memory for itself."""
    victim = start(lab2, "mem_anon", expect_move=False)
    try:
        checkpoint(victim, image, "--keep-running")
        pids = {victim.pid}
        for host in ("n1", "n2"):
            pids.add((host, json.loads(godwit("n1", "restore", "--json", "--on", host, image).stdout)["pid"]))
        assert len(pids) == 3
        assert len(copies(["n1"], victim.status)) == 2 and len(copies(["n2"], victim.status)) == 1
        victim.assert_ok()
    finally:
        victim.clean()
    lab2.assert_clean()


def test_show(lab2, image):
    victim = start(lab2, "thread_ident", expect_move=False)
    try:
        checkpoint(victim, image, "--keep-running")
        shown = json.loads(godwit("n1", "image", "show", "--json", image).stdout)
        assert shown["unit"] == f"n1:{victim.pid}" and shown["node"] == "n1" and shown["keep_running"] and shown["kernel"] == os.uname().release
        assert [p["pid"] for p in shown["processes"]] == [victim.pid] and shown["processes"][0]["threads"] > 1 and shown["processes"][0]["pages"] > 10
        assert shown["processes"][0]["program"].endswith("/victim") and shown["descriptors"] and shown["file_bytes"] == os.path.getsize(image)
        text = godwit("n1", "image", "show", image).stdout
        assert "The image is whole" in text and str(victim.pid) in text
        victim.assert_ok()
    finally:
        victim.clean()


def test_in_memory_files_go_along(lab2, image):
    """A file in /tmp of a lab host, which is memory, is not there on another host."""
    program = "import os,time\nf=open('/tmp/kept','w+'); f.write('what was there'); f.flush(); open('STATUS','w').write('ready %d\\n' % os.getpid())\n" \
              "while not os.path.exists('STATUS.check'): time.sleep(0.02)\nf.seek(0); print(f.read()==('what was there') and 'ok' or 'FAIL', file=open('STATUS','a'), flush=True)\n"
    victim = Victim(lab2, "in_memory", flags=1, command=["/usr/bin/python3", "-c", program]).wait_ready()
    try:
        checkpoint(victim, image)
        shown = json.loads(godwit("n1", "image", "show", "--json", image).stdout)
        assert [f["path"] for f in shown["files"] if f["inside"]] == ["/tmp/kept"]
        restore(victim, image, "n2")
        victim.assert_ok()
    finally:
        victim.clean()
        for host in ("n1", "n2"):
            inside(host, "rm", "-f", "/tmp/kept")


def test_changed_and_missing_files(lab2, image):
    """A file that is not what it was is named, and nothing is made."""
    directory = lab2.directory("data")
    log = os.path.join(directory, "log")
    program = f"import os,time\nf=open('{log}','a'); f.write('1'); f.flush(); open('STATUS','w').write('ready %d\\n' % os.getpid())\n" \
              "while not os.path.exists('STATUS.check'): time.sleep(0.02)\nf.write('2'); f.flush(); print('ok', file=open('STATUS','a'), flush=True)\n"
    victim = Victim(lab2, "changed", flags=1, command=["/usr/bin/python3", "-c", program]).wait_ready()
    try:
        checkpoint(victim, image)
        with open(log, "a") as f:
            f.write("other")
        done = godwit("n1", "restore", image, check=False)
        assert done.returncode == REFUSAL and log in done.stderr and "changed" in done.stderr, done.stderr
        os.rename(log, log + ".away")
        done = godwit("n1", "restore", image, check=False)
        assert done.returncode == REFUSAL and log in done.stderr, done.stderr
        assert not os.path.exists(log)
        lab2.assert_clean()
        os.rename(log + ".away", log)
        restore(victim, image, "n1", "--changed-files=accept")
        victim.assert_ok()
        assert read(log) == "1other2"
    finally:
        victim.clean()


def connected(lab):
    """A program with a connection to another process, and its output in a file."""
    program = "import os,socket,time\ns=socket.socket(); s.bind(('127.0.0.1',0)); s.listen()\nif os.fork()==0:\n os.setsid()\n if os.fork(): os._exit(0)\n" \
              " c=socket.create_connection(s.getsockname()); s.close()\n while c.recv(1): pass\n os._exit(0)\nos.wait()\nc=s.accept()[0]; open('STATUS','w').write('ready %d\\n' % os.getpid())\n" \
              "c.settimeout(20)\ntry: x=c.recv(1)\nexcept TimeoutError: x=b'?'\nexcept OSError: x=b''\nprint('ok' if x==b'' else 'FAIL', file=open('STATUS','a'), flush=True)\n"
    return Victim(lab, "connected", flags=1, command=["/usr/bin/python3", "-c", program]).wait_ready()


def test_connections_with_others(lab2, image):
    victim = connected(lab2)
    try:
        done = godwit("n1", "checkpoint", victim.pid, image, check=False)
        assert done.returncode == REFUSAL and "127.0.0.1" in done.stderr and "--tcp=close" in done.stderr, done.stderr
        assert left_beside(image) == [] and victim.verdict_line() is None
        checkpoint(victim, image, "--tcp=close")
        restore(victim, image, "n1")
        assert victim.verdict() == "ok"
    finally:
        victim.clean()
        for p in strangers("n1"):
            kill(p.pid, signal.SIGKILL)


def test_other_ends_outside_are_refused(lab2, image):
    """Of a pipe, say: nobody will be there."""
    directory = lab2.directory("pipe")
    inside("n1", "setsid", "-f", "sh", "-c", f"exec >/dev/null 2>&1; sleep 1000 | sh -c 'echo $$ >{directory}/pid; exec cat'")
    pid = int(wait_until("its number", lambda: read(f"{directory}/pid").strip()))
    done = godwit("n1", "checkpoint", "--keep-running", pid, image, check=False)
    assert done.returncode == REFUSAL and "/dev/null" in done.stderr, done.stderr
    assert left_beside(image) == []
    for p in strangers("n1"):
        kill(p.pid, signal.SIGKILL)


def test_wrong_arguments(lab2, image):
    """What there is not is named, by who knows it first."""
    for arguments, words in ((["checkpoint", "999999", image], "process 999999: no such process"), (["checkpoint", "1", image], "process 1: the first process of a host"),
                             (["checkpoint", "n9:4711", image], "n9:4711"), (["restore", image], image), (["restore", "/etc/passwd"], "no image")):
        done = godwit("n1", *arguments, check=False)
        assert done.returncode != 0 and words in done.stderr, f"{arguments}: {done.stderr}"
    assert left_beside(image) == []


def records(data):
    """(offset, kind, stored bytes) of each record."""
    at = 32
    while at < len(data):
        kind, stored = struct.unpack_from("<H", data, at + 4)[0], struct.unpack_from("<I", data, at + 20)[0]
        yield at, kind, stored
        at += 32 + stored


def test_altered_images_are_refused(lab2, image):
    """Wherever it is: with the reason, and before anything is made."""
    victim = start(lab2, "file_unlinked", expect_move=False)
    try:
        checkpoint(victim, image, "--keep-running")
        with open(image, "rb") as f:
            whole = f.read()
        found = list(records(whole))
        assert {kind for _, kind, _ in found} == {1, 2, 3, 4, 5, 6}
        flips = set(range(32)) | {len(whole) - 1}
        for at, _, stored in found[:2] + found[-3:]:
            flips |= {at + 4 * i for i in range(8)} | ({at + 32, at + 31 + stored} if stored else set())
        altered = [whole[:i] + bytes([whole[i] ^ 0x40]) + whole[i + 1:] for i in sorted(flips)]
        altered += [whole[:n] for n in (0, 7, 31, 32, 60, len(whole) // 2, found[-1][0], len(whole) - 1)] + [whole + b"\0"]
        first, second = found[-3][0], found[-2][0]
        altered.append(whole[:first] + whole[second:])       # one is missing
        for i, data in enumerate(altered):
            with open(f"{image}.{i}", "wb") as f:
                f.write(data)
        shown = inside("n1", "sh", "-c", 'for i in "$@"; do godwit image show "$i" >/dev/null 2>>"$0.why" && echo "$i"; done; true', image, *(f"{image}.{i}" for i in range(len(altered))))
        assert not shown.stdout, shown.stdout
        why = read(f"{image}.why").splitlines()
        assert len(why) == len(altered) and all("image" in line for line in why), why
        for i in (3, 9, len(flips) - 1, len(altered) - 2, len(altered) - 1):
            done = godwit("n1", "restore", f"{image}.{i}", check=False)
            assert done.returncode == 1 and "image" in done.stderr, (i, done.stderr)
        assert len(copies(lab2.hosts, victim.status)) == 1
        victim.assert_ok()
    finally:
        victim.clean()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def forged(data, at, number=None):
    """The record at `at` as somebody would make it who has no key: its number changed, the checksum right."""
    stored = struct.unpack_from("<I", data, at + 20)[0]
    head = data[at:at + 24] + struct.pack("<I", struct.unpack_from("<I", data, at + 24)[0] if number is None else number)
    payload = data[at + 32:at + 32 + stored]
    return head + struct.pack("<I", crc32c(head + payload)) + payload


def test_encrypted(lab2, image):
    """Without the key nothing is to be read, and nothing can be altered, even by somebody who gets the checksums right; with it all is as ever."""
    key, other = image + ".key", image + ".other"
    for path, text in ((key, "k" * 40), (other, "o" * 40)):
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
            f.write(text + "\n")
    victim = start(lab2, "file_unlinked", expect_move=False)
    try:
        checkpoint(victim, image + ".open", "--no-compress", "--keep-running")
        checkpoint(victim, image, "--no-compress", "--key", key)
        with open(image + ".open", "rb") as f:
            assert victim.status.encode() in f.read()
        with open(image, "rb") as f:
            whole = f.read()
        assert victim.status.encode() not in whole and b"file_unlinked" not in whole
        found = list(records(whole))
        at = [at for at, _, _ in found]
        which = next(i for i in range(len(found) // 2, len(found)) if 16 < found[i][2] < 5000)
        flipped = bytearray(whole)
        flipped[at[which] + 40] ^= 1
        opened = whole[:12] + bytes(4) + whole[16:28]
        attacks = {"a byte": whole[:at[which]] + forged(bytes(flipped), at[which]) + whole[at[which + 1]:],
                   "as if it were not encrypted": opened + struct.pack("<I", crc32c(opened)) + whole[32:],
                   "cut off": whole[:at[-3]] + forged(whole, at[-1], len(at) - 3),
                   "one twice": whole[:at[-1]] + forged(whole, at[-2], len(at) - 1) + forged(whole, at[-1], len(at))}
        for name, data in attacks.items():
            with open(image + ".bad", "wb") as f:
                f.write(data)
            for arguments in (["restore", "--key", key], ["image", "show", "--key", key]):
                done = godwit("n1", *arguments, image + ".bad", check=False)
                assert done.returncode == 1 and "image" in done.stderr, (name, arguments, done.stdout, done.stderr)
        for arguments, words in ((["restore", image], "is encrypted"), (["restore", "--key", other, image], "another key"), (["image", "show", image], "is encrypted"),
                                 (["image", "show", "--key", other, image], "another key"), (["restore", "--key", key, image + ".open"], "is not encrypted"),
                                 (["restore", "--key", image + ".none", image], "No such file")):
            done = godwit("n1", *arguments, check=False)
            assert done.returncode in (1, 2) and words in done.stderr, (arguments, done.stderr)
        os.chmod(other, 0o640)
        done = godwit("n1", "restore", "--key", other, image, check=False)
        assert done.returncode == 2 and "chmod 600" in done.stderr, done.stderr
        assert not copies(lab2.hosts, victim.status)
        assert "it is encrypted" in godwit("n1", "image", "show", "--key", key, image).stdout
        restore(victim, image, "n2", "--key", key)
        victim.assert_ok()
    finally:
        victim.clean()


@pytest.mark.parametrize("options", [[], ["--keep-running"]])
def test_full_disk(lab2, image, options):
    """The unit goes on, and there is no file."""
    victim = start(lab2, "mem_anon", expect_move=False)
    small = os.path.join(os.path.dirname(image), "small")
    os.mkdir(small)
    try:
        done = inside("n1", "nsenter", "-t", str(main_daemon("n1").host_pid), "-m", "mount", "-t", "tmpfs", "-o", "size=256k", "none", small)
        done = godwit("n1", "checkpoint", "--no-compress", *options, victim.pid, os.path.join(small, "unit.img"), check=False)
        assert done.returncode == 1 and "No space left" in done.stderr, done.stderr
        listed = inside("n1", "nsenter", "-t", str(main_daemon("n1").host_pid), "-m", "ls", "-A", small)
        assert listed.stdout == ""
        victim.assert_ok()
    finally:
        inside("n1", "nsenter", "-t", str(main_daemon("n1").host_pid), "-m", "umount", "-l", small, check=False)
        victim.clean()
    lab2.assert_clean()


@pytest.mark.parametrize("who,options", [("godwit-source", []), ("godwit-image", []), ("godwit-image", ["--keep-running"]), ("command", [])])
def test_killed_in_the_middle(lab2, image, who, options):
    """Whoever is killed while memory is written: the unit goes on, or it is in a whole image."""
    victim = start(lab2, "mem_big", expect_move=False)
    command = None
    try:
        command = popen("n1", "godwit", "checkpoint", *options, str(victim.pid), image, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def target():
            found = strangers("n1") + workers("n1")
            return [p for p in found if p.name == ("godwit" if who == "command" else who)] if any(p.name == "godwit-image" for p in found) else []
        for p in wait_until(who, lambda: target() or (command.poll() is not None and [None]), 20):
            if p:
                kill(p.pid, signal.SIGKILL)
        command.wait(60)
        wait_until("the end of workers", lambda: not strangers("n1", victim.status) and not workers("n1"), 20)
        assert left_beside(image) in ([], ["unit.img"])
        if os.path.exists(image):
            godwit("n1", "image", "show", image)
        if not copies(["n1"], victim.status):
            assert os.path.exists(image)
            restore(victim, image, "n1")
        victim.assert_ok()
    finally:
        if command:
            command.kill()
        victim.clean()
    lab2.assert_clean()


CHURN = """
import ctypes, hashlib, mmap, os, signal, sys, time
# 64 MiB that say by themselves whether they are what they were; a few pages change all the time
MIB = int(sys.argv[2])
pages, n = MIB * 256, 0
memory = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
versions = [0] * pages
def text(i): return hashlib.blake2b(b"%d %d" % (i, versions[i]), digest_size=32).digest() * 128
for i in range(pages): memory[i * 4096:(i + 1) * 4096] = text(i)
def check(*_):
    wrong = [i for i in range(pages) if memory[i * 4096:(i + 1) * 4096] != text(i)]
    with open(sys.argv[1], "a") as f: f.write("%d wrong=%d\\n" % (n, len(wrong)))
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
with open(sys.argv[1], "a") as f: f.write("ready\\n")
while True:
    n += 1
    for i in range(n * 7 % 64, n * 7 % 64 + 8):
        versions[i] += 1
        memory[i * 4096:(i + 1) * 4096] = text(i)
    if asked: asked.clear(); check()
    time.sleep(0.01)
"""


@pytest.fixture
def churn(lab2):
    """A program, and a directory for its images."""
    directory = lab2.directory("churn")
    said, program, chain = (os.path.join(directory, name) for name in ("said", "churn.py", "chain"))
    os.mkdir(chain)
    with open(program, "w") as f:
        f.write(CHURN)

    def ask(host, pid):
        lines = read(said).splitlines()
        inside(host, "kill", "-USR1", str(pid))
        wait_until("it has looked", lambda: len(read(said).splitlines()) > len(lines))
        return read(said).splitlines()[-1].split()

    inside("n1", "sh", "-c", f"setsid -f /usr/bin/python3 {program} {said} 24 </dev/null >/dev/null 2>&1")
    wait_until("it is ready", lambda: "ready" in read(said), 30)
    yield copies(["n1"], said)[0][1].host_pid, chain, ask, said
    for _, p in copies(["n1", "n2"], said):
        kill(p.pid, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def test_incremental(lab2, churn):
    """Each image says what is new since the one before; any of them can be restored, as long as those that it needs are there and as they were."""
    pid, chain, ask, said = churn
    made = [json.loads(godwit("n1", "checkpoint", "--json", "--keep-running", "--incremental", pid, chain).stdout) for _ in range(4)]
    names = ["%08d.img" % i for i in range(1, 5)]
    assert left_beside(os.path.join(chain, "x")) == [".chain", *names]
    assert [r["needs"] for r in made] == [0, 1, 2, 3] and [r["incremental"] for r in made] == [False, True, True, True]
    assert made[0]["whole_because"] == "it is the first of its chain" and made[0]["file_bytes"] > 1 << 20
    assert all(r["file_bytes"] < made[0]["file_bytes"] / 5 for r in made[1:])
    shown = json.loads(godwit("n1", "image", "show", "--json", chain).stdout)
    assert shown["needs"] == names[:3] and shown["processes"][0]["pages"] > 6000
    assert "needs 3 images beside it" in godwit("n1", "image", "show", chain).stdout
    godwit("n1", "image", "core", "--output", os.path.join(os.path.dirname(chain), "core"), chain)

    def refused(path, why):
        done = godwit("n1", "restore", "--on", "n2", path, check=False)
        assert done.returncode and why in done.stderr, done.stderr
        assert godwit("n1", "image", "show", path, check=False).returncode and not copies(["n2"], said)

    second, third = (os.path.join(chain, name) for name in names[1:3])
    os.rename(second, second + ".away")
    refused(chain, f"new since {names[1]}: it is not there")
    shutil.copy(third, second)
    refused(chain, f"new since {names[1]}: it")
    os.rename(second + ".away", second)
    with open(third, "r+b") as f:
        f.seek(os.path.getsize(third) // 2)
        byte = f.read(1)
        f.seek(os.path.getsize(third) // 2)
        f.write(bytes([byte[0] ^ 1]))
    refused(chain, f"new since {names[2]}: it has been altered since")
    # what does not need it is not touched by that
    for path in (second, os.path.join(chain, names[0])):
        copy = json.loads(godwit("n1", "restore", "--json", "--on", "n2", "--changed-files=accept", path).stdout)["pid"]
        assert ask("n2", copy)[1] == "wrong=0"
        for _, p in copies(["n2"], said):
            kill(p.pid, signal.SIGKILL)
    # one of which is gone begins anew, and takes the old ones away
    os.unlink(third)
    made = json.loads(godwit("n1", "checkpoint", "--json", "--incremental", pid, chain).stdout)
    assert not made["incremental"] and "not there any more" in made["whole_because"]
    assert left_beside(os.path.join(chain, "x")) == [".chain", "00000005.img"] and not copies(["n1"], said)
    assert ask("n1", json.loads(godwit("n1", "restore", "--json", "--changed-files=accept", chain).stdout)["pid"])[1] == "wrong=0"


def test_incremental_refused(lab2, churn):
    """What is no directory, is encrypted, or another unit's."""
    pid, chain, _, _ = churn
    key = os.path.join(os.path.dirname(chain), "key")
    with open(key, "w") as f:
        f.write("0123456789abcdef" * 4)
    os.chmod(key, 0o600)
    for options, path, why in ((), "/etc/passwd", "is no directory"), (("--key", key), chain, "cannot be encrypted"):
        done = godwit("n1", "checkpoint", "--incremental", "--keep-running", *options, pid, path, check=False)
        assert done.returncode and why in done.stderr, done.stderr
    godwit("n1", "checkpoint", "--incremental", "--keep-running", pid, chain)
    other = popen("n1", "sh", "-c", "exec setsid sleep 1000 </dev/null >/dev/null 2>&1")
    try:
        wait_until("it sleeps", lambda: inside("n1", "pgrep", "-x", "sleep", check=False).stdout.split())
        done = godwit("n1", "checkpoint", "--incremental", "--keep-running", inside("n1", "pgrep", "-x", "sleep").stdout.split()[0], chain, check=False)
        assert done.returncode and f"chain of unit n1:{pid}" in done.stderr, done.stderr
    finally:
        other.kill()
        other.wait()
