/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_serve.h - home's side of the file relay: the processes godwit-files
 *
 * One, the *export*, is started before a unit is offered, and has a door with the relay's token as its name. For each destination that comes with a connection of ROLE_HOME
 * and this token it forks a *session*, which serves one FUSE file system (files_fs.h) and has a door of its own, for when the connection breaks. The export ends when its
 * worker has closed `control` and no session is left: so it lasts as long as the unit is away, also while it moves on and has two file systems for a moment.
 */
#ifndef GODWIT_HOME_FILES_SERVE_H
#define GODWIT_HOME_FILES_SERVE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define FILES_TOKEN_BYTES 16u

struct files_export {
	uint8_t token[FILES_TOKEN_BYTES];
	int control; /* -1: there is none */
};

#define FILES_EXPORT_INIT ((struct files_export){ .control = -1 })

/* Starts the export of these directories, in the caller's mount namespace; `unit` is for the log. */
int files_export_start(const char *unit, char *const *directories, size_t n, struct files_export *ret, struct err *e);
/* The worker does not need it any more; what it serves goes on. */
void files_export_release(struct files_export *x);
/* Whether an export with this token is on this host. */
int files_export_is_here(const uint8_t token[FILES_TOKEN_BYTES]);

#endif
