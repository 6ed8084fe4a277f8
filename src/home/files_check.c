/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_check.c - what requests of a file relay must look like; see files_check.h */
#include "home/files_check.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <string.h>

#include "base/util.h"

#define MINOR_LEAST 31u           /* of FUSE 7: older requests have other sizes */
#define SETXATTR_BYTES 8u         /* without FUSE_SETXATTR_EXT, which is not asked for */
#define ANSWER_BYTES_MAX (1u << 20)

enum node_rule {
	NODE,       /* one that is known */
	ROOT_TOO,
	NO_NODE,
};

enum names_rule {
	NO_NAME,
	ONE,        /* in the directory that the node is */
	TWO,
	LINK_NAME,  /* the second is what a link says */
	ATTRIBUTE,  /* no file's name */
};

struct shape {
	bool served;
	uint8_t node;
	uint8_t names;
	enum files_handle handle; /* of the number that the body begins with */
	uint16_t bytes;
};

#define FILE_OF(type) { true, NODE, NO_NAME, FILES_HANDLE_FILE, sizeof(type) }
#define DIRECTORY_OF(type) { true, ROOT_TOO, NO_NAME, FILES_HANDLE_DIRECTORY, sizeof(type) }

static const struct shape shapes[] = {
	[FUSE_LOOKUP] = { true, ROOT_TOO, ONE, 0, 0 },
	[FUSE_FORGET] = { true, NO_NODE, NO_NAME, 0, sizeof(struct fuse_forget_in) },
	[FUSE_GETATTR] = { true, ROOT_TOO, NO_NAME, 0, sizeof(struct fuse_getattr_in) },
	[FUSE_SETATTR] = { true, NODE, NO_NAME, 0, sizeof(struct fuse_setattr_in) },
	[FUSE_READLINK] = { true, NODE, NO_NAME, 0, 0 },
	[FUSE_SYMLINK] = { true, NODE, LINK_NAME, 0, 0 },
	[FUSE_MKNOD] = { true, NODE, ONE, 0, sizeof(struct fuse_mknod_in) },
	[FUSE_MKDIR] = { true, NODE, ONE, 0, sizeof(struct fuse_mkdir_in) },
	[FUSE_UNLINK] = { true, NODE, ONE, 0, 0 },
	[FUSE_RMDIR] = { true, NODE, ONE, 0, 0 },
	[FUSE_RENAME] = { true, NODE, TWO, 0, sizeof(struct fuse_rename_in) },
	[FUSE_LINK] = { true, NODE, ONE, 0, sizeof(struct fuse_link_in) },
	[FUSE_OPEN] = { true, NODE, NO_NAME, 0, sizeof(struct fuse_open_in) },
	[FUSE_READ] = FILE_OF(struct fuse_read_in),
	[FUSE_WRITE] = FILE_OF(struct fuse_write_in),
	[FUSE_STATFS] = { true, ROOT_TOO, NO_NAME, 0, 0 },
	[FUSE_RELEASE] = FILE_OF(struct fuse_release_in),
	[FUSE_FSYNC] = FILE_OF(struct fuse_fsync_in),
	[FUSE_SETXATTR] = { true, NODE, ATTRIBUTE, 0, SETXATTR_BYTES },
	[FUSE_GETXATTR] = { true, NODE, ATTRIBUTE, 0, sizeof(struct fuse_getxattr_in) },
	[FUSE_LISTXATTR] = { true, NODE, NO_NAME, 0, sizeof(struct fuse_getxattr_in) },
	[FUSE_REMOVEXATTR] = { true, NODE, ATTRIBUTE, 0, 0 },
	[FUSE_FLUSH] = FILE_OF(struct fuse_flush_in),
	[FUSE_INIT] = { true, NO_NODE, NO_NAME, 0, sizeof(struct fuse_init_in) },
	[FUSE_OPENDIR] = { true, ROOT_TOO, NO_NAME, 0, sizeof(struct fuse_open_in) },
	[FUSE_READDIR] = DIRECTORY_OF(struct fuse_read_in),
	[FUSE_RELEASEDIR] = DIRECTORY_OF(struct fuse_release_in),
	[FUSE_FSYNCDIR] = DIRECTORY_OF(struct fuse_fsync_in),
	[FUSE_GETLK] = FILE_OF(struct fuse_lk_in),
	[FUSE_SETLK] = FILE_OF(struct fuse_lk_in),
	[FUSE_SETLKW] = FILE_OF(struct fuse_lk_in),
	[FUSE_CREATE] = { true, NODE, ONE, 0, sizeof(struct fuse_create_in) },
	[FUSE_INTERRUPT] = { true, NO_NODE, NO_NAME, 0, sizeof(struct fuse_interrupt_in) },
	[FUSE_DESTROY] = { true, NO_NODE, NO_NAME, 0, 0 },
	[FUSE_IOCTL] = FILE_OF(struct fuse_ioctl_in),
	[FUSE_BATCH_FORGET] = { true, NO_NODE, NO_NAME, 0, sizeof(struct fuse_batch_forget_in) },
	[FUSE_FALLOCATE] = FILE_OF(struct fuse_fallocate_in),
	[FUSE_RENAME2] = { true, NODE, TWO, 0, sizeof(struct fuse_rename2_in) },
	[FUSE_LSEEK] = FILE_OF(struct fuse_lseek_in),
};

/* The rest of a request behind what has been looked at. */
struct rest {
	const uint8_t *at;
	size_t len;
};

/* Takes a string; NULL when it does not end. */
static const char *take_string(struct rest *r)
{
	const uint8_t *end = memchr(r->at, 0, r->len);
	const char *text = (const char *)r->at;

	if (!end)
		return NULL;
	r->len -= (size_t)(end + 1 - r->at);
	r->at = end + 1;
	return text;
}

/* Neither upwards nor further down than its directory. */
static bool is_name(const char *text)
{
	return text && *text && !strchr(text, '/') && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

static int check_names(uint8_t rule, struct rest *r)
{
	const char *text;

	if (rule == NO_NAME)
		return 0;
	text = take_string(r);
	if (rule == ATTRIBUTE ? !text || !*text : !is_name(text))
		return EINVAL;
	if (rule == TWO)
		return is_name(take_string(r)) ? 0 : EINVAL;
	return rule == LINK_NAME && !take_string(r) ? EINVAL : 0;
}

static uint32_t u32_at(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static uint64_t u64_at(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

#define FIELD32(body, type, field) u32_at((body) + offsetof(type, field))

/* What only some kinds have; `rest` is behind the names. */
static int check_kind(uint32_t opcode, const uint8_t *body, const struct rest *rest, const struct files_known *known)
{
	switch (opcode) {
	case FUSE_INIT:
		return FIELD32(body, struct fuse_init_in, major) == FUSE_KERNEL_VERSION && FIELD32(body, struct fuse_init_in, minor) >= MINOR_LEAST ? 0 : EPROTO;
	case FUSE_SETATTR:
		return !(FIELD32(body, struct fuse_setattr_in, valid) & FATTR_FH) ||
		       known->handle(u64_at(body + offsetof(struct fuse_setattr_in, fh))) == FILES_HANDLE_FILE ? 0 : EBADF;
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK: /* its other directory, or what is to get another name */
		return known->node(u64_at(body)) ? 0 : ESTALE;
	case FUSE_READ:
	case FUSE_READDIR:
		return FIELD32(body, struct fuse_read_in, size) <= ANSWER_BYTES_MAX ? 0 : EINVAL;
	case FUSE_WRITE:
		return FIELD32(body, struct fuse_write_in, size) <= rest->len ? 0 : EINVAL;
	case FUSE_SETXATTR:
		return u32_at(body) <= rest->len ? 0 : EINVAL;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		return FIELD32(body, struct fuse_getxattr_in, size) <= ANSWER_BYTES_MAX ? 0 : EINVAL;
	case FUSE_IOCTL:
		return FIELD32(body, struct fuse_ioctl_in, in_size) <= rest->len ? 0 : EINVAL;
	case FUSE_BATCH_FORGET:
		return FIELD32(body, struct fuse_batch_forget_in, count) <= rest->len / sizeof(struct fuse_forget_one) ? 0 : EINVAL;
	}
	return 0;
}

int files_request_check(const uint8_t *data, size_t len, const struct files_known *known)
{
	struct fuse_in_header head;
	struct rest rest;
	const struct shape *s;
	const uint8_t *body;
	int code;

	if (len < sizeof(head))
		return -EPROTO;
	memcpy(&head, data, sizeof(head));
	if (head.len != len)
		return -EPROTO;
	if (head.opcode >= ARRAY_SIZE(shapes) || !shapes[head.opcode].served)
		return ENOSYS;
	s = &shapes[head.opcode];
	body = data + sizeof(head);
	rest = (struct rest){ body, len - sizeof(head) };
	if (known->begun == (head.opcode == FUSE_INIT) || rest.len < s->bytes)
		return EINVAL;
	rest.at += s->bytes;
	rest.len -= s->bytes;
	if (s->node != NO_NODE && !(s->node == ROOT_TOO && head.nodeid == FUSE_ROOT_ID) && !known->node(head.nodeid))
		return ESTALE;
	if (s->handle != FILES_HANDLE_NONE && known->handle(u64_at(body)) != s->handle)
		return EBADF;
	code = check_names(s->names, &rest);
	return code ? code : check_kind(head.opcode, body, &rest, known);
}
