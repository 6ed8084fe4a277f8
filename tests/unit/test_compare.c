// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_compare.c - the agent compares pages where they are, and is not ended by one that it cannot read
 *
 * The agent's code runs here in a child, in memory that both share: a scratch without a worker, with one slot.
 */
#include <errno.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/abi.h"
#include "agent/delta.h"
#include "base/util.h"
#include "migrate/ahead.h"

#define PAGES 4u
#define SIZE (4ul << 20)
#define JOB_AT (1ul << 20)
#define WAIT_MS 60000u

extern const uint8_t agent_blob[], agent_blob_end[];

static uint8_t *scratch, *pages;
static pid_t child;

static struct slot *slot(void)
{
	return (struct slot *)(scratch + SCRATCH_SLOTS);
}

/* What the job points to. */
struct room {
	struct compare_job job;
	struct remote_call call;
	uint64_t addresses[PAGES];
	uint8_t sent[PAGES * PAGE_SIZE_BYTES], out[PAGES * DELTA_PAGE_MAX + 8192];
};

static struct room *room(void)
{
	return (struct room *)(scratch + JOB_AT);
}

static void __attribute__((noreturn)) become_agent(void)
{
	sigset_t all;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	asm volatile("movq %2, %%rsp; jmp *%3" : : "D"(slot()), "S"(scratch + SCRATCH_HEADER), "r"(scratch + SCRATCH_AGENT_STACK_TOP - 64), "r"(scratch) : "memory");
	__builtin_unreachable();
}

/* readable: how many of the pages are; the others are protected, or behind the end of a file. */
static void start(unsigned readable, bool end_of_file)
{
	struct scratch_header *h;

	scratch = mmap(NULL, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(scratch, MAP_FAILED);
	memcpy(scratch, agent_blob, (size_t)(agent_blob_end - agent_blob));
	h = (struct scratch_header *)(scratch + SCRATCH_HEADER);
	h->base = (uint64_t)scratch;
	h->size = SIZE;
	h->worker_fd = -1;
	slot()->flags = SLOT_AGENT;
	if (end_of_file) {
		int fd = memfd_create("short", 0);

		assert_int_equal(ftruncate(fd, (off_t)(readable * PAGE_SIZE_BYTES)), 0);
		pages = mmap(NULL, PAGES * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
	} else {
		pages = mmap(NULL, PAGES * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	}
	assert_ptr_not_equal(pages, MAP_FAILED);
	memset(pages, 3, readable * PAGE_SIZE_BYTES);
	if (!end_of_file && readable < PAGES)
		assert_int_equal(mprotect(pages + readable * PAGE_SIZE_BYTES, (PAGES - readable) * PAGE_SIZE_BYTES, PROT_NONE), 0);
	memset(room()->sent, 3, sizeof(room()->sent));
	child = fork();
	if (!child)
		become_agent();
}

static void stop(void)
{
	int status;

	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	munmap(scratch, SIZE);
	munmap(pages, PAGES * PAGE_SIZE_BYTES);
}

/* The result of comparing n pages. */
static int64_t compare(unsigned n)
{
	struct slot *s = slot();

	room()->job = (struct compare_job){ (uint64_t)scratch + SCRATCH_HEADER, (uint64_t)room()->addresses, n, (uint64_t)room()->sent, (uint64_t)room()->out, sizeof(room()->out) };
	for (unsigned i = 0; i < n; i++)
		room()->addresses[i] = (uint64_t)pages + i * PAGE_SIZE_BYTES;
	room()->call = (struct remote_call){ .nr = CALL_COMPARE, .arg = { (uint64_t)&room()->job }, .flags = CALL_MAY_FAIL };
	s->list = (uint64_t)&room()->call;
	s->ncalls = 1;
	s->command = COMMAND_RUN;
	__atomic_store_n(&s->seq, s->seq + 1, __ATOMIC_RELEASE);
	for (unsigned ms = 0; __atomic_load_n(&s->done, __ATOMIC_ACQUIRE) != s->seq; ms++) {
		assert_true(ms < WAIT_MS);
		assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
		syscall(SYS_futex, &s->seq, FUTEX_WAKE, 1, NULL, NULL, 0);
		usleep(1000);
	}
	return room()->call.ret;
}

static void differences_are_found(void **state)
{
	const uint8_t *at, *data;
	struct delta d;
	size_t left;

	(void)state;
	start(PAGES, false);
	assert_int_equal(compare(PAGES), 0);
	pages[PAGE_SIZE_BYTES + 80] = 4;
	pages[3 * PAGE_SIZE_BYTES] = 5;
	left = (size_t)compare(PAGES);
	at = room()->out;
	assert_int_equal(delta_next(&at, &left, &d, &data, NULL), 1);
	assert_int_equal(d.address, (uint64_t)pages + PAGE_SIZE_BYTES + 80);
	assert_int_equal(d.len, 8);
	assert_int_equal(data[0], 4);
	assert_int_equal(delta_next(&at, &left, &d, &data, NULL), 1);
	assert_int_equal(d.address, (uint64_t)pages + 3 * PAGE_SIZE_BYTES);
	assert_int_equal(delta_next(&at, &left, &d, &data, NULL), 0);
	memset(pages, 9, PAGES * PAGE_SIZE_BYTES);
	assert_int_equal(compare(PAGES), PAGES * DELTA_PAGE_MAX);
	stop();
}

static void unreadable(bool end_of_file)
{
	start(2, end_of_file);
	assert_int_equal(compare(PAGES), -EFAULT);
	assert_int_equal(compare(PAGES), -EFAULT);
	pages[8] = 1;
	assert_int_equal(compare(2), sizeof(struct delta) + 8);
	stop();
}

static void protected_page_ends_it(void **state)
{
	(void)state;
	unreadable(false);
}

static void bus_error_ends_it(void **state)
{
	(void)state;
	unreadable(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(differences_are_found), cmocka_unit_test(protected_page_ends_it), cmocka_unit_test(bus_error_ends_it) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
