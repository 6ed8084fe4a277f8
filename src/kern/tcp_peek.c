/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_peek.c - loads and runs the programs that read TCP sockets; see tcp_peek.h */
#include "kern/tcp_peek.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/tcp_mask.h"
#include "kern/tcp_peek.skel.h"

static struct tcp_peek_bpf *loaded;
static uint64_t mask[TCP_MASK_WORDS], kin_mask[TCP_MASK_WORDS];
static bool has_mask;
static struct tcp_told *told;

void tcp_peek_prepare(void)
{
	has_mask = has_mask || tcp_mask_fill(mask, kin_mask, NULL) == 0;
}

static struct tcp_peek_bpf *load_iterator(void)
{
	struct tcp_peek_bpf *bpf = tcp_peek_bpf__open();

	if (!bpf)
		return NULL;
	bpf_program__set_autoload(bpf->progs.read_asked, false);
	if (tcp_peek_bpf__load(bpf) == 0)
		return bpf;
	tcp_peek_bpf__destroy(bpf);
	return NULL;
}

static int load(struct err *e)
{
	void *p;

	if (loaded)
		return 0;
	loaded = BPF_ITER_LOAD(tcp_peek_bpf__open_and_load);
	if (!loaded) {
		has_mask = false;
		loaded = BPF_ITER_LOAD(load_iterator);
	}
	if (!loaded)
		return err_sys(e, -errno, "loading the BPF iterator that reads TCP sockets");
	if (!has_mask)
		return 0;
	memcpy(loaded->bss->mask, mask, sizeof(mask));
	memcpy(loaded->bss->kin_mask, kin_mask, sizeof(kin_mask));
	p = mmap(NULL, TCP_ASKED_MAX * sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(loaded->maps.told), 0);
	told = p == MAP_FAILED ? NULL : p;
	return 0;
}

struct tcp_told *tcp_peek_told(void)
{
	return load(NULL) == 0 ? told : NULL;
}

int tcp_peek_ask(uint32_t process, size_t n)
{
	struct tcp_ask ask = { process, (unsigned int)MIN(n, TCP_ASKED_MAX) };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ask, .ctx_size_in = sizeof(ask));

	for (size_t i = 0; i < ask.n; i++)
		told[i].is_told = 0;
	return bpf_prog_test_run_opts(bpf_program__fd(loaded->progs.read_asked), &opts) < 0 ? -errno : 0;
}

/* All that a program tells of our descriptors from `start` on, a window at a time. */
static int read_windows(const struct bpf_program *program, unsigned start, void **ret, size_t *ret_len, struct err *e)
{
	char *all = NULL;
	size_t len = 0;
	int r;

	do {
		cleanup_free void *part = NULL;
		size_t n = 0;
		char *grown;

		loaded->bss->window_start = start;
		loaded->bss->more = 0;
		r = bpf_iter_read_own(bpf_program__fd(program), &part, &n, e);
		grown = r < 0 ? NULL : realloc(all, len + n + 1);
		if (!grown) {
			free(all);
			return r < 0 ? r : err_sys(e, -ENOMEM, "TCP sockets");
		}
		all = grown;
		memcpy(all + len, part, n);
		len += n;
		start += TCP_WINDOW_BYTES;
	} while (loaded->bss->more);
	*ret = all;
	*ret_len = len;
	return 0;
}

static int read_records(int (*read_it)(int program, void **ret, size_t *ret_len, struct err *e), const struct bpf_program *program, struct tcp_record **ret, size_t *ret_n,
	struct err *e)
{
	void *records = NULL;
	size_t len = 0;
	int r = read_it(bpf_program__fd(program), &records, &len, e);

	if (r < 0)
		return r;
	*ret = records;
	*ret_n = len / sizeof(**ret);
	return 0;
}

/* Copies those that belong to a listener: who calls it, or what waits behind what its window had room for. */
static size_t add_to_queue(struct tcp_record *to, const struct tcp_record *listener, const struct tcp_record *more, size_t n_more)
{
	size_t n = 0;

	for (size_t k = 0; k < n_more; k++)
		if (more[k].flags & TCP_RECORD_CALLING ? more[k].listener == listener->listener : more[k].fd == listener->fd) {
			to[n] = more[k];
			to[n++].fd = listener->fd;
		}
	return n;
}

/* Puts them behind what waits for their listeners already. A listener may have several numbers. */
static int merge(struct tcp_record **records, size_t *n, const struct tcp_record *more, size_t n_more, struct err *e)
{
	const struct tcp_record *from = *records, *listener = NULL;
	size_t n_listeners = 0, to = 0;
	struct tcp_record *all;

	for (size_t i = 0; i < *n; i++)
		n_listeners += from[i].listener != 0;
	all = n_more ? malloc((*n + n_listeners * n_more) * sizeof(*all)) : NULL;
	if (!all)
		return n_more ? err_sys(e, -ENOMEM, "TCP sockets") : 0;
	for (size_t i = 0; i < *n; i++) {
		if (!(from[i].flags & TCP_RECORD_WAITING) && listener) {
			to += add_to_queue(all + to, listener, more, n_more);
			listener = NULL;
		}
		if (from[i].listener)
			listener = &from[i];
		all[to++] = from[i];
	}
	if (listener)
		to += add_to_queue(all + to, listener, more, n_more);
	free(*records);
	*records = all;
	*n = to;
	return 0;
}

/* What is left of long queues. */
static int read_rest(struct tcp_record **records, size_t *n, struct err *e)
{
	cleanup_free void *rest = NULL;
	size_t len = 0;
	int r = read_windows(loaded->progs.read_tcp, TCP_WINDOW_BYTES, &rest, &len, e);

	return r < 0 ? r : merge(records, n, rest, len / sizeof(**records), e);
}

int tcp_peek(struct tcp_record **ret, size_t *ret_n, struct err *e)
{
	struct tcp_record *records = NULL;
	size_t n = 0;
	int r = load(e);

	if (r < 0)
		return r;
	loaded->bss->window_start = loaded->bss->more = 0;
	r = read_records(bpf_iter_read_own, loaded->progs.read_tcp, &records, &n, e);
	if (r == 0 && loaded->bss->more)
		r = read_rest(&records, &n, e);
	if (r < 0) {
		free(records);
		return r;
	}
	*ret = records;
	*ret_n = n;
	return 0;
}

/* Of this network namespace. */
static int read_host(int program, void **ret, size_t *ret_len, struct err *e)
{
	cleanup_close int link_fd = bpf_link_create(program, 0, BPF_TRACE_ITER, NULL);
	cleanup_close int fd = link_fd < 0 ? link_fd : bpf_iter_create(link_fd);
	size_t room = 0;
	ssize_t n;

	if (fd < 0)
		return err_sys(e, fd, "a BPF iterator over connections");
	*ret = NULL;
	n = bpf_iter_read_all(fd, ret, &room, e);
	if (n < 0) {
		free(*ret);
		return (int)n;
	}
	*ret_len = (size_t)n;
	return 0;
}

int tcp_peek_calls(struct tcp_record **ret, size_t *ret_n, struct err *e)
{
	cleanup_free struct tcp_record *records = NULL, *calls = NULL;
	size_t n = 0, n_calls = 0;
	bool any = false;
	int r = tcp_peek(&records, &n, e);

	for (size_t i = 0; r == 0 && i < n; i++)
		any = any || records[i].half_open;
	if (r == 0 && any)
		r = read_records(read_host, loaded->progs.read_calling, &calls, &n_calls, e);
	if (r == 0)
		r = merge(&records, &n, calls, n_calls, e);
	if (r < 0)
		return r;
	*ret = take_ptr(records);
	*ret_n = n;
	return 0;
}

int tcp_peek_data(void **ret, size_t *ret_len, struct err *e)
{
	int r = load(e);

	return r < 0 ? r : read_windows(loaded->progs.read_waiting, 0, ret, ret_len, e);
}

const struct tcp_data_record *tcp_data_next(const void *records, size_t len, size_t *at, const uint8_t **ret_data)
{
	const struct tcp_data_record *r = (const void *)((const char *)records + *at);

	if (len - *at < sizeof(*r) || len - *at - sizeof(*r) < r->len)
		return NULL;
	*ret_data = (const uint8_t *)(r + 1);
	*at += sizeof(*r) + (r->len + 7) / 8 * 8;
	*at = MIN(*at, len);
	return r;
}
