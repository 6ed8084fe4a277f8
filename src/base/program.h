/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* program.h - where the programs of one installation are: beside each other, as they are built */
#ifndef GODWIT_BASE_PROGRAM_H
#define GODWIT_BASE_PROGRAM_H

#include <limits.h>

/* The path of the program `name` in the directory of the one that runs (proc(5), /proc/self/exe); where that is not known, the name alone. Returns ret. */
const char *program_beside(const char *name, char ret[PATH_MAX]);

#endif
