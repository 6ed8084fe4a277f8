/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_link.c - numbered messages of a file relay; see files_link.h */
#include "home/files_link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

#define ACK_EVERY 32u /* messages that have no answer (FORGET) are acknowledged so often */

/* One message with its header, as it goes over a connection. */
struct files_kept {
	struct files_kept *next;
	uint64_t seq;
	size_t len;
	uint8_t bytes[];
};

#define HEAD (FRAME_HEADER_BYTES + 16)

static void put_u64(uint8_t *p, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

static void put_word(struct files_link *l, uint16_t type)
{
	frame_header_encode(l->word, type, 0, 8);
	put_u64(l->word + FRAME_HEADER_BYTES, l->handled);
	l->word_len = sizeof(l->word);
	l->word_done = 0;
	l->unsaid = 0;
}

void files_link_detach(struct files_link *l)
{
	close_fdp(&l->fd);
	frame_reader_free(&l->reader);
	l->reader = (struct frame_reader){ 0 };
	l->resumed = false;
	l->unsent = NULL;
	l->unsent_done = l->word_len = l->word_done = 0;
}

void files_link_attach(struct files_link *l, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	files_link_detach(l);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	l->fd = fd;
	put_word(l, FRAME_FILES_RESUME);
}

int files_link_send(struct files_link *l, const struct iovec *iov, size_t n)
{
	struct files_kept *k;
	size_t len = HEAD;

	for (size_t i = 0; i < n; i++)
		len += iov[i].iov_len;
	k = malloc(sizeof(*k) + len);
	if (!k)
		return -ENOMEM;
	*k = (struct files_kept){ .seq = ++l->seq, .len = len };
	frame_header_encode(k->bytes, FRAME_FILES_MESSAGE, 0, (uint32_t)(len - FRAME_HEADER_BYTES));
	put_u64(k->bytes + FRAME_HEADER_BYTES, k->seq);
	len = HEAD;
	for (size_t i = 0; i < n; i++) {
		memcpy(k->bytes + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	if (l->last)
		l->last->next = k;
	else
		l->first = k;
	l->last = k;
	if (l->resumed && !l->unsent)
		l->unsent = k;
	return 0;
}

/* What is on its way is not dropped before it has gone: the other side has not handled it on this connection. */
static void drop_until(struct files_link *l, uint64_t handled)
{
	while (l->first && l->first->seq <= handled && !(l->first == l->unsent && l->unsent_done)) {
		struct files_kept *k = l->first;

		l->first = k->next;
		if (!l->first)
			l->last = NULL;
		if (l->unsent == k)
			l->unsent = k->next;
		free(k);
	}
}

static int take(struct files_link *l, const struct frame *f, void (*handle)(void *arg, const uint8_t *data, size_t len), void *arg, struct err *e)
{
	uint64_t seq;

	if (f->type == FRAME_ERROR)
		return frame_error_decode(f, e);
	if ((f->type == FRAME_FILES_RESUME || f->type == FRAME_FILES_ACK) && f->len == 8) {
		drop_until(l, get_u64(f->payload));
		if (f->type == FRAME_FILES_RESUME) {
			l->resumed = true;
			l->unsent = l->first;
		}
		return 0;
	}
	if (f->type != FRAME_FILES_MESSAGE || f->len < 16 || !l->resumed)
		return err_set(e, -EPROTO, "frame type %u of %u bytes in a file relay", f->type, f->len);
	seq = get_u64(f->payload);
	drop_until(l, get_u64(f->payload + 8));
	if (seq <= l->handled)
		return 0; /* handled before the connection broke */
	if (seq != l->handled + 1)
		return err_set(e, -EPROTO, "message %llu of a file relay after %llu", (unsigned long long)seq, (unsigned long long)l->handled);
	l->handled = seq;
	l->unsaid++;
	handle(arg, f->payload + 16, f->len - 16);
	return 0;
}

int files_link_input(struct files_link *l, void (*handle)(void *arg, const uint8_t *data, size_t len), void *arg, struct err *e)
{
	int fd = l->fd;

	while (l->fd == fd && fd >= 0) {
		cleanup_frame struct frame f = { 0 };
		int ret = frame_reader_step(&l->reader, l->fd, FILES_MESSAGE_MAX, &f, e);

		if (ret > 0)
			ret = take(l, &f, handle, arg, e);
		else
			return ret;
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Returns 1 when all has gone, 0 when the connection takes no more. */
static int put(int fd, const uint8_t *data, size_t len, size_t *done, struct err *e)
{
	while (*done < len) {
		ssize_t n = send(fd, data + *done, len - *done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return err_sys(e, -errno, "sending to the other side of a file relay");
		*done += (size_t)n;
	}
	return 1;
}

int files_link_output(struct files_link *l, struct err *e)
{
	int ret = 1;

	while (ret > 0 && l->fd >= 0) {
		struct files_kept *k = l->unsent;

		if (!l->unsent_done && l->word_done == l->word_len && l->resumed && !k && l->unsaid >= ACK_EVERY)
			put_word(l, FRAME_FILES_ACK);
		if (!l->unsent_done && l->word_done < l->word_len) {
			ret = put(l->fd, l->word, l->word_len, &l->word_done, e);
		} else if (k && l->resumed) {
			if (!l->unsent_done) {
				put_u64(k->bytes + FRAME_HEADER_BYTES + 8, l->handled);
				l->unsaid = 0;
			}
			ret = put(l->fd, k->bytes, k->len, &l->unsent_done, e);
			if (ret > 0) {
				l->unsent = k->next;
				l->unsent_done = 0;
			}
		} else {
			return 0;
		}
	}
	return ret < 0 ? ret : 0;
}

bool files_link_wants_out(const struct files_link *l)
{
	return l->fd >= 0 && (l->word_done < l->word_len || (l->resumed && (l->unsent || l->unsaid >= ACK_EVERY)));
}

bool files_link_settled(const struct files_link *l)
{
	return !l->first;
}
