/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit.h - the image of a unit on the source, as captured from outside while it runs */
#ifndef GODWIT_MIGRATE_UNIT_H
#define GODWIT_MIGRATE_UNIT_H

#include <sys/types.h>

#include "base/err.h"
#include "control.pb-c.h"
#include "image/file.h"
#include "image/fsfile.h"
#include "image/mm.h"
#include "image/refuse.h"
#include "image/vdso.h"
#include "image/vma.h"
#include "task.pb-c.h"

struct unit {
	pid_t pid;
	int pidfd;
	Gw__Process *process;
	Gw__Thread **threads; /* [0]: the main thread */
	size_t nthreads;
	struct fsfile_table files;
	struct vma_list vmas;
	struct vdso vdso;
	struct mm_fields mm;
	struct fdtable fds;
};

#define UNIT_INIT ((struct unit){ .pidfd = -1, .fds = FDTABLE_INIT })

/* Captures everything that can be seen without touching the process; what cannot move is added to refusals. */
int unit_capture(pid_t pid, struct unit *ret, struct refusals *refusals, struct err *e);
void unit_free(struct unit *u);

/* Lists of encoded messages for the wire; owned by the caller (bytes_free). */
struct bytes_list {
	ProtobufCBinaryData *v;
	size_t n;
};
void bytes_list_free(struct bytes_list *l);
int unit_encode_threads(Gw__Thread *const *threads, size_t n, struct bytes_list *ret, struct err *e);

#endif
