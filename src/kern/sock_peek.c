/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sock_peek.c - loads and reads the iterator over an Internet socket; see sock_peek.h */
#include "kern/sock_peek.h"

#include <errno.h>

#include "kern/bpf_iter.h"
#include "kern/sock_peek.skel.h"

static struct sock_peek_bpf *loaded;

int sock_peek(int fd, struct sock_record **ret, size_t *ret_n, struct err *e)
{
	void *records;
	size_t len;
	int code;

	if (!loaded) {
		loaded = BPF_ITER_LOAD(sock_peek_bpf__open_and_load);
		if (!loaded)
			return err_sys(e, -errno, "loading the BPF iterator that reads sockets");
	}
	loaded->data->wanted_fd = fd;
	code = bpf_iter_read_own(bpf_program__fd(loaded->progs.read_socket), &records, &len, e);
	if (code < 0)
		return code;
	*ret = records;
	*ret_n = len / sizeof(**ret);
	return 0;
}
