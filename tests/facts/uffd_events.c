// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * uffd_events.c - the non-cooperative events of userfaultfd: who waits for whom, and what fills meet meanwhile
 *
 * A child registers memory with EVENT_FORK, REMAP, REMOVE and UNMAP and does what raises them; the parent (the monitor) got
 * the descriptor and reads the events late.
 */
#include <sys/socket.h>

#include "fact.h"

#define FEATURES (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)
#define LEN (64 * PAGE)

struct shared {
	volatile int command, done;
	volatile long result;
	char *volatile p, *volatile moved;
	volatile int fd;
};

static struct shared *s;

static void worker(void)
{
	int fd = uffd_open(FEATURES | UFFD_FEATURE_MOVE);
	char *p = map_anon(2 * LEN);

	MUST(uffd_register(fd, p, LEN, UFFDIO_REGISTER_MODE_MISSING) == 0);
	s->p = p;
	s->fd = fd;
	s->done = 1;
	for (;;) {
		int c = s->command;
		if (!c) {
			usleep(100);
			continue;
		}
		if (c == 1)
			s->result = madvise(p + 4 * PAGE, 4 * PAGE, MADV_DONTNEED);
		else if (c == 2)
			s->result = munmap(p + 16 * PAGE, 4 * PAGE);
		else if (c == 3) {
			char *to = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			s->moved = mremap(p + 32 * PAGE, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
			s->result = s->moved == MAP_FAILED ? -1 : 0;
		} else if (c == 4) {
			pid_t pid = fork();
			if (pid == 0) {
				volatile char x = p[48 * PAGE]; /* missing in the child: its own userfaultfd serves it */
				(void)x;
				_exit(x == 'f' ? 0 : 1);
			}
			int status;
			s->done = 2;
			waitpid(pid, &status, 0);
			s->result = status;
		}
		s->command = 0;
		s->done = 1;
	}
}

/* Starts a command and returns when its event is waiting to be read. */
static void start(int command, int fd)
{
	struct pollfd pf = { .fd = fd, .events = POLLIN };

	s->done = 0;
	s->command = command;
	MUST(poll(&pf, 1, 5000) == 1);
	usleep(1000);
}

static struct uffd_msg read_event(int fd)
{
	struct uffd_msg m = { 0 };

	MUST(read(fd, &m, sizeof(m)) == sizeof(m));
	return m;
}

static void blocked_call(pid_t pid, int fd, int command, const char *name, int event)
{
	int status;
	char page[PAGE];
	int64_t done;

	start(command, fd);
	FACT(!s->done, "%s waits while its event is unread", name);
	int r = uffd_copy(fd, s->p + PAGE, page, PAGE, &done);
	FACT(r == -EAGAIN, "  UFFDIO_COPY meanwhile: %s, field %lld", r ? strerror(-r) : "ok", (long long)done);
	uint64_t t = now_ns();
	MUST(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 && ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0);
	pid_t w = 0;
	while (!w && now_ns() - t < 200000000ull)
		w = waitpid(pid, &status, WNOHANG | __WALL);
	FACT(w == 0, "  PTRACE_INTERRUPT does not stop it within 200 ms (not interruptible; SIGKILL does end it)");
	struct uffd_msg m = read_event(fd);
	FACT(m.event == event, "  the event: %#x", m.event);
	t = now_ns();
	unsigned more = 0;
	while (waitpid(pid, &status, WNOHANG | __WALL) == 0) {
		struct uffd_msg next;
		if (read(fd, &next, sizeof(next)) == sizeof(next)) {
			SAW("  a further event of the same call: %#x, %#llx-%#llx", next.event, next.arg.remove.start, next.arg.remove.end);
			more++;
		}
	}
	FACT(more == (event == UFFD_EVENT_REMAP), "  %u further event(s): a mremap that moves raises REMAP and then UNMAP of the old place", more);
	SAW("  after read() it goes on at once: stopped %llu us later", (unsigned long long)(now_ns() - t) / 1000);
	r = uffd_copy(fd, s->p + PAGE, page, PAGE, &done);
	SAW("  COPY after the call went on: %s", r ? strerror(-r) : "ok");
	FACT(r == 0 || r == -EEXIST, "  fills work again after the event is read and the call has finished");
	MUST(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
	while (!s->done)
		usleep(100);
	FACT(s->result == 0, "  the call itself: %ld", s->result);
}

static void forked(int fd)
{
	char page[PAGE];
	int64_t done;

	memset(page, 'f', PAGE);
	start(4, fd);
	FACT(s->done == 0, "fork waits while its event is unread");
	struct uffd_msg m = read_event(fd);
	int child = (int)m.arg.fork.ufd;
	FACT(m.event == UFFD_EVENT_FORK && child >= 0, "EVENT_FORK brings the child's own userfaultfd (%d) into the reader's table", child);
	struct pollfd pf = { .fd = child, .events = POLLIN };
	MUST(poll(&pf, 1, 5000) == 1);
	m = read_event(child);
	FACT(m.event == UFFD_EVENT_PAGEFAULT, "the child's fault comes on it");
	FACT(uffd_copy(child, s->p + 48 * PAGE, page, PAGE, &done) == 0, "and is filled through it");
	while (s->done != 1)
		usleep(100);
	FACT(s->result == 0, "the child saw the page");
	SAW("  after the child's exit: poll on its descriptor %d, copy: %s", poll(&pf, 1, 0), strerror(-uffd_copy(child, s->p + 49 * PAGE, page, PAGE, &done)));
}

int main(void)
{
	s = map_shared(PAGE);
	pid_t pid = fork();
	if (pid == 0)
		worker();
	while (!s->done)
		usleep(100);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, s->fd, 0);
	MUST(fd >= 0);
	blocked_call(pid, fd, 1, "madvise(DONTNEED)", UFFD_EVENT_REMOVE);
	blocked_call(pid, fd, 2, "munmap", UFFD_EVENT_UNMAP);
	blocked_call(pid, fd, 3, "mremap", UFFD_EVENT_REMAP);
	char page[PAGE];
	int64_t done;
	memset(page, 'm', PAGE);
	int r = uffd_copy(fd, s->moved, page, PAGE, &done);
	FACT(r == 0, "the moved mapping is still registered at its new place: COPY %s", r ? strerror(-r) : "ok");
	forked(fd);

	/* A monitor that closes its last reference lets everything go. */
	start(1, fd);
	FACT(!s->done, "madvise(DONTNEED) waits again");
	int status;
	uint64_t t = now_ns();
	kill(pid, SIGKILL);
	MUST(waitpid(pid, &status, 0) == pid);
	FACT(WIFSIGNALED(status), "SIGKILL ends a call that waits for its event (%llu us)", (unsigned long long)(now_ns() - t) / 1000);
	return fact_result();
}
