/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_asked.h - what home has answered to FILES_IOC_LOCKS (kern/files_locks.h), kept by the relay for as long as it holds
 *
 * Locks on files that home serves are taken and given back by requests that pass the relay: SETLK, RELEASE, and FLUSH of an owner who has locked that file. (Each close of a
 * duplicate is a FLUSH.) While there has been none since home was asked, the answer is the same one, and the freeze of a process, which asks for each such file, does not
 * wait for home.
 *
 * Requests and answers are those of the FUSE device, header and all (linux/fuse.h). Nothing here blocks.
 */
#ifndef GODWIT_HOME_FILES_ASKED_H
#define GODWIT_HOME_FILES_ASKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct files_asked_entry;

/* Who has locked (fcntl(2)) what, and has not given it back by a FLUSH. */
struct files_asked_owner {
	uint64_t node, owner;
};

struct files_asked {
	struct files_asked_entry *first; /* answers, and questions that have not been answered */
	size_t n;
	uint64_t *changing;              /* numbers of requests under way that may change locks */
	size_t n_changing, room;
	struct files_asked_owner *owners;
	size_t n_owners, owners_room;
};

#define FILES_ASKED_INIT ((struct files_asked){ 0 })

/*
 * A request of the kernel. Returns the answer, which is the table's until its next call, with *ret_len; NULL: home is to be asked, and what it answers is to be
 * told to files_asked_answered.
 */
const uint8_t *files_asked_request(struct files_asked *a, const uint8_t *request, size_t len, size_t *ret_len);
void files_asked_answered(struct files_asked *a, const uint8_t *answer, size_t len);
/* Drops all answers, when home may not be what it was: a connection has broken. What is under way stays so: it will be sent again. */
void files_asked_forget(struct files_asked *a);
void files_asked_free(struct files_asked *a);

#endif
