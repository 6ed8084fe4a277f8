// SPDX-License-Identifier: LGPL-2.1-or-later
/* membership_etcd.c - membership in etcd; see membership.h. What is said is in etcd_wire.c, how it gets there in etcd_http.c */
#include <errno.h>

#include "base/util.h"
#include "cluster/etcd_http.h"
#include "cluster/etcd_wire.h"

struct store {
	struct membership base;
	struct etcd_http *http;
	struct membership_node self;
	unsigned lease_s;
	uint64_t lease; /* 0: none */
	char nodes[80], units[80]; /* prefixes */
};

static struct store *store_of(struct membership *m)
{
	return (struct store *)m;
}

static int lease_question(struct store *s, const char *path, json_t *question, bool keepalive, uint64_t *ret, struct err *e)
{
	json_t *answer = NULL;
	int r = etcd_http_ask(s->http, path, question, &answer, e);

	if (r == 0)
		r = etcd_read_lease(answer, keepalive, ret, e);
	json_decref(answer);
	return r;
}

/* A new lease, and this node under it. */
static int enter(struct store *s, struct err *e)
{
	char key[160];
	cleanup_free char *value = etcd_node_value(&s->self);
	json_t *answer = NULL;
	uint64_t lease;
	int r = value ? lease_question(s, "lease/grant", etcd_make_grant(s->lease_s), false, &lease, e) : err_sys(e, -ENOMEM, "etcd");

	if (r < 0)
		return r;
	snprintf(key, sizeof(key), "%s%s", s->nodes, s->self.name);
	r = etcd_http_ask(s->http, "kv/put", etcd_make_put(key, value, lease), &answer, e);
	json_decref(answer);
	if (r == 0)
		s->lease = lease;
	return r;
}

static int store_keep(struct membership *m, bool may_enter, struct err *e)
{
	struct store *s = store_of(m);
	uint64_t lease = 0;
	int r = 0;

	if (s->lease)
		r = lease_question(s, "lease/keepalive", etcd_make_lease(s->lease), true, &lease, e);
	if (r < 0)
		return r;
	s->lease = lease;
	if (!lease && !may_enter)
		return -ENOKEY;
	return lease ? 0 : enter(s, e); /* at the beginning, and when it has expired because etcd was away for long */
}

static void store_say_run(struct membership *m, const char *run)
{
	struct store *s = store_of(m);

	snprintf(s->self.run, sizeof(s->self.run), "%s", run);
}

static int store_leave(struct membership *m, struct err *e)
{
	struct store *s = store_of(m);
	json_t *answer = NULL;
	int r = s->lease ? etcd_http_ask(s->http, "lease/revoke", etcd_make_lease(s->lease), &answer, e) : 0;

	json_decref(answer);
	s->lease = 0;
	return r;
}

static int store_list(struct membership *m, struct membership_node **ret, size_t *ret_n, struct err *e)
{
	struct store *s = store_of(m);
	json_t *answer = NULL;
	int r = etcd_http_ask(s->http, "kv/range", etcd_make_range(s->nodes, true), &answer, e);

	if (r == 0)
		r = etcd_read_nodes(answer, s->nodes, ret, ret_n, e);
	json_decref(answer);
	return r;
}

static int read_records(struct store *s, const char *unit, struct membership_record **ret, size_t *ret_n, struct err *e)
{
	char key[80 + MEMBERSHIP_UNIT_MAX];
	json_t *answer = NULL;
	int r;

	snprintf(key, sizeof(key), "%s%s", s->units, unit);
	r = etcd_http_ask(s->http, "kv/range", etcd_make_range(key, !*unit), &answer, e);
	if (r == 0)
		r = etcd_read_records(answer, s->units, ret, ret_n, e);
	json_decref(answer);
	return r;
}

static int store_owner(struct membership *m, const char *unit, struct membership_record *ret, struct err *e)
{
	cleanup_free struct membership_record *records = NULL;
	size_t n = 0;
	int r = read_records(store_of(m), unit, &records, &n, e);

	if (r < 0)
		return r;
	if (!n)
		return -ENOENT;
	*ret = records[0];
	return 0;
}

static int store_records(struct membership *m, int (*each)(const struct membership_record *record, void *arg), void *arg, struct err *e)
{
	cleanup_free struct membership_record *records = NULL;
	size_t n = 0;
	int r = read_records(store_of(m), "", &records, &n, e);

	for (size_t i = 0; r == 0 && i < n; i++)
		if (each(&records[i], arg))
			break;
	return r;
}

/* Of a node that must be as it was. */
struct condition {
	const char *node; /* NULL: none */
	uint64_t revision;
};

/* value NULL: it is removed. */
static int swap_if(struct store *s, const struct membership_record *record, const char *value, struct condition c, uint64_t *ret_fence, struct err *e)
{
	const char *unit = record->unit;
	uint64_t fence = record->fence;
	char node[160];
	char key[80 + MEMBERSHIP_UNIT_MAX];
	json_t *answer = NULL;
	uint64_t revision = 0;
	bool done = false;
	int r;

	snprintf(key, sizeof(key), "%s%s", s->units, unit);
	snprintf(node, sizeof(node), "%s%s", s->nodes, c.node ? c.node : "");
	r = etcd_http_ask(s->http, "kv/txn", etcd_make_swap_if(key, fence, value, c.node ? node : NULL, c.revision), &answer, e);
	if (r == 0)
		r = etcd_read_swap(answer, &done, &revision, e);
	json_decref(answer);
	if (r < 0)
		return r;
	if (!done)
		return err_set(e, -ESTALE, "unit %s: its record has not the number %llu any more%s%s: somebody else has changed it", unit, (unsigned long long)fence, c.node ? ", or there is news of " : "",
			       c.node ? c.node : "");
	*ret_fence = revision;
	return 0;
}

static int swap(struct store *s, const char *unit, uint64_t fence, const char *value, uint64_t *ret_fence, struct err *e)
{
	struct membership_record record = { .fence = fence };

	snprintf(record.unit, sizeof(record.unit), "%s", unit);
	return swap_if(s, &record, value, (struct condition){ NULL, 0 }, ret_fence, e);
}

static int store_own(struct membership *m, struct membership_record *record, struct err *e)
{
	cleanup_free char *value = etcd_record_value(record);

	return value ? swap(store_of(m), record->unit, record->fence, value, &record->fence, e) : err_sys(e, -ENOMEM, "etcd");
}

static int store_take(struct membership *m, struct membership_record *record, const char *node, uint64_t revision, struct err *e)
{
	cleanup_free char *value = etcd_record_value(record);

	return value ? swap_if(store_of(m), record, value, (struct condition){ node, revision }, &record->fence, e) : err_sys(e, -ENOMEM, "etcd");
}

static int store_disown(struct membership *m, const char *unit, uint64_t fence, struct err *e)
{
	uint64_t revision;

	return swap(store_of(m), unit, fence, NULL, &revision, e);
}

static void store_close(struct membership *m)
{
	etcd_http_close(store_of(m)->http);
	free(m);
}

int membership_open_etcd(struct membership **ret, const struct membership_etcd *etcd, const struct membership_node *self, struct err *e)
{
	static const struct membership_ops ops = {
		.keep = store_keep, .say_run = store_say_run, .leave = store_leave, .list = store_list, .owner = store_owner, .records = store_records, .own = store_own, .take = store_take, .disown = store_disown, .close = store_close,
	};
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_sys(e, -ENOMEM, "etcd");
	s->base.ops = &ops;
	s->self = *self;
	s->lease_s = etcd->lease_s;
	snprintf(s->nodes, sizeof(s->nodes), "%snodes/", etcd->prefix);
	snprintf(s->units, sizeof(s->units), "%sunits/", etcd->prefix);
	r = etcd_http_open(&s->http, etcd, e);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = &s->base;
	return 0;
}
