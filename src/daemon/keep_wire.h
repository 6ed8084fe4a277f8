/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keep_wire.h - the messages about copies of protected units (wire/proto/keep.proto) to checked values, and back */
#ifndef GODWIT_DAEMON_KEEP_WIRE_H
#define GODWIT_DAEMON_KEEP_WIRE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "daemon/keep_rules.h"

#define KEEP_FRAME 80u       /* of FRAME_*: Keep, */
#define KEEP_DATA_FRAME 81u  /* some of an image, */
#define KEEP_ANSWER_FRAME 82u /* KeepAnswer */
#define KEEP_QUESTION_BYTES_MAX 2048u
#define KEEP_DATA_BYTES_MAX (1u << 20)
#define KEEP_ANSWER_BYTES_MAX (4u << 20)
#define KEEP_ENTRIES_MAX 4096u
#define KEEP_WHY_MAX 600

struct keep_answer {
	enum keep_verdict verdict;
	char why[KEEP_WHY_MAX];
	char to[HELLO_NAME_MAX + 1];
	pid_t pid;
	char run[KEEP_RUN_MAX];
	struct keep_record *entries; /* the answer's */
	size_t n_entries;
};

/* malloc'ed; NULL: no memory. */
void *keep_question_encode(const struct keep_question *q, size_t *ret_len);
/* -EPROTO. */
int keep_question_decode(const void *data, size_t len, struct keep_question *ret, struct err *e);
void *keep_answer_encode(const struct keep_answer *a, size_t *ret_len);
/* -EPROTO; keep_answer_free what comes out. */
int keep_answer_decode(const void *data, size_t len, struct keep_answer *ret, struct err *e);
void keep_answer_free(struct keep_answer *a);

/* "HOME:PID@ID", or, with `plain`, also "HOME:PID". */
bool keep_key_valid(const char *key, bool plain);
/* Its name: the length of what is before "@". */
size_t keep_name_length(const char *key);

#endif
