/* SPDX-License-Identifier: GPL-2.0-or-later */
/* layout_move.h - for tests: builds the layout of a live process in a fake skeleton, and compares the two */
#ifndef GODWIT_TESTS_UNIT_LAYOUT_MOVE_H
#define GODWIT_TESTS_UNIT_LAYOUT_MOVE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "fake_skeleton.h"
#include "image/mm.h"
#include "image/vma.h"

#define MUST(x)                                                                    \
	do {                                                                       \
		if (!(x))                                                          \
			fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #x, strerror(errno)); \
	} while (0)
#define MUST_OK(x)                                                        \
	do {                                                              \
		if ((x) < 0)                                              \
			fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #x, e.message); \
	} while (0)

/* A source as read, and the skeleton built from it. */
struct moved {
	struct fsfile_table files;
	struct refusals refusals;
	struct vma_list list;
	struct mm_fields mm;
	struct batch *b;
	int *fds;
};

/* A child process that runs setup and stops; it ends with the test. */
pid_t start_child(void (*setup)(void));
void end_child(pid_t pid);

/* smaps as text that must be equal on both sides, malloc'ed. Without hints: advice and accounting are left out. */
char *layout_text(pid_t pid, bool hints);
void compare_layouts(pid_t a, pid_t b);
void compare_mm(pid_t pid, const struct moved *m);
/* /proc/PID/exe */
void check_proc_link(pid_t a, pid_t b);

/* Reads everything of pid; fails when something is refused. */
void read_source(pid_t pid, struct moved *m);
/* Starts a skeleton and builds the layout in it. */
void build(pid_t pid, struct moved *m);
void end_moved(struct moved *m);

#endif
