// SPDX-License-Identifier: GPL-2.0-or-later
/* gate.c - see gate.h */
#include "daemon/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "base/program.h"
#include "base/util.h"
#include "wire/conn.h"

#define AGAIN_NS 1000000000ull
#define BACKLOG 64

int gate_open(struct daemon *d, struct err *e)
{
	d->gate_fd = conn_listen(&d->config.api_listen, BACKLOG, e);
	return d->gate_fd < 0 ? err_wrap(e, "listen in [api]") : 0;
}

static void __attribute__((noreturn)) execute(const struct daemon *d)
{
	char program[PATH_MAX], listener[16];

	(void)fcntl(d->gate_fd, F_SETFD, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(listener, sizeof(listener), "%d", d->gate_fd);
	execl(program_beside("godwit-gate", program), "godwit-gate", listener, d->tls_path, d->api_path, d->config.api_tokens, (char *)NULL);
	log_error("event=gate-failed error=\"%s: %s\"", program, strerror(errno));
	_exit(1);
}

int gate_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	bool child;

	if (d->gate_fd < 0 || worker_count(d, WORKER_GATE))
		return -1;
	if (now >= d->gate_due_ns) {
		d->gate_due_ns = now + AGAIN_NS;
		worker_start(d, WORKER_GATE, &d->gate_fd, 1, &child, NULL);
		if (child)
			execute(d);
	}
	return (int)(AGAIN_NS / 1000000);
}
