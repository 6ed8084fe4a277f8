/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_refuse.h - what kind of descriptor something is, and the words for those that cannot move */
#ifndef GODWIT_IMAGE_FILE_REFUSE_H
#define GODWIT_IMAGE_FILE_REFUSE_H

#include <stdbool.h>

#include "image/file_look.h"
#include "image/refuse.h"

/* The kind from link, stat and flags; GW__FD_KIND__FD_CLOSED, and a refusal added, when it cannot move. */
Gw__FdKind fd_classify(const struct fd_look *look, uint32_t flags, struct refusals *refusals);

/*
 * Whether the path that it gets on the other side leads to what is open: nothing does to a mount that was never put anywhere (fsmount(2), open_tree(2)) or has been
 * taken away (umount -l), of which the kernel shows the path within it, and nothing to what lies under a mount. FD_REFUSED, and a refusal added; -EAGAIN: it was
 * renamed meanwhile.
 */
int fd_check_path(const struct fd_look *look, const char *placed, struct refusals *refusals, struct err *e);

#endif
