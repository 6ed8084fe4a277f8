/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* steps.c - a migration as a table of steps, and faults injected into it; see steps.h */
#include "migrate/steps.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "migrate/guard.h"

#define FAULT_FILE "/run/godwit/fault"

static char fault_side[16], fault_step[32], fault_action[16];

void fault_load(void)
{
	cleanup_fclose FILE *f = fopen(FAULT_FILE, "re");

	fault_side[0] = 0;
	if (f && fscanf(f, "%15[^:]:%31[^:]:%15[a-z]", fault_side, fault_step, fault_action) != 3)
		fault_side[0] = 0;
}

int fault_point(const char *side, const char *step, int fd, struct err *e)
{
	char nonsense[512];

	if (strcmp(side, fault_side) || strcmp(step, fault_step))
		return 0;
	fault_side[0] = 0; /* once */
	log_warning("event=fault step=%s action=%s", step, fault_action);
	if (!strcmp(fault_action, "error"))
		return err_set(e, -EIO, "a fault was injected at step %s", step);
	if (!strcmp(fault_action, "stop"))
		raise(SIGSTOP);
	if (!strcmp(fault_action, "garbage")) {
		memset(nonsense, 0xa5, sizeof(nonsense));
		if (send(fd, nonsense, sizeof(nonsense), MSG_NOSIGNAL) < 0)
			return 0;
	}
	if (!strcmp(fault_action, "killall"))
		kill(getppid(), SIGKILL);
	if (!strncmp(fault_action, "kill", 4))
		raise(SIGKILL);
	return 0;
}

int steps_run(const struct step_table *table, void *context, step_watch *watch, bool *ret_committed, struct err *e)
{
	int ret = 0;
	size_t i;

	*ret_committed = false;
	for (i = 0; i < table->n; i++) {
		const struct step *step = &table->steps[i];

		*ret_committed |= step->committed;
		guard_watch(step->guarded);
		ret = watch ? watch(context, step, e) : 0;
		if (ret == 0)
			ret = step->run(context, e);
		if (ret < 0)
			break;
	}
	if (ret == 0)
		return 0;
	err_wrap(e, "%s", table->steps[i].name);
	for (i = i + 1; !*ret_committed && i-- > 0;)
		if (table->steps[i].undo)
			table->steps[i].undo(context);
	return ret;
}
