/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* redirect_fds.c - which descriptors a move needs: for who goes on with it in a process of its own; see redirect.h */
#include "net/redirect_internal.h"

size_t redirect_descriptors(const struct redirect *r, const struct redirect_move *m, int *ret, size_t max)
{
	const int fds[] = { r->lock_fd, r->ends_fd, r->moves_fd, r->nodes_fd, r->ports_fd, r->config_fd, r->fragments_fd, r->sources_fd, r->calls_fd, m ? m->tun_fd : -1 };
	size_t n = 0;

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]) && n < max; i++)
		if (fds[i] >= 0)
			ret[n++] = fds[i];
	return n;
}
