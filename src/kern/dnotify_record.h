/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dnotify_record.h - what the BPF program of dnotify_peek.c writes; shared by both, so it includes nothing */
#ifndef GODWIT_KERN_DNOTIFY_RECORD_H
#define GODWIT_KERN_DNOTIFY_RECORD_H

struct dnotify_record {
	unsigned int fd;
	unsigned int mask; /* FS_*, as fsnotify has them */
};

#endif
