/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tls_starter.h - godwit-tls: makes a relay (wire/tls.h) for whoever connects to its socket, with the certificate and key of [tls]
 *
 * It is a program of its own (godwitd executes itself), so that relays have nothing of godwitd's in memory; it has the socket from godwitd, which starts it anew should it end. It outlives
 * godwitd, as workers do, until another godwitd has a socket in the place of its own. The files are looked at for each relay, and read anew when they have changed: certificates can be renewed, and
 * revoked, while everything runs. What cannot be read then does not replace what could.
 */
#ifndef GODWIT_DAEMON_TLS_STARTER_H
#define GODWIT_DAEMON_TLS_STARTER_H

#include "daemon/daemon.h"

#define TLS_STARTER_OPTION "--tls-starter"
#define TLS_STARTER_ARGUMENTS 9 /* itself, the option, the socket and its path, the node, ca, certificate, key, crl */

/* Makes the socket, tls.sock in the directory; from now on connections of this process and its children are made by relays. */
int tls_starter_open(struct daemon *d, const char *directory, struct err *e);
/* In the main process: starts it when it does not run; the time until that is looked at again, -1: its end wakes. */
int tls_starter_tick(struct daemon *d);
/* What it executes. Returns the exit status. */
int tls_starter_main(char **argv);

#endif
