/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proc_ended.h - files of /proc about processes that have ended
 *
 * Who has such a file open goes on having it: mostly it says ESRCH when it is read, a directory has no entries. Nobody can open one anew. So at the destination
 * a *stand-in* lives for as long as it takes to open it: a process with that number, if it is free, in the pid namespace of the unit. Otherwise it has another
 * number, and only what /proc shows as the name of the file differs.
 *
 * What a living process has in /proc for a time only (its threads, its descriptors, its mappings) cannot be made this way.
 */
#ifndef GODWIT_IMAGE_PROC_ENDED_H
#define GODWIT_IMAGE_PROC_ENDED_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* The process that a path of /proc is about; 0: none. *ret_rest is what follows its number. */
pid_t proc_path_process(const char *path, const char **ret_rest);
/* Whether the path is about a descriptor or a mapping of a process. */
bool proc_path_is_fleeting(const char *path);
/* The number of whose descriptor the file tells (/proc/PID/fdinfo/N); -1: it is another file. */
int proc_path_descriptor(const char *path);
/* Whether the path is that of something that every process has. */
bool proc_ended_is_possible(const char *path);

struct proc_ended {
	pid_t child; /* which is the stand-in's parent */
	int hold;    /* they end when this is closed */
	pid_t here;  /* the stand-in's number as the worker sees it */
	pid_t seen;  /* as the unit sees it */
};

#define PROC_ENDED_INIT { .child = 0, .hold = -1 }

/* A stand-in for whom `path` is about, in the pid namespace of process `beside`. */
int proc_ended_start(struct proc_ended *p, const char *path, pid_t beside, struct err *e);
/* Opens `path` (proc_ended_is_possible) about the stand-in. A descriptor or an error. */
int proc_ended_open(const struct proc_ended *p, const char *path, int flags, struct err *e);
void proc_ended_stop(struct proc_ended *p);

#endif
