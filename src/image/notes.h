/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * notes.h - what the user is told beside the result: what a move has changed outside of the unit, or leaves behind there
 *
 * Nothing that the unit knows of is ever in a note: what of that cannot be carried is refused (refuse.h). One worker has one unit, and one list.
 */
#ifndef GODWIT_IMAGE_NOTES_H
#define GODWIT_IMAGE_NOTES_H

#include <stddef.h>

#define NOTES_MAX 16u
#define NOTE_MAX 256u

/* More than NOTES_MAX are dropped, and one that is there already. */
void notes_add(const char *format, ...) __attribute__((format(printf, 1, 2)));
size_t notes_count(void);
const char *notes_get(size_t i);
void notes_clear(void);

#endif
