/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* wish.h - what a program asks godwitd for, by its unix socket (docs/wire.md): lines of JSON, of which only a few words are read */
#ifndef GODWIT_PORTABLE_WISH_H
#define GODWIT_PORTABLE_WISH_H

/* "MIGRATION HOST": whether the program goes on there. 1: yes, 0: no, and it never will; < 0: nobody knows yet. */
int wish_outcome(const char *migration);
/* The move that the program has asked for has come to nothing. */
void wish_forget(void);

#endif
