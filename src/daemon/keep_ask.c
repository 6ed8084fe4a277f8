// SPDX-License-Identifier: GPL-2.0-or-later
/* keep_ask.c - asking nodes that keep copies, and sending them some; see keep.h */
#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/util.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/keep_store.h"
#include "wire/conn.h"

#define CONNECT_MS 1000
#define STORED_MS 60000 /* it reads all of the image, writes it to the disk, and asks whether it could restore it */
#define GO_ON_MS 5000

static char run_text[KEEP_RUN_MAX];

static int make_run(const char *path, struct err *e)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	uint64_t number[2];

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (getrandom(number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return err_sys(e, -errno, "random numbers");
	snprintf(run_text, sizeof(run_text), "%016llx%016llx", (unsigned long long)number[0], (unsigned long long)number[1]);
	return write(fd, run_text, strlen(run_text)) == (ssize_t)strlen(run_text) ? 0 : err_sys(e, -EIO, "%s", path);
}

int keep_init(const char *run_directory, const char *node, struct err *e)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	ssize_t n;

	keep_store_use(node);
	snprintf(path, sizeof(path), "%s/run", run_directory);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? make_run(path, e) : err_sys(e, -errno, "%s", path);
	n = read(fd, run_text, sizeof(run_text) - 1);
	run_text[MAX(n, 0)] = 0;
	return *run_text ? 0 : err_set(e, -EBADMSG, "%s is empty: remove it", path);
}

const char *keep_run(void)
{
	static char text[KEEP_RUN_MAX];

	snprintf(text, sizeof(text), "%.32s%04x", run_text, fence_epoch() & 0xffff);
	return text;
}

void keep_key(const struct registry_entry *entry, char key[KEEP_UNIT_MAX])
{
	snprintf(key, KEEP_UNIT_MAX, "%s@%s", entry->unit, entry->protection.id);
}

static int open_question(const struct daemon *d, const struct sockaddr_in *address, const struct keep_question *q, struct err *e)
{
	cleanup_close int fd = conn_connect(address, CONNECT_MS, e);
	cleanup_free void *packed = NULL;
	size_t len;
	int r;

	if (fd < 0)
		return fd;
	packed = keep_question_encode(q, &len);
	r = packed ? hello_ask(fd, ROLE_KEEP, d->config.name, e) : err_sys(e, -ENOMEM, "a question");
	if (r == 0)
		r = frame_send(fd, KEEP_FRAME, packed, len, e);
	return r < 0 ? r : take_fd(&fd);
}

static int read_answer(int fd, int timeout_ms, struct keep_answer *ret, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	int r = frame_recv_expect(fd, KEEP_ANSWER_FRAME, &f, KEEP_ANSWER_BYTES_MAX, timeout_ms, e);

	return r < 0 ? r : keep_answer_decode(f.payload, f.len, ret, e);
}

int keep_ask(const struct daemon *d, const struct sockaddr_in *address, const struct keep_question *q, int timeout_ms, struct keep_answer *ret, struct err *e)
{
	cleanup_close int fd = open_question(d, address, q, e);

	return fd < 0 ? fd : read_answer(fd, timeout_ms, ret, e);
}

static int send_image(int fd, int image, uint64_t bytes, struct err *e)
{
	cleanup_free uint8_t *buffer = malloc(KEEP_DATA_BYTES_MAX);

	if (!buffer)
		return err_sys(e, -ENOMEM, "an image");
	while (bytes) {
		ssize_t n = read(image, buffer, MIN(bytes, KEEP_DATA_BYTES_MAX));
		int r;

		if (n <= 0)
			return err_sys(e, n ? -errno : -EIO, "the image");
		r = frame_send(fd, KEEP_DATA_FRAME, buffer, (size_t)n, e);
		if (r < 0)
			return r;
		bytes -= (uint64_t)n;
	}
	return 0;
}

int keep_send(const struct daemon *d, const struct sockaddr_in *address, struct keep_question *q, const char *image, struct keep_answer *ret, struct err *e)
{
	cleanup_close int file = open(image, O_RDONLY | O_CLOEXEC), fd = -1;
	struct stat st;
	int r;

	if (file < 0 || fstat(file, &st) < 0)
		return err_sys(e, -errno, "%s", image);
	q->bytes = (uint64_t)st.st_size;
	fd = open_question(d, address, q, e);
	if (fd < 0)
		return fd;
	r = read_answer(fd, GO_ON_MS, ret, e);
	if (r < 0 || ret->verdict != KEEP_YES)
		return r;
	keep_answer_free(ret);
	r = send_image(fd, file, q->bytes, e);
	return r < 0 ? r : read_answer(fd, STORED_MS, ret, e);
}
