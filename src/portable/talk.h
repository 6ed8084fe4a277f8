/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * talk.h - how a program with libgodwit-portable and godwitd meet
 *
 * The page. The program has a memfd named PAGE_NAME of PAGE_BYTES, mapped shared:
 *
 *	0     4 bytes, other than 0: somebody asks the program to move. godwit_point() looks at it
 *	64    lines of text: "godwit-portable 1", "program NAME", "version N", "talk FD", "machine NAME", "path PROGRAM"; then a 0
 *	8192  why the last attempt came to nothing, as the program sees it; then a 0
 *
 * godwitd finds it among the descriptors of the process, and reads and writes it by calls: it maps nothing of a stranger's.
 *
 * The talk. "talk FD" is the far end of a pair of stream sockets whose near end the program keeps. Who wants to move the program takes the far end (pidfd_getfd(2), so that the kernel's
 * rule for ptrace decides), sets the word, and writes TALK_ASK, for a program that polls. The program comes to a point, closes its own far end, and writes
 *
 *	u32 length, so many bytes of how it was started (start.c), and the state (state.h), which says its own length
 *
 * then it reads a byte: TALK_STAY and u16 length, text why: it goes on; TALK_DECIDE and u16 length, text "MIGRATION HOST": from now on the other host may have it; TALK_LEAVE: it ends.
 * When the other end is lost before TALK_DECIDE, it stays. Afterwards it stands still until godwitd, asked for the outcome of MIGRATION at HOST, knows.
 *
 * At the destination a program is started with TALK_FD_VARIABLE and TALK_RECORD_VARIABLE, numbers of descriptors: a socket, to which it writes TALK_READY when it has its state, or TALK_REFUSE, u16 length
 * and text; and from which it reads TALK_GO. When the end is lost before that, the record, a file of one byte, says whether it was meant to come: 'C'.
 * Numbers are little-endian.
 */
#ifndef GODWIT_PORTABLE_TALK_H
#define GODWIT_PORTABLE_TALK_H

#define PAGE_NAME "godwit-portable"
#define PAGE_BYTES 65536u
#define PAGE_TEXT 64u
#define PAGE_WHY 8192u
#define PAGE_WHY_BYTES 1024u
#define TALK_TEXT_MAX 1023u
#define TALK_START_MAX (1u << 20)
#define TALK_FD_VARIABLE "GODWIT_PORTABLE_TALK"
#define TALK_RECORD_VARIABLE "GODWIT_PORTABLE_RECORD"
#define TALK_STATE_VARIABLE "GODWIT_PORTABLE_STATE"

enum talk { TALK_ASK = 'A', TALK_STAY = 'S', TALK_DECIDE = 'D', TALK_LEAVE = 'L', TALK_READY = 'R', TALK_REFUSE = 'N', TALK_GO = 'G' };

#endif
