# SPDX-License-Identifier: GPL-2.0-or-later
"""A core file made of an image: gdb finds in it what the program knows of itself."""

import json
import os
import re
import shutil
import subprocess

import pytest

from lab_driver import Victim, inside, kill, read, strangers, wait_until

# Two threads that wait and one that computes, with values in registers; memory of every kind. What it knows it writes into its status file.
PROGRAM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct item { struct item *next; int value; char name[12]; };
static struct item *list;
static uint64_t changed = 1, zeros[65536];
static const char constant[] = "not written to";
static _Thread_local long mine = -1;
static pthread_barrier_t begun;
static char *heap, *shared, *file, *anon;
static int spinning;
static long spinner;

static void *noinline_wait(int depth, const char *word)
{
	char local[32];
	snprintf(local, sizeof(local), "%s %d", word, depth);
	if (depth)
		return noinline_wait(depth - 1, word);
	pthread_barrier_wait(&begun);
	for (;;)
		pause();
	return local;
}

static void *waiter(void *arg)
{
	mine = (long)arg;
	return noinline_wait(3, "waits");
}

static void *computer(void *arg)
{
	spinner = syscall(SYS_gettid);
	mine = 7;
	pthread_barrier_wait(&begun);
	uint64_t v[4] __attribute__((aligned(32))) = { 0x1111, 0x2222, 0x3333, 0x4444 };
	__asm__ volatile("movdqa %[v], %%xmm7\n mov $0x5151515151515151, %%r12\n mov $0x3737373737373737, %%r15\n movl $1, %[s]\n1: pause\n jmp 1b"
			 : [s] "=m"(spinning) : [v] "m"(v) : "xmm7", "r12", "r15", "memory");
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	FILE *out;
	int fd;
	pthread_barrier_init(&begun, NULL, 4);
	for (int i = 0; i < 3; i++) {
		struct item *x = calloc(1, sizeof(*x));
		*x = (struct item){ list, i * 100, "" };
		snprintf(x->name, sizeof(x->name), "item %d", i);
		list = x;
	}
	changed = 0xfeedfacecafebeef;
	heap = malloc(3000000);
	memset(heap, 'h', 3000000);
	anon = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	strcpy(anon + 700000, "in the middle of nothing");
	fd = memfd_create("known", 0);
	ftruncate(fd, 8192);
	shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	strcpy(shared + 4096, "what is shared");
	fd = open(argv[2], O_RDONLY);
	file = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	strcpy(file + 4096, "mine");
	if (argc > 3)
		if (!fork())
			setsid();
	pthread_create(&t, NULL, waiter, (void *)41);
	pthread_create(&t, NULL, waiter, (void *)42);
	pthread_create(&t, NULL, computer, NULL);
	pthread_barrier_wait(&begun);
	while (!__atomic_load_n(&spinning, __ATOMIC_SEQ_CST))
		usleep(1000);
	out = fopen(argv[1], argc > 3 ? "a" : "w");
	fprintf(out, "info spinner=%ld shared=%p file=%p anon=%p heap=%p main=%p constant=%p\nready %d\n", spinner, shared, file, anon, heap, (void *)main, constant, getpid());
	fclose(out);
	for (;;)
		pause();
}
"""

COMMANDS = """
set pagination off
set print thread-events off
info threads
thread apply all -q backtrace
printf "changed %lx zeros %lx %lx\\n", changed, zeros[0], zeros[65535]
printf "list %d %s %d %s %d %s\\n", list->value, list->name, list->next->value, list->next->name, list->next->next->value, list->next->next->name
printf "end %p\\n", list->next->next->next
printf "shared %s\\nanon %s\\nfirst %d\\n", shared + 4096, anon + 700000, anon[4096]
printf "file %s %c%c\\n", file + 4096, file[0], file[8192]
printf "heap %c%c\\n", heap[0], heap[2999999]
printf "constant %s\\n", constant
x/3i main
"""
PER_THREAD = """
python
import gdb
for t in gdb.selected_inferior().threads():
    t.switch()
    gdb.execute('printf "thread %d r12 %lx r15 %lx xmm7 %lx %lx mine %ld\\\\n", $_thread, $r12, $r15, $xmm7.v2_int64[0], $xmm7.v2_int64[1], mine')
    print("tid", t.num, t.ptid[1])
end
info proc
info auxv
info files
"""


@pytest.fixture
def place(lab2):
    directory = lab2.directory("core")
    with open(f"{directory}/known.c", "w") as f:
        f.write(PROGRAM)
    with open(f"{directory}/data", "w") as f:
        f.write("".join(c * 4096 for c in "abc"))
    subprocess.run(["gcc", "-g", "-O0", "-pthread", "-o", f"{directory}/known", f"{directory}/known.c"], check=True, stderr=subprocess.DEVNULL)
    yield directory
    for p in strangers("n1"):
        kill(p.pid, 9)
    shutil.rmtree(directory, ignore_errors=True)


def start(lab2, place, *more):
    return Victim(lab2, "known", expect_move=False, command=[f"{place}/known", "STATUS", f"{place}/data", *more]).wait_ready()


def gdb(place, core):
    with open(f"{place}/commands", "w") as f:
        f.write(COMMANDS + PER_THREAD)
    done = subprocess.run(["gdb", "-q", "-batch", "-nx", "-x", f"{place}/commands", f"{place}/known", core], capture_output=True, text=True, timeout=120, check=False)
    assert "Error" not in done.stderr and "Cannot access" not in done.stderr + done.stdout, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [["--keep-running"], []], ids=["pre-copy", "stop-copy"])
def test_gdb_opens_it(lab2, place, options):
    victim = start(lab2, place)
    image, core, pid = f"{place}/unit.img", f"{place}/core", victim.pid
    spinner, main = victim.info("spinner"), int(victim.info("main"), 16)
    tids = set(os.listdir(f"/proc/{victim.process().pid}/task"))
    host_tids = {re.search(r"^NSpid:.*\s(\d+)$", read(f"/proc/{victim.process().pid}/task/{t}/status"), re.M).group(1) for t in tids}
    inside("n1", "godwit", "checkpoint", *options, str(victim.pid), image)
    made = json.loads(inside("n1", "godwit", "image", "core", "--json", "-o", core, image).stdout)
    assert made["pid"] == pid and made["threads"] == 4 and made["path"] == core and os.stat(core).st_mode & 0o777 == 0o600
    assert made["file_bytes"] < 16 << 20
    seen = gdb(place, core)
    assert "Program terminated" not in seen and f"Core was generated by `{place}/known" in seen, seen
    assert {t for t in re.findall(r"^tid \d+ (\d+)$", seen, re.M)} == host_tids, seen
    for line in ("changed feedfacecafebeef zeros 0 0", "list 200 item 2 100 item 1 0 item 0", "end (nil)", "shared what is shared", "anon in the middle of nothing", "first 0",
                 "file mine ac", "heap hh", "constant not written to"):
        assert line in seen.splitlines(), (line, seen)
    assert re.search(rf"^   0x0*{main:x} <main", seen, re.M), seen
    assert len(re.findall(r"noinline_wait \(depth=0, word=0x\w+ \"waits\"\)", seen)) == 2 and len(re.findall(r"noinline_wait \(depth=3,", seen)) == 2, seen
    assert len(re.findall(r" waiter \(arg=0x29\)", seen)) == 1 and len(re.findall(r" main \(argc=3,", seen)) == 1 and "computer (arg=" in seen, seen
    threads = {n: (regs, mine) for n, regs, mine in re.findall(r"^thread (\d+) (.*) mine (-?\d+)$", seen, re.M)}
    by_tid = {tid: threads[n] for n, tid in re.findall(r"^tid (\d+) (\d+)$", seen, re.M)}
    assert by_tid[spinner] == ("r12 5151515151515151 r15 3737373737373737 xmm7 1111 2222", "7"), seen
    assert sorted(mine for _, mine in threads.values()) == ["-1", "41", "42", "7"], seen
    assert "AT_ENTRY" in seen and "AT_SYSINFO_EHDR" in seen, seen
    victim.clean()


def test_several_processes(lab2, place):
    """Each has its own, with what it shares copy-on-write with the others."""
    victim = start(lab2, place, "fork")
    image = f"{place}/unit.img"
    child = int(wait_until("the child", lambda: [p for p in re.findall(r"^ready (\d+)$", read(victim.status), re.M) if int(p) != victim.pid])[0])
    inside("n1", "godwit", "checkpoint", "--keep-running", str(min(child, victim.pid)), image)
    done = inside("n1", "godwit", "image", "core", image, check=False)
    assert done.returncode == 1 and "--pid" in done.stderr and str(child) in done.stderr, done.stderr
    done = inside("n1", "godwit", "image", "core", "--pid", "1", image, check=False)
    assert done.returncode == 1 and "no process 1" in done.stderr, done.stderr
    for pid in (victim.pid, child):
        inside("n1", "godwit", "image", "core", "--pid", str(pid), "-o", f"{place}/core.{pid}", image)
        seen = gdb(place, f"{place}/core.{pid}")
        for line in ("changed feedfacecafebeef zeros 0 0", "list 200 item 2 100 item 1 0 item 0", "shared what is shared", "file mine ac", "heap hh"):
            assert line in seen.splitlines(), (line, seen)
        assert sorted(re.findall(r"mine (-?\d+)$", seen, re.M)) == ["-1", "41", "42", "7"], seen
    victim.clean()


def test_what_is_no_image(lab2, place):
    core = f"{place}/core"
    for path in ("/etc/passwd", f"{place}/nothing"):
        done = inside("n1", "godwit", "image", "core", "-o", core, path, check=False)
        assert done.returncode == 1 and path in done.stderr, done.stderr
    assert not [f for f in os.listdir(place) if f.startswith("core")]
