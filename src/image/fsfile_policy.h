/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsfile_policy.h - what the user wants to happen with files that the destination lacks, or has in another version (--files)
 *
 *   auto         those that it writes to are served from home (view.h), with the whole directory, mount or tree that they are in; of what is only read or mapped the
 *                contents are sent (fsfile.h: STAND_IN). What cannot be served is treated as by copy
 *   copy         contents are sent (STAND_IN, CREATE); a different file is never overwritten
 *   relay        all are served from home
 *   refuse       the unit is refused, and stays where it is
 *
 * What has no name any more, memory files and shared memory travel with every policy.
 */
#ifndef GODWIT_IMAGE_FSFILE_POLICY_H
#define GODWIT_IMAGE_FSFILE_POLICY_H

#include "image/fsfile.h"

enum fsfile_policy { FSFILE_POLICY_AUTO, FSFILE_POLICY_COPY, FSFILE_POLICY_REFUSE, FSFILE_POLICY_RELAY, FSFILE_POLICIES };

const char *fsfile_policy_name(enum fsfile_policy policy);
int fsfile_policy_parse(const char *name, enum fsfile_policy *ret, struct err *e);

/* Destination: whether a file that home could serve (f->servable) is to be served, instead of what fsfile_match has answered. */
bool fsfile_policy_wants_home(enum fsfile_policy policy, const struct fsfile *f, const struct fsfile_answer *answer);
/* Destination: judges an answer of fsfile_match; one that the policy forbids becomes REFUSE, with a refusal. */
void fsfile_policy_apply(enum fsfile_policy policy, const struct fsfile *f, struct fsfile_answer *answer, struct refusals *refusals);

#endif
