/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refuse.h - the reasons why a unit cannot move
 *
 * Capture code does not stop at the first thing that it cannot carry: it adds a refusal and goes on, so that the user
 * sees every reason at once, before the process is touched. An error (struct err) is for what went wrong; a
 * refusal is for what is there and cannot move.
 */
#ifndef GODWIT_IMAGE_REFUSE_H
#define GODWIT_IMAGE_REFUSE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

struct refusal {
	char *code;    /* stable word for scripts: "fd.socket.tcp.established", "vma.hugetlb", "task.children" */
	char *thing;   /* "fd 7 (TCP 10.66.0.1:6379 to 10.66.0.9:40112, ESTABLISHED)" */
	char *cause;   /* "established connections cannot move yet" */
	char *way_out; /* "close it first" */
	pid_t other;   /* process outside of the unit that is the cause; 0: none, or not known */
};

struct refusals {
	struct refusal *v;
	size_t n;
};

/* Appends a refusal; `thing` is made from format. Allocation failure aborts the process (nothing has been touched). */
void refusals_add(struct refusals *r, const char *code, const char *cause, const char *way_out, const char *thing_format, ...)
	__attribute__((format(printf, 5, 6)));
/* Process `other` is the cause of all refusals since there were `from`. When it is gone, or turns out to be the unit's own, another look may find no reason. */
void refusals_blame(struct refusals *r, size_t from, pid_t other);
void refusals_free(struct refusals *r);
/* Keeps the first n. */
void refusals_cut(struct refusals *r, size_t n);
/* One line, "thing: cause (way out); ...", in a malloc'ed string. */
char *refusals_text(const struct refusals *r);
/* -EPERM: what process pid has begun while its move was under way, in the words of the first. */
int refusals_begun(const struct refusals *r, pid_t pid, struct err *e);

#endif
