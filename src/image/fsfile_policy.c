/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsfile_policy.c - what the user wants with files that the destination lacks; see fsfile_policy.h */
#include "image/fsfile_policy.h"

#include <errno.h>

#include "base/util.h"

static const char *const names[FSFILE_POLICIES] = { "auto", "copy", "refuse", "relay" };

const char *fsfile_policy_name(enum fsfile_policy policy)
{
	return (unsigned)policy < FSFILE_POLICIES ? names[policy] : "unknown";
}

int fsfile_policy_parse(const char *name, enum fsfile_policy *ret, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name)) {
			*ret = (enum fsfile_policy)i;
			return 0;
		}
	return err_set(e, -EINVAL, "no way to treat files is called '%s': auto, copy, relay or refuse", name);
}

bool fsfile_policy_wants_home(enum fsfile_policy policy, const struct fsfile *f, const struct fsfile_answer *answer)
{
	if (!answer->differs || !f->servable || (policy != FSFILE_POLICY_AUTO && policy != FSFILE_POLICY_RELAY))
		return false;
	return answer->verdict == FSFILE_CREATE || answer->verdict == FSFILE_REFUSE || policy == FSFILE_POLICY_RELAY;
}

void fsfile_policy_apply(enum fsfile_policy policy, const struct fsfile *f, struct fsfile_answer *answer, struct refusals *refusals)
{
	if (policy != FSFILE_POLICY_REFUSE || f->type != FSFILE_REGULAR || f->unlinked)
		return;
	if (answer->verdict != FSFILE_STAND_IN && answer->verdict != FSFILE_CREATE)
		return;
	answer->verdict = FSFILE_REFUSE;
	refusals_add(refusals, "file.lacking", "the destination does not have this very file, and files are not to be sent (--files=refuse)",
		     "bring it there, share the file system between the hosts, or let files be sent (--files=auto)", "file %s", f->path);
}
