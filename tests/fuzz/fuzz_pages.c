// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_pages.c - the page streams as the destination's agent reads them
 *
 * receive.c, pager.c and io.c of the agent are compiled for this program (AGENT_HOSTED: sys6 is a function) and run against a kernel that is made up here. It
 * hands out the input in pieces, answers with every error that the real one has, and lets the process fork, move and unmap memory meanwhile. It
 * aborts when the agent gives it a buffer that is not one of its own, or an address outside of the process.
 *
 * Input: mode (0 receive, else pager), length (u16) and bytes of choices, length (u16) and bytes of the fault stream, the bulk stream. Without further choices
 * everything succeeds at once. Or, see MODE_RIGHT, 2 and a sum before all that.
 */
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>

#include "sys.h"

#define FD_BULK 10
#define FD_FAULT 11
#define FD_MEM 12
#define FD_UFFD 100 /* and up: children */
#define POOL_PAGES 96u
#define POOL_SPARE 40u
#define POOL_ALIGNMENT (2ul << 20) /* that the agent leaves out the same pages each time */
#define HEAD_LEAST (sizeof(struct page_frame) + sizeof(struct page_run))
#define PIECES 3u
#define BLOCKS_MAX 4096
#define CHOICES_MAX 2048
#define EVENT_FAULT 0x12
#define EVENT_KINDS 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
	const uint8_t *at;
	size_t left;
};

static const struct pager_piece original[PIECES] = { { 0x10000, 0x10000, 16 * AGENT_PAGE }, { 0x20000000, 0x20000000, 256 * AGENT_PAGE },
						     { 0x7f0000000000, 0x7f0000000000, 300 * AGENT_PAGE } };

static struct {
	struct scratch_header *h;
	struct input choices, bulk, fault;
	uint8_t *staging, *pool;
	void *blocks[BLOCKS_MAX];
	size_t nblocks;
	int children;
	bool remap_follows;
	uint64_t from, to, len;
	bool pager, right;
} k;

/* --- the input --- */

static int choice(void)
{
	if (!k.choices.left)
		return -1;
	k.choices.left--;
	return *k.choices.at++;
}

static uint64_t choose_address(void)
{
	int piece = choice(), page = choice();

	return original[piece < 0 ? 0 : (unsigned)piece % PIECES].original + (page < 0 ? 0 : (uint64_t)page) * AGENT_PAGE;
}

/* --- what the agent may touch --- */

static bool inside(uint64_t at, uint64_t len, const void *start, uint64_t size)
{
	return at >= (uint64_t)start && at - (uint64_t)start <= size && len <= size - (at - (uint64_t)start);
}

static bool in_process(uint64_t at, uint64_t len)
{
	for (size_t i = 0; i < PIECES; i++)
		if (inside(at, len, (void *)original[i].original, original[i].len))
			return true;
	return false;
}

static bool in_pages(uint64_t at, uint64_t len)
{
	uint64_t half = STREAM_PAGES_MAX * AGENT_PAGE;

	return inside(at, len, k.staging, half) || inside(at, len, k.staging + half, half) || inside(at, len, k.pool, POOL_PAGES * AGENT_PAGE);
}

static bool in_frame(uint64_t at, uint64_t len, const struct stream_frame *f)
{
	return inside(at, len, f, sizeof(*f));
}

static void check(bool good)
{
	if (!good)
		abort();
}

/* --- the kernel --- */

/* Whether the agent may receive there. The second part of a message is on its stack: the beginning of the next frame. */
static bool may_receive(int fd, const struct io_vec *part, bool second)
{
	struct agent_buffers *b = agent_buffers(k.h);

	if (second)
		return part->len == HEAD_LEAST;
	return in_pages(part->base, part->len) || in_frame(part->base, part->len, fd == FD_BULK ? &b->in : &b->fault_in);
}

static long do_receive(int fd, const struct io_vec *parts, uint64_t nparts, long flags)
{
	struct input *in = fd == FD_BULK ? &k.bulk : &k.fault;
	int c = choice();
	size_t most = c > 0 && c < 128 ? (size_t)c : SIZE_MAX, n = 0;

	check(fd == FD_BULK || fd == FD_FAULT);
	check(nparts == 1 || (nparts == 2 && k.pager));
	for (uint64_t i = 0; i < nparts; i++)
		check(parts[i].len > 0 && (may_receive(fd, &parts[i], i > 0) || (!k.pager && in_process(parts[i].base, parts[i].len))));
	if (c == 0)
		return flags & MSG_DONTWAIT_FLAG ? E_AGAIN : E_INTR;
	if (fd == FD_FAULT && !in->left)
		return E_AGAIN;
	for (uint64_t i = 0; i < nparts && in->left && n < most; i++) {
		size_t some = parts[i].len < in->left ? parts[i].len : in->left;

		if (some > most - n)
			some = most - n;
		if (!in_process(parts[i].base, parts[i].len))
			memcpy((void *)parts[i].base, in->at, some);
		in->at += some;
		in->left -= some;
		n += some;
		if (some < parts[i].len)
			break;
	}
	return (long)n;
}

struct fill_argument { /* UFFDIO_COPY and UFFDIO_MOVE; UFFDIO_ZEROPAGE and UFFDIO_POISON have no source */
	uint64_t dst, src, len, mode;
	int64_t done;
};

struct clear_argument {
	uint64_t dst, len, mode;
	int64_t done;
};

static long do_fill(uint64_t request, void *argument)
{
	static const int errors[] = { E_AGAIN, E_EXIST, E_SRCH, E_NOMEM, -22, -2 };
	bool has_source = (request & 0xff) == 3 || (request & 0xff) == 5;
	struct fill_argument *f = argument;
	struct clear_argument *z = argument;
	uint64_t dst = has_source ? f->dst : z->dst, len = has_source ? f->len : z->len;
	int64_t *done = has_source ? &f->done : &z->done;
	int c = choice();

	check(dst % AGENT_PAGE == 0 && len % AGENT_PAGE == 0 && len && dst + len > dst);
	if (has_source)
		check(in_pages(f->src, f->len) && f->src % AGENT_PAGE == 0);
	if ((request & 0xff) == 5)
		check(inside(f->src, f->len, k.pool, POOL_PAGES * AGENT_PAGE));
	if (c >= 0 && (size_t)c < sizeof(errors) / sizeof(errors[0])) {
		*done = errors[c];
		return errors[c];
	}
	if (c >= 8 && c < 16 && len > AGENT_PAGE) {
		*done = (int64_t)AGENT_PAGE;
		return E_AGAIN;
	}
	*done = (int64_t)len;
	return 0;
}

struct event {
	uint8_t kind, r1;
	uint16_t r2;
	uint32_t r3;
	uint64_t a, b, c;
} __attribute__((packed));

/* Only what a kernel would say: where memory moves to, nothing was before. */
static long do_event(struct event *e)
{
	int c;

	*e = (struct event){ 0 };
	if (k.remap_follows) {
		k.remap_follows = false;
		*e = (struct event){ .kind = EVENT_FAULT + 2, .a = k.from, .b = k.to, .c = k.len };
		return sizeof(*e);
	}
	c = choice();
	if (c < 0 || c >= 160)
		return E_AGAIN;
	e->kind = (uint8_t)(EVENT_FAULT + c % EVENT_KINDS);
	switch (e->kind - EVENT_FAULT) {
	case 0:
		e->b = choose_address() + 8;
		break;
	case 1:
		e->a = (uint64_t)(FD_UFFD + ++k.children);
		break;
	case 2:
		k.from = choose_address();
		k.to = choose_address();
		k.len = (uint64_t)(choice() % 64 + 2) * AGENT_PAGE;
		if (k.from < k.to + k.len && k.to < k.from + k.len)
			k.to = k.from + k.len;
		k.remap_follows = true;
		e->kind = EVENT_FAULT + 4;
		e->a = k.to;
		e->b = k.to + k.len;
		break;
	default:
		e->a = choose_address();
		e->b = e->a + (uint64_t)(choice() % 64 + 2) * AGENT_PAGE;
		break;
	}
	return sizeof(*e);
}

static long do_poll(struct poll_fd *p, long n)
{
	long ready = 0;

	check(n <= 68);
	for (long i = 0; i < n; i++) {
		p[i].revents = p[i].fd >= 0 && choice() == 7 ? POLL_IN : 0;
		ready += p[i].revents != 0;
	}
	return ready;
}

static long do_send(const struct msg_hdr *m)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < m->iovlen; i++)
		sum += m->iov[i].len;
	return (long)sum;
}

static long do_mmap(uint64_t len)
{
	void *p = k.nblocks < BLOCKS_MAX ? calloc(1, len) : NULL;

	if (!p)
		return E_NOMEM;
	k.blocks[k.nblocks++] = p;
	return (long)p;
}

long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	switch (nr) {
	case __NR_recvfrom:
		return do_receive((int)a, &(struct io_vec){ (uint64_t)b, (uint64_t)c }, 1, d);
	case __NR_recvmsg:
		return do_receive((int)a, ((struct msg_hdr *)b)->iov, ((struct msg_hdr *)b)->iovlen, c);
	case __NR_ioctl:
		return do_fill((uint64_t)b, (void *)c);
	case __NR_read:
		check((uint64_t)c == sizeof(struct event));
		return do_event((struct event *)b);
	case __NR_poll:
		return do_poll((struct poll_fd *)a, b);
	case __NR_sendmsg:
		return do_send((struct msg_hdr *)b);
	case __NR_mmap:
		return do_mmap((uint64_t)b);
	case __NR_madvise:
		check(k.pager || in_process((uint64_t)a, (uint64_t)b));
		return 0;
	case __NR_pwrite64:
		check(a == FD_MEM && in_pages((uint64_t)b, (uint64_t)c) && in_process((uint64_t)d, (uint64_t)c) && c > 0);
		return choice() == 1 ? (long)AGENT_PAGE : c;
	}
	return 0;
}

int stub_runs_here(struct scratch_header *h)
{
	return choice() != 1;
}

void stub_ring(const struct scratch_header *h)
{
}

void stub_run_list(struct remote_call *calls, uint32_t n, uint32_t *ret_ran)
{
	*ret_ran = n;
}

/* --- one run --- */

static bool take_part(struct input *in, struct input *ret)
{
	uint16_t n;

	if (in->left < sizeof(n))
		return false;
	memcpy(&n, in->at, sizeof(n));
	in->at += sizeof(n);
	in->left -= sizeof(n);
	if (n > in->left)
		return false;
	*ret = (struct input){ in->at, n };
	in->at += n;
	in->left -= n;
	return true;
}

/*
 * Pager, and an input in which nothing is wrong: it must be taken. Its first byte is followed by the FNV-1a sum of what follows that, so that no other input is held to this by chance, and none
 * that the replay has cut or changed.
 */
#define MODE_RIGHT 2

static bool is_right(const uint8_t *data, size_t len)
{
	uint64_t sum = 0xcbf29ce484222325ull, said;

	if (len < 1 + sizeof(said) || data[0] != MODE_RIGHT)
		return false;
	memcpy(&said, data + 1, sizeof(said));
	for (size_t i = 1 + sizeof(said); i < len; i++)
		sum = (sum ^ data[i]) * 0x100000001b3ull;
	return sum == said;
}

static void run(void)
{
	long ret;
	/* As large as the worker makes it: pager_start relies on room for as many pieces again. */
	struct pager_piece *pieces = calloc(PIECES * 2 + 64, sizeof(*pieces));
	uint8_t *scratch = calloc(1, SCRATCH_SLOTS);

	k.staging = aligned_alloc(AGENT_PAGE, STAGING_PAGES * AGENT_PAGE);
	if (!pieces || !scratch || !k.staging || posix_memalign((void **)&k.pool, POOL_ALIGNMENT, POOL_PAGES * AGENT_PAGE))
		abort();
	memcpy(pieces, original, sizeof(original));
	k.h = (struct scratch_header *)(scratch + SCRATCH_HEADER);
	*k.h = (struct scratch_header){ .worker_fd = -1, .bulk_fd = FD_BULK, .fault_fd = FD_FAULT, .mem_fd = FD_MEM, .uffd = FD_UFFD, .process_pidfd = 13,
					.staging = (uint64_t)k.staging, .pool = (uint64_t)k.pool, .pool_pages = POOL_PAGES, .pool_spare = POOL_SPARE, .pieces = (uint64_t)pieces,
					.npieces = PIECES };
	ret = k.pager ? agent_pager(k.h) : agent_receive(k.h);
	if (k.right && ret < 0)
		abort();
	for (size_t i = 0; i < k.nblocks; i++)
		free(k.blocks[i]);
	free(k.pool);
	free(k.staging);
	free(scratch);
	free(pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };

	memset(&k, 0, sizeof(k));
	if (len < 1)
		return 0;
	k.pager = data[0];
	k.right = is_right(data, len);
	in.at += k.right ? 9 : 1;
	in.left -= k.right ? 9 : 1;
	if (!take_part(&in, &k.choices) || !take_part(&in, &k.fault) || k.choices.left > CHOICES_MAX)
		return 0;
	k.bulk = in;
	run();
	return 0;
}
