/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_shared.h - files that a process outside has open by the same description, and so with the same position: `(program; echo end) >file`
 *
 * A description is on one host. From the move on the unit has one of its own, and the position of the other stays where it is: what is written there afterwards may
 * overwrite what the unit has written, unless the file is opened with O_APPEND. The user is told by a note.
 */
#ifndef GODWIT_IMAGE_FILE_SHARED_H
#define GODWIT_IMAGE_FILE_SHARED_H

#include "image/file_state.h"

/* Looks for such among the ancestors of the unit, from whom its processes have them, while the duplicates are held. `files`: for their names. */
void fdtable_note_shared(const struct fdtable *t, const struct fsfile_table *files);

#endif
