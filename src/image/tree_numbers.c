/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree_numbers.c - the numbers that processes, threads, groups and sessions have in pid namespaces below that of the unit's root; see tree.h and pid_namespaces(7)
 *
 * Theory of operation: /proc/PID/status says all numbers of a task, and those of its group and session as far as its own namespace can see them. So what a group whose
 * leader is gone has for numbers is told by the member that sees most of them.
 */
#include "image/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define PID_MAX 4194304

static int compare(const void *a, const void *b)
{
	const struct tree_number *x = a, *y = b;

	return x->number != y->number ? (x->number < y->number ? -1 : 1) : (int)y->depth - (int)x->depth; /* of one number the deepest first */
}

static const struct tree_number *find(const struct tree *t, pid_t number)
{
	size_t from = 0, to = t->n_numbers;

	while (from < to) {
		size_t at = (from + to) / 2;

		if (t->numbers[at].number == number)
			return &t->numbers[at];
		if (t->numbers[at].number < number)
			from = at + 1;
		else
			to = at;
	}
	return NULL;
}

/* --- source --- */

static int add(struct tree *t, const struct tree_number *one, struct err *e)
{
	struct tree_number *grown;

	if (t->n_numbers >= TREE_NUMBERS_MAX)
		return err_set(e, -E2BIG, "more than %u numbers in pid namespaces of the unit", TREE_NUMBERS_MAX);
	grown = realloc(t->numbers, (t->n_numbers + 1) * sizeof(*grown));
	if (!grown)
		return err_sys(e, ENOMEM, "numbers of processes");
	t->numbers = grown;
	grown[t->n_numbers++] = *one;
	return 0;
}

/* A line of numbers, one a namespace, outermost first. */
static int add_line(struct tree *t, const char *line, unsigned level, uint64_t space_id, struct err *e)
{
	struct tree_number one = { .space_id = space_id };
	unsigned column = 0;
	char *end;

	for (line += strcspn(line, "\t"); *line; line = end, column++) {
		long number = strtol(line, &end, 10);

		if (end == line)
			break;
		if (column == level)
			one.number = (pid_t)number;
		if (column <= level || !number)
			continue;
		if (one.depth == TREE_LEVELS_MAX)
			return err_set(e, -E2BIG, "pid namespaces of the unit are more than %u deep", TREE_LEVELS_MAX);
		one.below[one.depth++] = (pid_t)number;
	}
	return one.depth && one.number > 0 ? add(t, &one, e) : 0;
}

static int add_task(struct tree *t, pid_t host, unsigned level, uint64_t space_id, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t size = 0;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", host);
	f = fopen(path, "re");
	while (f && ret == 0 && getline(&line, &size, f) > 0)
		if (!strncmp(line, "NSpid:", 6) || !strncmp(line, "NSpgid:", 7) || !strncmp(line, "NSsid:", 6))
			ret = add_line(t, line, level, space_id, e);
	return ret;
}

static int add_threads(struct tree *t, const struct tree_process *p, unsigned level, struct err *e)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", p->host_pid);
	dir = opendir(path);
	for (struct dirent *d; ret == 0 && dir && (d = readdir(dir));)
		if (atoi(d->d_name) > 0)
			ret = add_task(t, atoi(d->d_name), level, p->space_id, e);
	return ret;
}

static void sort_numbers(struct tree *t)
{
	size_t kept = 0;

	if (t->n_numbers)
		qsort(t->numbers, t->n_numbers, sizeof(*t->numbers), compare);
	for (size_t i = 0; i < t->n_numbers; i++)
		if (!kept || t->numbers[kept - 1].number != t->numbers[i].number)
			t->numbers[kept++] = t->numbers[i];
	t->n_numbers = kept;
}

int tree_numbers_capture(struct tree *t, unsigned level, struct err *e)
{
	int ret = 0;

	free(t->numbers);
	t->numbers = NULL;
	t->n_numbers = 0;
	for (size_t i = 0; i < t->n && ret == 0; i++)
		if (t->v[i].space_id != t->v[0].space_id)
			ret = add_threads(t, &t->v[i], level, e);
	sort_numbers(t);
	return ret;
}

int tree_name_spaces(struct tree *t, const uint32_t *above, size_t n, int (*find_space)(uint64_t id), struct err *e)
{
	if (!t->n_numbers)
		return 0;
	t->above = malloc((n + 1) * sizeof(*t->above));
	if (!t->above)
		return err_sys(e, ENOMEM, "pid namespaces");
	memcpy(t->above, above, n * sizeof(*above));
	t->n_spaces = n;
	for (size_t i = 0; i < t->n; i++) {
		int space = find_space(t->v[i].space_id);

		if (space < 0)
			return err_set(e, -EAGAIN, "process %d is in a pid namespace that has come meanwhile", t->v[i].host_pid);
		t->v[i].space = (uint32_t)space;
	}
	for (size_t i = 0; i < t->n_numbers; i++) {
		int space = find_space(t->numbers[i].space_id);

		/* A group or session may be of a namespace further up than its member's. */
		while (space > 0 && tree_depth(t, (uint32_t)space) > t->numbers[i].depth)
			space = (int)t->above[space];
		t->numbers[i].space = space < 0 ? 0 : (uint32_t)space;
	}
	return tree_numbers_validate(t, e) < 0 ? err_set(e, -EAGAIN, "processes in pid namespaces of unit %d have come or gone meanwhile", t->v[0].host_pid) : 0;
}

/* --- both sides --- */

int tree_numbers_copy(const struct tree *from, struct tree *ret, struct err *e)
{
	if (!from->n_numbers)
		return 0;
	ret->numbers = malloc(from->n_numbers * sizeof(*ret->numbers));
	ret->above = malloc((from->n_spaces + 1) * sizeof(*ret->above));
	if (!ret->numbers || !ret->above)
		return err_sys(e, ENOMEM, "numbers of processes");
	memcpy(ret->numbers, from->numbers, from->n_numbers * sizeof(*ret->numbers));
	memcpy(ret->above, from->above, from->n_spaces * sizeof(*ret->above));
	ret->n_numbers = from->n_numbers;
	ret->n_spaces = from->n_spaces;
	return 0;
}

unsigned tree_depth(const struct tree *t, uint32_t space)
{
	unsigned depth = 0;

	for (; space && depth <= TREE_SPACES_MAX; space = t->above[space])
		depth++;
	return depth;
}

bool tree_space_sees(const struct tree *t, uint32_t space, uint32_t below)
{
	while (below && below != space)
		below = t->above[below];
	return below == space;
}

pid_t tree_seen(const struct tree *t, uint32_t space, pid_t number)
{
	const struct tree_number *one;
	unsigned depth;

	if (!space || !number)
		return number;
	one = find(t, number);
	depth = tree_depth(t, space);
	return one && one->depth >= depth && tree_space_sees(t, space, one->space) ? one->below[depth - 1] : 0;
}

size_t tree_set_tid(const struct tree *t, uint32_t space, pid_t number, pid_t ret[TREE_LEVELS_MAX + 1])
{
	const struct tree_number *one = find(t, number);
	size_t n = 0;

	if (one && one->space == space)
		for (unsigned i = one->depth; i-- > 0;)
			ret[n++] = one->below[i];
	if (number && n == tree_depth(t, space))
		ret[n++] = number;
	return n;
}

uint32_t tree_space_of(const struct tree *t, pid_t number, uint32_t otherwise)
{
	const struct tree_number *one = find(t, number);

	return one ? one->space : otherwise;
}

/* --- what is believed --- */

static bool spaces_are_sound(const struct tree *t)
{
	if (t->n_spaces > TREE_SPACES_MAX)
		return false;
	for (size_t i = 1; i < t->n_spaces; i++)
		if (t->above[i] >= t->n_spaces || (t->above[i] && t->above[i] >= i) || tree_depth(t, (uint32_t)i) > TREE_LEVELS_MAX)
			return false;
	return true;
}

int tree_numbers_validate(const struct tree *t, struct err *e)
{
	if (t->n_numbers > TREE_NUMBERS_MAX || !spaces_are_sound(t))
		return err_set(e, -EBADMSG, "tree: pid namespaces that cannot be");
	for (size_t i = 0; i < t->n_numbers; i++) {
		const struct tree_number *one = &t->numbers[i];

		if (one->number < 1 || one->number > PID_MAX || (i && t->numbers[i - 1].number >= one->number) || !one->space || one->space >= t->n_spaces ||
		    one->depth != tree_depth(t, one->space))
			return err_set(e, -EBADMSG, "tree: the numbers of %d", one->number);
		for (unsigned k = 0; k < one->depth; k++)
			if (one->below[k] < 1 || one->below[k] > PID_MAX)
				return err_set(e, -EBADMSG, "tree: the numbers of %d", one->number);
	}
	for (size_t i = 0; i < t->n; i++)
		if ((t->n_spaces ? t->v[i].space >= t->n_spaces : t->v[i].space) || (t->v[i].space && tree_space_of(t, t->v[i].pid, 0) != t->v[i].space) ||
		    (!t->v[i].space && find(t, t->v[i].pid)) || (!i && t->v[i].space))
			return err_set(e, -EBADMSG, "tree: process %d in pid namespace %u", t->v[i].pid, t->v[i].space);
	return 0;
}
