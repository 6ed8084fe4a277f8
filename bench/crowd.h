/* SPDX-License-Identifier: GPL-2.0-or-later */
/* crowd.h - what gap.c has beside its one busy thread, so that the freeze of larger units can be measured in the same way */
#ifndef GODWIT_BENCH_CROWD_H
#define GODWIT_BENCH_CROWD_H

/* "threads=N" and "processes=N" (with the busy one; the others rest in read and pause), "mappings=N", "descriptors=N". 0, or -1 with a message printed. */
int crowd_make(const char *spec);

#endif
