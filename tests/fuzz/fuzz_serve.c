// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_serve.c - what the destination tells the source's agent: requests for pages, and the answer about the outcome
 *
 * serve.c, send.c, io.c and doubt.c of the agent against a kernel made up here (AGENT_HOSTED, as in fuzz_pages.c). Whatever is asked for and however little the
 * sockets take, every page is sent at most once and with its content, and after END none is missing.
 *
 * Input: mode (0 serve, else doubt), bits (1: push, 2: small frames, 4: there are pipes, 8: pages to be sent first), length (u16) and bytes of choices, what the peer says.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

#define FD_BULK 10
#define FD_FAULT 11
#define FD_GO 12
#define FD_PAGEMAP 13
#define FD_ASK 14
#define FD_PIPE 15 /* and 16 */
#define RANGES 2u
#define RANGE_PAGES 24u
#define OUT_MAX (RANGES * RANGE_PAGES * (AGENT_PAGE + 64) + 65536)
#define CHOICES_MAX 2048
#define PRESENT 8u
#define PFNZERO 32u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
	const uint8_t *at;
	size_t left;
};

struct output {
	uint8_t bytes[OUT_MAX];
	size_t n;
};

static struct {
	struct scratch_header *h;
	struct input choices, peer;
	uint8_t *memory[RANGES];
	bool killed, pipes;
	uint8_t pipe[STREAM_PAGES_MAX * AGENT_PAGE];
	size_t piped, pipe_taken;
} k;
static struct output bulk, fault;

static void check(bool good)
{
	if (!good)
		abort();
}

static int choice(void)
{
	if (!k.choices.left)
		return -1;
	k.choices.left--;
	return *k.choices.at++;
}

/* --- which pages there are: by their number --- */

static unsigned category(unsigned page)
{
	return page % 5 == 3 ? 0 : page % 7 == 2 ? PRESENT | PFNZERO : PRESENT;
}

static int page_number(uint64_t address, unsigned *ret_range)
{
	for (unsigned r = 0; r < RANGES; r++)
		if (address - (uint64_t)k.memory[r] < RANGE_PAGES * AGENT_PAGE) {
			*ret_range = r;
			return (int)((address - (uint64_t)k.memory[r]) / AGENT_PAGE);
		}
	return -1;
}

struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, anyof, returned;
};

static long do_scan(struct scan_argument *a)
{
	struct pm_region *v = (struct pm_region *)a->vec;
	uint64_t n = 0, pages = 0, at;
	unsigned range;

	check(page_number(a->start, &range) >= 0 && a->end <= (uint64_t)k.memory[range] + RANGE_PAGES * AGENT_PAGE && a->end >= a->start);
	for (at = a->start; at < a->end && pages < a->max_pages; at += AGENT_PAGE) {
		unsigned c = category((unsigned)page_number(at, &range));

		if (!c)
			continue;
		if (n && v[n - 1].end == at && v[n - 1].categories == c) {
			v[n - 1].end += AGENT_PAGE;
		} else {
			if (n == a->vec_len)
				break;
			v[n++] = (struct pm_region){ at, at + AGENT_PAGE, c };
		}
		pages++;
	}
	a->walk_end = at;
	return (long)n;
}

/* --- sockets --- */

static long do_receive(int fd, uint8_t *to, uint64_t len, int flags)
{
	size_t n = k.peer.left < len ? k.peer.left : len;
	int c = choice();

	if (fd == FD_FAULT)
		check(len <= sizeof(struct fault_request));
	if (c == 0)
		return flags & MSG_DONTWAIT_FLAG ? E_AGAIN : E_INTR;
	if (c == 1 && fd != FD_FAULT)
		return -104;
	if (c > 1 && c < 64 && n > (size_t)c)
		n = (size_t)c;
	memcpy(to, k.peer.at, n);
	if (flags & MSG_PEEK_FLAG)
		return (long)n;
	k.peer.at += n;
	k.peer.left -= n;
	return (long)n;
}

static long do_send(int fd, const struct msg_hdr *m, int flags)
{
	struct output *out = fd == FD_BULK ? &bulk : &fault;
	int c = choice();
	size_t limit = c > 1 ? (size_t)c * 97 : SIZE_MAX, sent = 0;

	check(m->iovlen > 0);
	if (fd == FD_ASK) {
		for (uint64_t i = 0; i < m->iovlen; i++)
			sent += m->iov[i].len;
		return (long)sent;
	}
	check(fd == FD_BULK || fd == FD_FAULT);
	if (c == 0)
		return flags & MSG_DONTWAIT_FLAG ? E_AGAIN : E_INTR;
	for (uint64_t i = 0; i < m->iovlen && sent < limit; i++) {
		size_t n = m->iov[i].len < limit - sent ? m->iov[i].len : limit - sent;

		check(out->n + n <= OUT_MAX);
		memcpy(out->bytes + out->n, (void *)m->iov[i].base, n);
		out->n += n;
		sent += n;
	}
	return (long)sent;
}

/* --- the pipe --- */

static long do_pipe(int *fds)
{
	if (!k.pipes || choice() == 0)
		return -24;
	fds[0] = FD_PIPE;
	fds[1] = FD_PIPE + 1;
	return 0;
}

static long do_vmsplice(int fd, const struct io_vec *iov, uint64_t n)
{
	int c = choice();
	size_t limit = c > 1 ? (size_t)c * 1021 : sizeof(k.pipe);

	check(fd == FD_PIPE + 1 && k.piped == k.pipe_taken && n > 0);
	if (c == 0)
		return -22;
	k.piped = k.pipe_taken = 0;
	for (uint64_t i = 0; i < n; i++) {
		size_t len = iov[i].len < limit - k.piped ? iov[i].len : limit - k.piped;

		len = len < sizeof(k.pipe) - k.piped ? len : sizeof(k.pipe) - k.piped;
		memcpy(k.pipe + k.piped, (void *)iov[i].base, len);
		k.piped += len;
	}
	return (long)k.piped;
}

static long do_splice(int from, int to, uint64_t len)
{
	struct io_vec iov = { (uint64_t)(k.pipe + k.pipe_taken), len };
	struct msg_hdr m = { .iov = &iov, .iovlen = 1 };
	long n;

	check(from == FD_PIPE && to == FD_BULK && len > 0 && len == k.piped - k.pipe_taken);
	if (choice() == 1)
		return -22;
	n = do_send(to, &m, MSG_DONTWAIT_FLAG);
	if (n > 0)
		k.pipe_taken += (size_t)n;
	return n;
}

long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	switch (nr) {
	case __NR_recvfrom:
		return do_receive((int)a, (uint8_t *)b, (uint64_t)c, (int)d);
	case __NR_sendmsg:
		return do_send((int)a, (struct msg_hdr *)b, (int)c);
	case __NR_ioctl:
		return do_scan((struct scan_argument *)c);
	case __NR_pipe2:
		return do_pipe((int *)a);
	case __NR_vmsplice:
		return do_vmsplice((int)a, (struct io_vec *)b, (uint64_t)c);
	case __NR_splice:
		return do_splice((int)a, (int)c, (uint64_t)e);
	case __NR_getsockopt:
		*(uint8_t *)d = choice() == 1 ? 7 : TCP_STATE_CLOSE_WAIT;
		return 0;
	case __NR_close:
		check(a == FD_PIPE || a == FD_PIPE + 1);
		break;
	case __NR_connect:
		return choice() == 1 ? -111 : 0;
	case __NR_kill: /* the process ends when nothing more is said: or the question would be asked for ever */
		return k.choices.left ? 0 : E_SRCH;
	}
	return 0;
}

void stub_kill_begin(struct scratch_header *h)
{
}

void stub_kill_finish(struct scratch_header *h)
{
	h->tgid = 0;
	k.killed = true;
}

/* --- what came out --- */

static bool seen[RANGES][RANGE_PAGES];

/* Parses what was sent; true when it ends with END. A frame may be cut short where the agent has ended. */
static bool parse(const struct output *out)
{
	struct stream_frame frame;
	size_t at = 0;

	while (out->n - at >= sizeof(frame.frame)) {
		memcpy(&frame.frame, out->bytes + at, sizeof(frame.frame));
		check(frame.frame.magic == STREAM_MAGIC && frame.frame.nruns <= STREAM_RUNS_MAX && frame.frame.npages <= STREAM_PAGES_MAX);
		at += sizeof(frame.frame);
		if (frame.frame.kind == STREAM_END)
			return true;
		if (out->n - at < frame.frame.nruns * sizeof(frame.runs[0]))
			return false;
		memcpy(frame.runs, out->bytes + at, frame.frame.nruns * sizeof(frame.runs[0]));
		at += frame.frame.nruns * sizeof(frame.runs[0]);
		for (uint32_t i = 0; i < frame.frame.nruns; i++)
			for (uint32_t p = 0; p < frame.runs[i].npages; p++) {
				unsigned range = 0;
				int page = page_number(frame.runs[i].address + p * AGENT_PAGE, &range);

				check(page >= 0 && !seen[range][page]);
				seen[range][page] = true;
				if (frame.runs[i].flags & RUN_ZERO)
					continue;
				if (out->n - at < AGENT_PAGE)
					return false;
				check(!memcmp(out->bytes + at, k.memory[range] + (size_t)page * AGENT_PAGE, AGENT_PAGE));
				at += AGENT_PAGE;
			}
	}
	return false;
}

static void check_output(void)
{
	bool ended;

	memset(seen, 0, sizeof(seen));
	parse(&fault);
	ended = parse(&bulk);
	for (unsigned r = 0; ended && r < RANGES; r++)
		for (unsigned p = 0; p < RANGE_PAGES; p++)
			check(seen[r][p] || !category(p));
}

/* Requests name pages by number, since addresses differ from run to run: a page below 256 becomes its address. */
static void translate(uint8_t *peer, size_t len)
{
	for (size_t i = 0; i + sizeof(struct fault_request) <= len; i += sizeof(struct fault_request)) {
		uint64_t address;

		memcpy(&address, peer + i, sizeof(address));
		if (address < 256)
			address = (uint64_t)k.memory[address / 128] + address % 128 * AGENT_PAGE;
		memcpy(peer + i, &address, sizeof(address));
	}
}

static void run(int mode, int push, uint8_t *peer)
{
	uint8_t *scratch = calloc(1, SCRATCH_SLOTS), ask[24] = { 0 };
	struct page_range ranges[RANGES];
	struct page_run first[3];
	uint64_t *bitmap = calloc(1, 8);

	check(scratch && bitmap && RANGES * RANGE_PAGES <= 64);
	for (unsigned r = 0; r < RANGES; r++) {
		k.memory[r] = aligned_alloc(AGENT_PAGE, RANGE_PAGES * AGENT_PAGE);
		check(k.memory[r]);
		for (unsigned p = 0; p < RANGE_PAGES; p++)
			memset(k.memory[r] + p * AGENT_PAGE, p % 6 == 5 || category(p) != PRESENT ? 0 : (int)(r * 100 + p + 1), AGENT_PAGE);
	}
	if (k.memory[0] > k.memory[1]) {
		uint8_t *low = k.memory[1];

		k.memory[1] = k.memory[0];
		k.memory[0] = low;
	}
	for (unsigned r = 0; r < RANGES; r++)
		ranges[r] = (struct page_range){ .start = (uint64_t)k.memory[r], .end = (uint64_t)k.memory[r] + RANGE_PAGES * AGENT_PAGE, .first_bit = r * RANGE_PAGES };
	/* The second has pages that do not exist and goes too far; the third is nobody's. */
	first[0] = (struct page_run){ ranges[0].start + 4 * AGENT_PAGE, 1, 0 };
	first[1] = (struct page_run){ ranges[1].start + 1 * AGENT_PAGE, RANGE_PAGES, 0 };
	first[2] = (struct page_run){ AGENT_PAGE, 2, 0 };
	k.pipes = push & 4;
	k.h = (struct scratch_header *)(scratch + SCRATCH_HEADER);
	*k.h = (struct scratch_header){ .worker_fd = -1, .bulk_fd = FD_BULK, .fault_fd = FD_FAULT, .go_fd = FD_GO, .pagemap_fd = FD_PAGEMAP, .process_pidfd = -1, .tgid = 2,
					.ranges = (uint64_t)ranges, .nranges = RANGES, .bitmap = (uint64_t)bitmap, .push = (uint32_t)push & 1,
					.chunk_pages = push & 2 ? 4 : STREAM_PAGES_MAX, .ask = (uint64_t)ask, .ask_len = sizeof(ask), .ask_fd = FD_ASK,
					.first = (uint64_t)first, .nfirst = push & 8 ? 3 : 0 };
	if (!mode)
		translate(peer, k.peer.left);
	if (mode) {
		int outcome;

		unit_page(k.h)->state = STATE_IN_DOUBT;
		outcome = doubt_resolve(k.h);
		check(outcome == HANDOVER_HEARD_COMMITTED || outcome == HANDOVER_HEARD_ABORTED || outcome == DOUBT_MOOT);
	} else {
		agent_serve(k.h);
		check(k.killed);
		check_output();
	}
	for (unsigned r = 0; r < RANGES; r++)
		free(k.memory[r]);
	free(bitmap);
	free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint16_t nchoices;
	uint8_t *peer;

	if (len < 4 || len > 16384)
		return 0;
	memset(&k, 0, sizeof(k));
	bulk.n = fault.n = 0;
	memcpy(&nchoices, data + 2, sizeof(nchoices));
	if (nchoices > len - 4 || nchoices > CHOICES_MAX)
		return 0;
	k.choices = (struct input){ data + 4, nchoices };
	peer = malloc(len - 4 - nchoices + 1);
	check(peer);
	memcpy(peer, data + 4 + nchoices, len - 4 - nchoices);
	k.peer = (struct input){ peer, len - 4 - nchoices };
	run(data[0], data[1], peer);
	free(peer);
	return 0;
}
