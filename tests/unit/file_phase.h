/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_phase.h - what phases of file_move.h are written with: they run in a child that has lost its standard descriptors */
#ifndef GODWIT_TESTS_UNIT_FILE_PHASE_H
#define GODWIT_TESTS_UNIT_FILE_PHASE_H

/* The result of a call, which must not fail. */
#define MUST(x)                                       \
	({                                            \
		int r_ = (int)(x);                    \
		if (r_ < 0)                           \
			phase_die(__LINE__, #x);      \
		r_;                                   \
	})

extern char phase_directory[64];

int phase_directory_make(void);
void phase_directory_remove(void);
/* The path of a file there, valid for a while. */
const char *in_dir(const char *name);
/* Says why in the file "died" there, since its descriptors are gone, and aborts. */
void phase_die(int line, const char *what);
/* Moves a descriptor to another number; flags: O_CLOEXEC or 0. Returns the number. */
int at(int fd, int wanted, int flags);

#endif
