/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * admission.h - as whom, and with which privileges, what other hosts send may run here
 *
 * A host that takes units from others gives their processes whatever credentials they say, unless it is told as whom they may run at most: users, groups, capabilities. The destination judges
 * the offer by that before anything is made, and what the go message says once more. In a user namespace of the unit's the ids are those that its maps lead to, and capabilities count for
 * nothing on the host.
 *
 * Files that the destination would make may belong to these users and groups only, and lend nobody's ids or capabilities; those that home serves lend none either (nosuid, nodev).
 */
#ifndef GODWIT_IMAGE_ADMISSION_H
#define GODWIT_IMAGE_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/fsfile.h"
#include "image/refuse.h"
#include "ns.pb-c.h"
#include "task.pb-c.h"

#define ADMISSION_RANGES_MAX 32

struct admission_ids {
	struct {
		uint32_t from, to; /* both included */
	} v[ADMISSION_RANGES_MAX];
	size_t n; /* 0: all */
};

struct admission {
	struct admission_ids users, groups;
	bool has_capabilities;
	uint64_t capabilities; /* those that may be had */
};

/* "1000-59999 65534", commas or blanks between them. -EINVAL. */
int admission_parse_ids(const char *text, struct admission_ids *ret, struct err *e);
/* "none", "all", or names of capabilities(7) such as "cap_net_raw cap_sys_nice". -EINVAL. */
int admission_parse_capabilities(const char *text, struct admission *ret, struct err *e);

/* Once, in the worker; it must stay. NULL, and without a call: everything is admitted. */
void admission_use(const struct admission *a);
/* Only units whose home is this node: for who is at the other end of a bridge (wire/bridge.h). NULL: all. The text must stay. */
void admission_only_back_to(const char *home);
void admission_judge_unit(const char *unit, struct refusals *r);
/* Whether there is anything to judge. */
bool admission_is_limited(void);

/* With the user namespace of the thread chosen (ns_user_choose). */
void admission_judge_credentials(const Gw__Credentials *msg, int32_t tid, struct refusals *r);
/* `ns` may be NULL. */
void admission_judge_namespaces(const Gw__Namespaces *ns, struct refusals *r);
/* One that is to be made here. */
void admission_judge_file(const struct fsfile *f, struct refusals *r);

#endif
