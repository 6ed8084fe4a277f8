// SPDX-License-Identifier: LGPL-2.1-or-later
/* membership.c - the interface, and the kind without a store; see membership.h */
#include "cluster/membership.h"

#include <errno.h>

#include "base/util.h"

int membership_keep(struct membership *m, struct err *e)
{
	return m->ops->keep(m, true, e);
}

int membership_renew(struct membership *m, struct err *e)
{
	return m->ops->keep(m, false, e);
}

void membership_say_run(struct membership *m, const char *run)
{
	m->ops->say_run(m, run);
}

int membership_leave(struct membership *m, struct err *e)
{
	return m->ops->leave(m, e);
}

int membership_list(struct membership *m, struct membership_node **ret, size_t *ret_n, struct err *e)
{
	return m->ops->list(m, ret, ret_n, e);
}

int membership_owner(struct membership *m, const char *unit, struct membership_record *ret, struct err *e)
{
	return m->ops->owner(m, unit, ret, e);
}

int membership_records(struct membership *m, int (*each)(const struct membership_record *record, void *arg), void *arg, struct err *e)
{
	return m->ops->records(m, each, arg, e);
}

int membership_own(struct membership *m, struct membership_record *record, struct err *e)
{
	return m->ops->own(m, record, e);
}

int membership_take(struct membership *m, struct membership_record *record, const char *node, uint64_t revision, struct err *e)
{
	return m->ops->take(m, record, node, revision, e);
}

int membership_disown(struct membership *m, const char *unit, uint64_t fence, struct err *e)
{
	return m->ops->disown(m, unit, fence, e);
}

void membership_close(struct membership *m)
{
	if (m)
		m->ops->close(m);
}

/* --- static --- */

struct fixed {
	struct membership base;
	const struct membership_node *nodes;
	size_t n;
};

static int nothing(struct membership *m, struct err *e)
{
	(void)m;
	(void)e;
	return 0;
}

static int fixed_keep(struct membership *m, bool may_enter, struct err *e)
{
	(void)may_enter;
	return nothing(m, e);
}

static void fixed_say_run(struct membership *m, const char *run)
{
	(void)m;
	(void)run;
}

static int fixed_list(struct membership *m, struct membership_node **ret, size_t *ret_n, struct err *e)
{
	const struct fixed *f = (const struct fixed *)m;
	struct membership_node *nodes = calloc(f->n + 1, sizeof(*nodes));

	if (!nodes)
		return err_sys(e, -ENOMEM, "%zu nodes", f->n);
	if (f->n)
		memcpy(nodes, f->nodes, f->n * sizeof(*nodes));
	*ret = nodes;
	*ret_n = f->n;
	return 0;
}

static int fixed_owner(struct membership *m, const char *unit, struct membership_record *ret, struct err *e)
{
	(void)m;
	(void)unit;
	(void)ret;
	(void)e;
	return -ENOENT;
}

static int fixed_records(struct membership *m, int (*each)(const struct membership_record *record, void *arg), void *arg, struct err *e)
{
	(void)m;
	(void)each;
	(void)arg;
	(void)e;
	return 0;
}

static int fixed_own(struct membership *m, struct membership_record *record, struct err *e)
{
	(void)m;
	(void)e;
	record->fence++;
	return 0;
}

/* Nobody can know that a node has failed. */
static int fixed_take(struct membership *m, struct membership_record *record, const char *node, uint64_t revision, struct err *e)
{
	(void)m;
	(void)revision;
	return err_set(e, -EOPNOTSUPP, "unit %s: without a store nobody knows whether %s has failed", record->unit, node);
}

static int fixed_disown(struct membership *m, const char *unit, uint64_t fence, struct err *e)
{
	(void)m;
	(void)unit;
	(void)fence;
	(void)e;
	return 0;
}

static void fixed_close(struct membership *m)
{
	free(m);
}

int membership_open_static(struct membership **ret, const struct membership_node *nodes, size_t n, struct err *e)
{
	static const struct membership_ops ops = {
		.keep = fixed_keep, .say_run = fixed_say_run, .leave = nothing, .list = fixed_list, .owner = fixed_owner, .records = fixed_records, .own = fixed_own, .take = fixed_take, .disown = fixed_disown, .close = fixed_close,
	};
	struct fixed *f = malloc(sizeof(*f));

	if (!f)
		return err_sys(e, -ENOMEM, "membership");
	*f = (struct fixed){ { &ops }, nodes, n };
	*ret = &f->base;
	return 0;
}
