/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keep_store.h - the copies of other nodes' units that this node keeps: files in STATE_DIRECTORY/NODE.copies, which only root may read
 *
 *	KEY.json       the record (keep_rules.h), replaced as a whole
 *	KEY.SEQ.img    the image that the record names by its seq (docs/image.md), and those of its chain that it needs, from the record's base on; on the disk before the record says so
 *	KEY.part       one that is on its way here
 *	lock           held while a record is read, judged and written: never while bytes are waited for
 *
 * An image that no record names is removed when its unit is next written. Records of units that have ended are removed after a week.
 */
#ifndef GODWIT_DAEMON_KEEP_STORE_H
#define GODWIT_DAEMON_KEEP_STORE_H

#include <limits.h>

#include "base/err.h"
#include "daemon/keep_rules.h"

#define KEEP_RECORDS_MAX 2048u
#define KEEP_FREE_PART 10u /* a tenth of the file system stays free */

/* Once; `node` is this one's name. */
void keep_store_use(const char *node);
/* Makes the directory, and waits for the lock: a descriptor that holds it until it is closed. */
int keep_store_lock(struct err *e);

/* State KEEP_NOTHING: there is none. -EBADMSG: it cannot be read. */
int keep_store_read(const char *key, struct keep_record *ret, struct err *e);
/* On the disk when it returns; KEEP_NOTHING removes it. Removes images of the unit that it does not name. */
int keep_store_write(const struct keep_record *record, struct err *e);
/* All of them, until `each` returns not 0. Removes what is old. */
int keep_store_list(int (*each)(const struct keep_record *record, void *arg), void *arg, struct err *e);

void keep_store_image_path(const struct keep_record *record, char path[PATH_MAX]);
/* Whether a file of that name is an image of the record's chain. */
bool keep_store_of_chain(const struct keep_record *record, const char *name);
/* Begins to receive an image; whoever did so before for this unit has lost. The file is the caller's. -ENOSPC, -EDQUOT with words: there is no room for so much. */
int keep_store_begin(const char *key, uint64_t bytes, uint64_t max_mib, struct err *e);
void keep_store_part_path(const char *key, char path[PATH_MAX]);
/* It is whole: to the disk, and under the name that `record` says. */
int keep_store_name(int fd, const struct keep_record *record, struct err *e);
/* Seconds since the record was written. */
double keep_store_age_s(const char *key);

#endif
