/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bytes.h - filling bytes and string fields of image messages. Allocation failure aborts: these are small, and nothing has been touched. */
#ifndef GODWIT_IMAGE_BYTES_H
#define GODWIT_IMAGE_BYTES_H

#include <protobuf-c/protobuf-c.h>

#include "base/util.h"

static inline void *must_alloc(size_t len)
{
	void *p = calloc(1, len ? len : 1);

	if (!p)
		abort();
	return p;
}

/* Replaces the field by a copy of data. */
static inline void bytes_set(ProtobufCBinaryData *field, const void *data, size_t len)
{
	free(field->data);
	*field = (ProtobufCBinaryData){ 0 };
	if (!len)
		return;
	field->data = must_alloc(len);
	field->len = len;
	memcpy(field->data, data, len);
}

static inline void bytes_append(ProtobufCBinaryData *field, const void *data, size_t len)
{
	uint8_t *grown = realloc(field->data, field->len + len);

	if (!grown)
		abort();
	memcpy(grown + field->len, data, len);
	field->data = grown;
	field->len += len;
}

static inline void string_set(char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		abort();
	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
}

static inline bool bytes_equal(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
	return a.len == b.len && (!a.len || memcmp(a.data, b.data, a.len) == 0);
}

#endif
