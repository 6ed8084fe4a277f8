/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_locks.h - an ioctl(2) on a file that home serves (home/files_fs.h): the locks that have been taken through this open file
 *
 * They are taken at home, so that fdinfo does not show them here. The answer is what it would show: lines "lock:", POSIX also for those of the open file description, which
 * home cannot tell from them.
 */
#ifndef GODWIT_KERN_FILES_LOCKS_H
#define GODWIT_KERN_FILES_LOCKS_H

#include <stdint.h>
#include <sys/ioctl.h>

struct files_locks {
	uint32_t len;
	char text[16000];
};

#define FILES_IOC_LOCKS ((unsigned)_IOR('g', 0xf7, struct files_locks))

#endif
