/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tree.h - members of the victims that are several processes; see tree.c */
#ifndef GODWIT_VICTIM_TREE_H
#define GODWIT_VICTIM_TREE_H

#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "victim.h"

#define V_TREE 0u
#define ASK SIGHUP /* "look at yourself, and end" */
#define PROT_RW (PROT_READ | PROT_WRITE)

/* Forks a member, which has ASK blocked and handled and runs `run`, and waits until it has called member_ready. */
pid_t member_fork(void (*run)(int told), bool wait);
void member_handle(void);
void member_ready(int told);
/* Until it is asked. */
void member_wait(void);
/* Who it is, as a line of text. */
void member_snapshot(struct text *t);
/* Ends the process with a report if something has failed. */
void member_fail(const char *who);
/* Asks a child, and expects it to end with 0. */
void member_ask(const char *who, pid_t pid);
void member_expect_end(const char *who, pid_t pid, int expected_status);

#endif
