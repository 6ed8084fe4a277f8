// SPDX-License-Identifier: LGPL-2.1-or-later
/* protection.c - see protection.h */
#include "migrate/protection.h"

#include <errno.h>
#include <sys/random.h>

#include "base/util.h"

static const char *(*admits)(void);

void protection_use(const char *(*why_not)(void))
{
	admits = why_not;
}

const char *protection_why_not(void)
{
	return admits ? admits() : NULL;
}

int protection_new_id(struct protection *p, struct err *e)
{
	uint64_t number;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return err_sys(e, -errno, "random numbers");
	snprintf(p->id, sizeof(p->id), "%016llx", (unsigned long long)number);
	return 0;
}

bool protection_id_valid(const char *id)
{
	return strspn(id, "0123456789abcdef") == PROTECTION_ID_DIGITS && !id[PROTECTION_ID_DIGITS];
}

int protection_check(const struct protection *p, struct err *e)
{
	if (p->every_ms < PROTECTION_EVERY_MIN_MS || p->every_ms > PROTECTION_EVERY_MAX_MS)
		return err_set(e, -EINVAL, "a copy every %u ms: use %u ms to a day", p->every_ms, PROTECTION_EVERY_MIN_MS);
	if (!protection_id_valid(p->id))
		return err_set(e, -EINVAL, "a protection without an id");
	if (!p->copies || p->copies > PROTECTION_COPIES_MAX)
		return err_set(e, -EINVAL, "%u copies: use 1 to %u", p->copies, PROTECTION_COPIES_MAX);
	if (p->n_to && (p->n_to < p->copies || p->n_to > PROTECTION_COPIES_MAX))
		return err_set(e, -EINVAL, "%u copies on %zu nodes: name at least as many nodes as there are to be copies, and at most %u", p->copies, p->n_to, PROTECTION_COPIES_MAX);
	if (p->files != FSFILE_POLICY_AUTO && p->files != FSFILE_POLICY_COPY)
		return err_set(e, -EINVAL, "files of a copy are treated by auto or copy");
	if (p->tcp != TCP_OUTSIDE_KEEP && p->tcp != TCP_OUTSIDE_CLOSE)
		return err_set(e, -EINVAL, "connections of a copy with others are treated by keep or close");
	for (size_t i = 0; i < p->n_to; i++) {
		if (!hello_name_valid(p->to[i]))
			return err_set(e, -EINVAL, "a node's name has 1 to %u letters, digits, '.', '_', '-'", HELLO_NAME_MAX);
		for (size_t k = 0; k < i; k++)
			if (!strcmp(p->to[i], p->to[k]))
				return err_set(e, -EINVAL, "node %s is named twice", p->to[i]);
	}
	return 0;
}

json_t *protection_json(const struct protection *p)
{
	json_t *to = json_array();

	if (!p->every_ms) {
		json_decref(to);
		return NULL;
	}
	for (size_t i = 0; i < p->n_to; i++)
		json_array_append_new(to, json_string(p->to[i]));
	return json_pack("{s:s, s:i, s:i, s:i, s:i, s:o}", "id", p->id, "every_ms", (int)p->every_ms, "copies", (int)p->copies, "files", (int)p->files, "tcp", (int)p->tcp, "to", to);
}

void protection_from_json(const json_t *o, struct protection *ret)
{
	int every_ms = 0, copies = 0, files = 0, tcp = 0;
	struct protection p = { 0 };
	const json_t *to, *name;
	const char *id;
	size_t i;

	*ret = (struct protection){ 0 };
	if (!o || json_unpack((json_t *)(uintptr_t)o, "{s:s, s:i, s:i, s:i, s:i, s:o}", "id", &id, "every_ms", &every_ms, "copies", &copies, "files", &files, "tcp", &tcp, "to", &to))
		return;
	snprintf(p.id, sizeof(p.id), "%s", id);
	p.every_ms = (unsigned)MAX(every_ms, 0);
	p.copies = (unsigned)MAX(copies, 0);
	p.files = (enum fsfile_policy)files;
	p.tcp = (enum tcp_outside_policy)tcp;
	json_array_foreach(to, i, name)
		if (json_is_string(name) && p.n_to < PROTECTION_COPIES_MAX)
			snprintf(p.to[p.n_to++], sizeof(p.to[0]), "%s", json_string_value(name));
	if (protection_check(&p, NULL) == 0)
		*ret = p;
}

void protection_to_message(const struct protection *p, Gw__Protection *ret, char *to[PROTECTION_COPIES_MAX])
{
	gw__protection__init(ret);
	ret->id = (char *)(uintptr_t)p->id;
	ret->every_ms = p->every_ms;
	ret->copies = p->copies;
	ret->files = p->files;
	ret->tcp = p->tcp;
	ret->n_to = p->n_to;
	ret->to = to;
	for (size_t i = 0; i < p->n_to; i++)
		to[i] = (char *)(uintptr_t)p->to[i];
}

int protection_from_message(const Gw__Protection *m, struct protection *ret, struct err *e)
{
	struct protection p = { 0 };

	*ret = p;
	if (!m)
		return 0;
	if (m->n_to > PROTECTION_COPIES_MAX || m->files >= FSFILE_POLICIES || m->tcp > TCP_OUTSIDE_CLOSE)
		return err_set(e, -EINVAL, "a protection that is none");
	p = (struct protection){ .every_ms = m->every_ms, .copies = m->copies, .files = (enum fsfile_policy)m->files, .tcp = (enum tcp_outside_policy)m->tcp, .n_to = m->n_to };
	snprintf(p.id, sizeof(p.id), "%s", m->id);
	for (size_t i = 0; i < m->n_to; i++) {
		if (!hello_name_valid(m->to[i]))
			return err_set(e, -EINVAL, "a protection that names no node");
		strcpy(p.to[i], m->to[i]); /* which is short enough */
	}
	if (protection_check(&p, e) < 0)
		return e ? e->code : -EINVAL;
	*ret = p;
	return 0;
}
