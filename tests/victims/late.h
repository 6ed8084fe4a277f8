/* SPDX-License-Identifier: GPL-2.0-or-later */
/* late.h - attributes that can be set and read again; what was last set is noted, and from the move on nothing is set any more (late.c) */
#ifndef GODWIT_LATE_H
#define GODWIT_LATE_H

struct late_attribute {
	const char *name;
	int values;                /* from 0 on */
	void (*set)(int value);
	int (*get)(void);          /* -1: none of them */
};

#define LATE_ATTRIBUTES_MAX 64
#define LATE(name, values) { #name, values, set_##name, get_##name }

/* Sets each to each of its values, and sees whether it can be read again. */
void late_begin(const struct late_attribute *a, int n);
void late_work(void);
void late_check(void);

#endif
