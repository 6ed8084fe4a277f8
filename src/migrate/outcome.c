// SPDX-License-Identifier: LGPL-2.1-or-later
/* outcome.c - the destination's record of the commit; see outcome.h */
#include "migrate/outcome.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/util.h"
#include "migrate/registry.h"
#include "node.pb-c.h"
#include "wire/conn.h"
#include "wire/frame.h"

#define ANSWER_MAX_BYTES 512
#define KEEP_S 86400

static char directory[PATH_MAX - 64] = OUTCOME_DEFAULT_DIRECTORY;

void outcome_use_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

const char *outcome_name(enum outcome outcome)
{
	static const char *const names[] = { "unknown", "pending", "aborted", "committed" };

	return (size_t)outcome < ARRAY_SIZE(names) ? names[outcome] : "?";
}

static void record_path(char path[PATH_MAX], const uint8_t id[HELLO_MIG_ID_BYTES])
{
	int n = snprintf(path, PATH_MAX, "%s/", directory);
	size_t i;

	for (i = 0; i < HELLO_MIG_ID_BYTES; i++)
		n += snprintf(path + n, (size_t)(PATH_MAX - n), "%02x", id[i]);
}

int outcome_begin(const uint8_t mig_id[HELLO_MIG_ID_BYTES], struct err *e)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	cleanup_close int fd = -1;
	char path[PATH_MAX];
	int r = registry_make_directory(directory, 0700, e);

	if (r < 0)
		return r;
	record_path(path, mig_id);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (fcntl(fd, F_SETLK, &lock) < 0)
		return err_sys(e, -errno, "%s: lock", path);
	if (pwrite(fd, "P", 1, 0) != 1)
		return err_sys(e, errno ? -errno : -EIO, "%s: write", path);
	return take_fd(&fd);
}

int outcome_commit(int fd, struct err *e)
{
	return pwrite(fd, "C", 1, 0) == 1 ? 0 : err_sys(e, errno ? -errno : -EIO, "recording the commit");
}

void outcome_forget(const uint8_t mig_id[HELLO_MIG_ID_BYTES], int fd)
{
	char path[PATH_MAX];

	record_path(path, mig_id);
	unlink(path);
	close_fdp(&fd);
}

/* Looks at the lock first: when nobody holds it, the byte that is read afterwards is final. */
static int read_record(int fd, enum outcome *ret, struct err *e)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char state = 0;

	if (fcntl(fd, F_GETLK, &lock) < 0)
		return err_sys(e, -errno, "F_GETLK");
	if (pread(fd, &state, 1, 0) < 0)
		return err_sys(e, -errno, "read");
	if (state == 'C')
		*ret = OUTCOME_COMMITTED;
	else
		*ret = lock.l_type == F_UNLCK ? OUTCOME_ABORTED : OUTCOME_PENDING;
	return 0;
}

int outcome_query(const uint8_t mig_id[HELLO_MIG_ID_BYTES], enum outcome *ret, struct err *e)
{
	cleanup_close int fd = -1;
	char path[PATH_MAX];

	record_path(path, mig_id);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		*ret = OUTCOME_UNKNOWN;
		return 0;
	}
	return fd < 0 ? err_sys(e, -errno, "%s", path) : read_record(fd, ret, e);
}

int outcome_answer(int fd, const uint8_t mig_id[HELLO_MIG_ID_BYTES], struct err *e)
{
	Gw__Answer answer = GW__ANSWER__INIT;
	uint8_t payload[ANSWER_MAX_BYTES];
	enum outcome outcome = OUTCOME_UNKNOWN;
	Gw__Hello self;
	int r = outcome_query(mig_id, &outcome, e);

	if (r < 0)
		return r;
	hello_fill(&self);
	answer.outcome = outcome;
	answer.boot_id = self.boot_id;
	if (gw__answer__get_packed_size(&answer) > sizeof(payload))
		return err_set(e, -EMSGSIZE, "answer");
	return frame_send(fd, FRAME_ANSWER, payload, gw__answer__pack(&answer, payload), e);
}

void outcome_clean(void)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;

	while (d && (item = readdir(d))) {
		cleanup_close int fd = openat(dirfd(d), item->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		enum outcome outcome = OUTCOME_UNKNOWN;
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_mtime > time(NULL) - KEEP_S)
			continue;
		if (read_record(fd, &outcome, NULL) < 0 || outcome != OUTCOME_ABORTED || fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type != F_UNLCK)
			continue;
		unlinkat(dirfd(d), item->d_name, 0);
	}
}

int outcome_answer_decode(const void *data, size_t len, enum outcome *ret, char ret_boot_id[OUTCOME_BOOT_ID_MAX], struct err *e)
{
	Gw__Answer *answer = gw__answer__unpack(NULL, len, data);
	bool valid = answer && answer->outcome <= OUTCOME_COMMITTED && strnlen(answer->boot_id, OUTCOME_BOOT_ID_MAX) < OUTCOME_BOOT_ID_MAX;

	if (valid) {
		*ret = (enum outcome)answer->outcome;
		snprintf(ret_boot_id, OUTCOME_BOOT_ID_MAX, "%s", answer->boot_id);
	}
	if (answer)
		gw__answer__free_unpacked(answer, NULL);
	return valid ? 0 : err_set(e, -EPROTO, "expected an answer about a migration, got %zu bytes that are none", len);
}

int outcome_ask(const struct sockaddr_in *to, const Gw__Hello *self, int timeout_ms, enum outcome *ret, char ret_boot_id[OUTCOME_BOOT_ID_MAX],
		struct err *e)
{
	cleanup_close int fd = conn_connect(to, timeout_ms, e);
	cleanup_frame struct frame frame = { 0 };
	Gw__Hello hello = *self;
	int r;

	if (fd < 0)
		return fd;
	hello.role = ROLE_ASK;
	r = hello_send(fd, &hello, e);
	if (r >= 0)
		r = frame_recv_expect(fd, FRAME_ANSWER, &frame, ANSWER_MAX_BYTES, timeout_ms, e);
	return r < 0 ? r : outcome_answer_decode(frame.payload, frame.len, ret, ret_boot_id, e);
}
