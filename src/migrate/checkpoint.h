/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * checkpoint.h - checkpoint and restart: a migration whose destination is a file, and one whose source is a file (docs/image.md)
 *
 * Theory of operation: the source knows nothing of files. It migrates to a *writer*, a child of its worker that listens on the loopback address, speaks for a destination and
 * records what it is sent (image_write.c). When everything is there, the writer says that the process will never run there, and so the process goes on where it is
 * (keep_running); or it puts the image on the disk and gives it its name, and says that the process runs, and so the source lets go of its own. That is the commit: the
 * writer keeps a record as a destination does (outcome.h), and who cannot hear it asks the godwitd of this host.
 *
 * Nor does the destination know much of files: a *reader* (image_read.c) sends it what has been recorded, with the clocks and the sizes and times of files as they were when
 * the process stood still. It has read the whole of the image before, so that one that is not whole leads to nothing.
 */
#ifndef GODWIT_MIGRATE_CHECKPOINT_H
#define GODWIT_MIGRATE_CHECKPOINT_H

#include "migrate/migrate.h"
#include "wire/archive.h"
#include "wire/hello.h"

struct image_wish {
	const char *path;      /* absolute */
	bool keep_running;     /* the unit goes on */
	bool store;            /* without compression */
	const char *version;   /* of this program, for the image's head */
	const struct archive_key *key; /* NULL: it is not encrypted */
	const char *chain;     /* the index of the chain that it belongs to (wire/archive_chain.h), which need not be there; NULL: to none */
	const char *name;      /* what those after it call it: the name of its file */
	const char *directory; /* where its chain's images should be; NULL: elsewhere */
};

/* What a writer has written. */
struct image_taken {
	uint64_t file_bytes, raw_bytes;
	uint32_t links;    /* images that it needs; 0: it is whole */
	char whole[120];   /* and why it is, when it belongs to a chain */
};

/* For migrate_source: the destination is a writer. */
struct migrate_image {
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	bool keep_running;
	struct sockaddr_in ask; /* the godwitd that knows the outcome: this host's */
};

/*
 * Takes an image of request->pid (request->dest and image are not used). Returns 0 when the file is there: then the unit runs here as before, or has ended, as is wished. Otherwise
 * as migrate_source, and there is no file, but in doubt.
 */
int migrate_checkpoint(const struct migrate_request *request, const struct image_wish *wish, struct migrate_report *report, struct refusals *refusals, struct image_taken *ret,
		       struct err *e);

struct image_restore {
	const char *path;
	const struct archive_key *key; /* NULL: none; the image must have been made with it */
	const char *self_name, *dest_name;
	struct sockaddr_in dest;   /* the godwitd that is to run it */
	bool accept_changed;       /* files that have changed since are used as they are */
	const char *unit, *reason; /* it is that unit, which has made so many moves; and why it moves; NULL: it becomes a new unit */
	unsigned moves;
	bool ask_only;             /* only whether it would be taken: -ECANCELED when it would be */
	bool (*cancelled)(void *arg); /* NULL: nobody cancels */
	void *arg;
};

struct image_restored {
	char unit[MIGRATE_UNIT_MAX], node[HELLO_NAME_MAX + 1];
	pid_t pid;                 /* as that host sees it; 0: it did not say */
	bool in_doubt;             /* it is not known whether it runs there */
};

/* Makes a process of an image. -EPERM with refusals; -EBADMSG: the image is not whole. Until it returns 0 nothing runs, unless ret->in_doubt. */
int migrate_restore(const struct image_restore *r, struct image_restored *ret, struct refusals *refusals, struct err *e);

#endif
