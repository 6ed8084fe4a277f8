/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_peek.c - loads and reads the iterator over TCP sockets; see tcp_peek.h */
#include "kern/tcp_peek.h"

#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/tcp_peek.skel.h"

static struct tcp_peek_bpf *loaded;

int tcp_peek(struct tcp_record **ret, size_t *ret_n, struct err *e)
{
	void *records = NULL;
	size_t len = 0;
	int r;

	if (!loaded) {
		loaded = BPF_ITER_LOAD(tcp_peek_bpf__open_and_load);
		if (!loaded)
			return err_sys(e, -errno, "loading the BPF iterator that reads TCP sockets");
	}
	r = bpf_iter_read_own(bpf_program__fd(loaded->progs.read_tcp), &records, &len, e);
	if (r < 0)
		return r;
	*ret = records;
	*ret_n = len / sizeof(**ret);
	return 0;
}
