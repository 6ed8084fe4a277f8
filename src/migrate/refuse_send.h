/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* refuse_send.h - the destination's answer that it does not take a unit: FRAME_REFUSE, which refuse_decode() of decode.h reads */
#ifndef GODWIT_MIGRATE_REFUSE_SEND_H
#define GODWIT_MIGRATE_REFUSE_SEND_H

#include "image/refuse.h"

/* Sends the reasons, of which there is one at least; of more than REFUSE_REASONS_MAX the first. Returns -EPERM with the first in *e, or the error that kept them from being sent. */
int refusals_send(int fd, const struct refusals *r, struct err *e);

#endif
