/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_pump.h - the destination's side of the file relay: the process godwit-relay, between the kernel's FUSE device and home (files_serve.h)
 *
 * It carries requests and answers and looks at nothing but their numbers, and at what is about locks (files_asked.h). It ends when the file system has been unmounted, which is when the last process in the unit's mount
 * namespace has ended. When home cannot be reached for PATIENCE, or says that it knows nothing of the relay, every request is answered with EIO, so that nobody
 * hangs; after a connection that was only broken it goes on. It outlives worker and godwitd.
 */
#ifndef GODWIT_HOME_FILES_PUMP_H
#define GODWIT_HOME_FILES_PUMP_H

#include <netinet/in.h>
#include <stdint.h>

#include "base/err.h"
#include "home/files_serve.h"

/* Connects to home and opens a session there. Returns the connection, and the session's name. */
int files_pump_connect(const struct sockaddr_in *home, const char *self_name, const uint8_t token[FILES_TOKEN_BYTES], uint8_t ret_session[FILES_TOKEN_BYTES], struct err *e);
/* Starts the process; `fuse` (of /dev/fuse) and `fd` stay the caller's. */
int files_pump_start(const struct sockaddr_in *home, const char *self_name, const uint8_t session[FILES_TOKEN_BYTES], int fuse, int fd, struct err *e);

#endif
