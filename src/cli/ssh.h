/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ssh.h - a child that runs ssh, and what its end means */
#ifndef GODWIT_CLI_SSH_H
#define GODWIT_CLI_SSH_H

#include <sys/types.h>

#include "base/err.h"

struct ssh {
	pid_t pid;
	int fd;     /* its standard input and output; the caller's */
	int errors; /* what it says */
};

#define SSH_NONE ((struct ssh){ 0, -1, -1 })

/*
 * command: words with blanks between them, `ssh -p 2222`. what: for the shell over there. Its end of fd it has alone. It has no pty, ignores the signals of the terminal, and is given no option
 * that changes whom it trusts.
 */
int ssh_start(const char *command, const char *host, const char *what, struct ssh *ret, struct err *e);
/* Waits for its end, and says what it was. */
int ssh_end(struct ssh *ssh, const char *host, struct err *e);
void ssh_close(struct ssh *ssh);

/*
 * `godwit bridge --stdio` as root, by sudo where that is not who logs in. blocks: so many of BOOTSTRAP_BLOCK bytes come first, the programs to be used where there are none (bootstrap.h); 0: there have to be.
 */
#define SSH_COMMAND_MAX 2048u
void ssh_bridge_command(size_t blocks, char ret[SSH_COMMAND_MAX]);

#endif
