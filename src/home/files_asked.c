/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_asked.c - see files_asked.h */
#include "home/files_asked.h"

#include <linux/fuse.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kern/files_locks.h"

#define ENTRIES_MAX 128u

/* One open file. */
struct files_asked_entry {
	struct files_asked_entry *next;
	uint64_t node, fh;
	uint64_t unique; /* of the question that is under way; 0: none */
	uint32_t room;   /* which answer was asked for */
	uint8_t *answer; /* NULL: none yet */
	size_t len;
};

static struct files_asked_owner *find_owner(const struct files_asked *a, uint64_t node, uint64_t owner)
{
	for (size_t i = 0; i < a->n_owners; i++)
		if (a->owners[i].node == node && a->owners[i].owner == owner)
			return &a->owners[i];
	return NULL;
}

static void add_owner(struct files_asked *a, uint64_t node, uint64_t owner)
{
	if (find_owner(a, node, owner))
		return;
	if (a->n_owners == a->owners_room) {
		a->owners_room = a->owners_room ? 2 * a->owners_room : 16;
		a->owners = realloc(a->owners, a->owners_room * sizeof(*a->owners));
		if (!a->owners)
			abort();
	}
	a->owners[a->n_owners++] = (struct files_asked_owner){ node, owner };
}

static bool may_change_locks(struct files_asked *a, const struct fuse_in_header *head, const uint8_t *request, size_t len)
{
	struct files_asked_owner *known;
	struct fuse_flush_in flush;
	struct fuse_lk_in lock;

	switch (head->opcode) {
	case FUSE_SETLK:
	case FUSE_SETLKW:
		if (len < sizeof(*head) + sizeof(lock))
			return true;
		memcpy(&lock, request + sizeof(*head), sizeof(lock));
		if (!(lock.lk_flags & FUSE_LK_FLOCK))
			add_owner(a, head->nodeid, lock.owner);
		return true;
	case FUSE_FLUSH:
		if (len < sizeof(*head) + sizeof(flush))
			return true;
		memcpy(&flush, request + sizeof(*head), sizeof(flush));
		known = find_owner(a, head->nodeid, flush.lock_owner);
		if (known)
			*known = a->owners[--a->n_owners];
		return known;
	default:
		return head->opcode == FUSE_RELEASE;
	}
}

void files_asked_forget(struct files_asked *a)
{
	while (a->first) {
		struct files_asked_entry *x = a->first;

		a->first = x->next;
		free(x->answer);
		free(x);
	}
	a->n = 0;
}

void files_asked_free(struct files_asked *a)
{
	files_asked_forget(a);
	free(a->changing);
	free(a->owners);
	*a = FILES_ASKED_INIT;
}

static void note_change(struct files_asked *a, uint64_t unique)
{
	files_asked_forget(a);
	if (a->n_changing == a->room) {
		a->room = a->room ? 2 * a->room : 16;
		a->changing = realloc(a->changing, a->room * sizeof(*a->changing));
		if (!a->changing)
			abort();
	}
	a->changing[a->n_changing++] = unique;
}

/* Whether the request is one for the locks of an open file. */
static bool is_question(const struct fuse_in_header *head, const uint8_t *request, size_t len, struct fuse_ioctl_in *ret)
{
	if (head->opcode != FUSE_IOCTL || len < sizeof(*head) + sizeof(*ret))
		return false;
	memcpy(ret, request + sizeof(*head), sizeof(*ret));
	return ret->cmd == FILES_IOC_LOCKS && !ret->flags && !ret->in_size;
}

static struct files_asked_entry *entry_of(struct files_asked *a, uint64_t node, const struct fuse_ioctl_in *in)
{
	struct files_asked_entry *x;

	for (x = a->first; x; x = x->next)
		if (x->node == node && x->fh == in->fh && x->room == in->out_size)
			return x;
	x = a->n < ENTRIES_MAX ? calloc(1, sizeof(*x)) : NULL;
	if (!x)
		return NULL;
	*x = (struct files_asked_entry){ .next = a->first, .node = node, .fh = in->fh, .room = in->out_size };
	a->first = x;
	a->n++;
	return x;
}

const uint8_t *files_asked_request(struct files_asked *a, const uint8_t *request, size_t len, size_t *ret_len)
{
	struct files_asked_entry *x;
	struct fuse_in_header head;
	struct fuse_ioctl_in in;

	if (len < sizeof(head))
		return NULL;
	memcpy(&head, request, sizeof(head));
	if (may_change_locks(a, &head, request, len))
		note_change(a, head.unique);
	/* One that is under way may change them at home before its answer comes here. */
	if (a->n_changing || !is_question(&head, request, len, &in))
		return NULL;
	x = entry_of(a, head.nodeid, &in);
	if (!x)
		return NULL;
	if (!x->answer) {
		x->unique = head.unique;
		return NULL;
	}
	memcpy(x->answer + offsetof(struct fuse_out_header, unique), &head.unique, sizeof(head.unique));
	*ret_len = x->len;
	return x->answer;
}

void files_asked_answered(struct files_asked *a, const uint8_t *answer, size_t len)
{
	struct fuse_out_header head;

	if (len < sizeof(head))
		return;
	memcpy(&head, answer, sizeof(head));
	for (size_t i = 0; i < a->n_changing; i++)
		if (a->changing[i] == head.unique) {
			a->changing[i] = a->changing[--a->n_changing];
			return;
		}
	for (struct files_asked_entry *x = a->first; x && !head.error; x = x->next) {
		if (!head.unique || x->unique != head.unique)
			continue;
		x->unique = 0;
		x->answer = malloc(len);
		if (x->answer)
			memcpy(x->answer, answer, len);
		x->len = len;
		return;
	}
}
