/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* answer.h - what is in godwitd's answers, for who compares one with the next */
#ifndef GODWIT_ASK_ANSWER_H
#define GODWIT_ASK_ANSWER_H

#include <jansson.h>
#include <stdbool.h>

/* A member as text; "": it is absent, or none. */
const char *answer_text(const json_t *o, const char *key);
/* The objects of a list by their member `key`: a new object. */
json_t *answer_by_name(const json_t *list, const char *key);
/* Whether the node is among the "silent" of an answer: those that have not said which units they have. */
bool answer_is_silent(const json_t *silent, const char *node);

#endif
