/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_refuse.h - what kind of descriptor something is, and the words for those that cannot move */
#ifndef GODWIT_IMAGE_FILE_REFUSE_H
#define GODWIT_IMAGE_FILE_REFUSE_H

#include <stdbool.h>

#include "image/file_look.h"
#include "image/refuse.h"

/* The kind from link, stat and flags; GW__FD_KIND__FD_CLOSED, and a refusal added, when it cannot move. */
Gw__FdKind fd_classify(const struct fd_look *look, uint32_t flags, struct refusals *refusals);

#endif
