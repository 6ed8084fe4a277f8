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
	int state_fd;         /* where the state is with which it goes on; -1: none */
	struct err error;
};

extern struct program godwit_program __attribute__((visibility("hidden")));

#endif
