/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* program.h - what the library knows of the program that it is in */
#ifndef GODWIT_PORTABLE_PROGRAM_H
#define GODWIT_PORTABLE_PROGRAM_H

#include "portable/state.h"

#define EXPORT __attribute__((visibility("default")))

struct program {
	struct variables vars;
	struct state_about about;
	bool begun, resumes;
	int resumed_at;       /* -1: afresh */
	int argc;
	char **argv;
	int state_fd;         /* where the state is with which it goes on; -1: none */
	struct err error;
};

/* point.c: what godwitd finds this program by. Failing is no error: the program cannot be asked then. */
void point_begin(const char *program, unsigned version);
/* Behind the variables: 1 and the program may go on, when another host has given it its state, otherwise < 0; 0: nobody has. */
int point_arrived(int result);

/* start.c: how the program was started, for who starts it elsewhere (daemon/portable_start.h). The caller frees it; NULL: no memory. */
char *start_describe(int argc, char **argv, size_t *ret_len);

extern struct program godwit_program __attribute__((visibility("hidden")));

#endif
