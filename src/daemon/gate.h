/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gate.h - godwit-gate (src/gate), which has the API over TLS: its start and its end */
#ifndef GODWIT_DAEMON_GATE_H
#define GODWIT_DAEMON_GATE_H

#include "daemon/daemon.h"

/* Listens. Behind api_open and tls_starter_open. */
int gate_open(struct daemon *d, struct err *e);
/* In the main process: starts it when it does not run; the time until that is looked at again, -1: its end wakes. */
int gate_tick(struct daemon *d);

#endif
