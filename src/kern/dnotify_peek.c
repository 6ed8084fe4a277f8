/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dnotify_peek.c - loads and reads the iterator over directory notifications; see dnotify_peek.h */
#include "kern/dnotify_peek.h"

#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/dnotify_peek.skel.h"
#include "kern/dnotify_record.h"

static struct dnotify_peek_bpf *loaded;

/* The kernel's event bits and what they were asked for with. */
static uint32_t arg_of(uint32_t mask)
{
	static const struct {
		uint32_t event, arg;
	} bits[] = {
		{ 0x1, DN_ACCESS }, { 0x2, DN_MODIFY }, { 0x4, DN_ATTRIB }, { 0x100, DN_CREATE }, { 0x200, DN_DELETE }, { 0x10000000, DN_RENAME },
		{ 0x20000000, DN_MULTISHOT },
	};
	uint32_t arg = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (mask & bits[i].event)
			arg |= bits[i].arg;
	return arg;
}

int dnotify_peek(struct dnotify_seen **ret, size_t *ret_n, struct err *e)
{
	cleanup_free struct dnotify_record *v = NULL;
	struct dnotify_seen *seen;
	size_t len = 0;
	int r = 0;

	if (!loaded) {
		loaded = BPF_ITER_LOAD(dnotify_peek_bpf__open_and_load);
		if (!loaded)
			return err_sys(e, -errno, "loading the BPF iterator that reads directory notifications");
	}
	r = bpf_iter_read_own(bpf_program__fd(loaded->progs.read_dnotify), (void **)&v, &len, e);
	if (r < 0)
		return r;
	seen = malloc(len / sizeof(*v) * sizeof(*seen) + 1);
	if (!seen)
		return err_set(e, -ENOMEM, "no memory for a list of notifications");
	for (size_t i = 0; i < len / sizeof(*v); i++)
		seen[i] = (struct dnotify_seen){ (int)v[i].fd, arg_of(v[i].mask) };
	*ret = seen;
	*ret_n = len / sizeof(*v);
	return 0;
}
