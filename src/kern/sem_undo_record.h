/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sem_undo_record.h - what the BPF program writes for each list entry of each thread; shared by it and sem_undo.c, so it includes nothing */
#ifndef GODWIT_KERN_SEM_UNDO_RECORD_H
#define GODWIT_KERN_SEM_UNDO_RECORD_H

#define SEM_UNDO_ADJUSTMENTS 128 /* of a set's first semaphores */

struct sem_undo_record {
	unsigned long long list; /* names the list: threads usually share one */
	int semid;
	unsigned int truncated;  /* the list is longer than what was read */
	short adjust[SEM_UNDO_ADJUSTMENTS]; /* as many as the set has are meant, the rest is arbitrary */
};

#endif
