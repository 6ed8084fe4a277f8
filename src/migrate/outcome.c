// SPDX-License-Identifier: LGPL-2.1-or-later
/* outcome.c - the destination's record of the commit; see outcome.h */
#include "migrate/outcome.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "migrate/registry.h"
#include "node.pb-c.h"
#include "wire/conn.h"
#include "wire/frame.h"

#define ANSWER_MAX_BYTES 512
#define KEEP_S 86400
#define BYTE_PENDING "P"
#define BYTE_COMMITTED "C" /* agent/stub.c writes it, too */

/* Which byte of the record each locks. */
enum { LOCK_WORKER, LOCK_AGENT };

static char directory[PATH_MAX - 64] = OUTCOME_DEFAULT_DIRECTORY;

void outcome_use_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

_Static_assert(OUTCOME_PENDING == NEWS_ANSWER_PENDING - NEWS_ANSWER_UNKNOWN && OUTCOME_ABORTED == NEWS_ANSWER_ABORTED - NEWS_ANSWER_UNKNOWN &&
	       OUTCOME_COMMITTED == NEWS_ANSWER_COMMITTED - NEWS_ANSWER_UNKNOWN, "the protocol's numbers are in the order of agent/handover.h");

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
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_WORKER, .l_len = 1 };
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
	if (pwrite(fd, BYTE_PENDING, 1, 0) != 1)
		return err_sys(e, errno ? -errno : -EIO, "%s: write", path);
	return take_fd(&fd);
}

int outcome_share(struct batch *b, int fd, struct err *e)
{
	const struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_AGENT, .l_len = 1 };
	int ret;

	batch_call(b, "fcntl(F_SETLK)", SYS_fcntl, (uint64_t)fd, F_SETLK, batch_data(b, &lock, sizeof(lock)));
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

int outcome_commit(int fd, struct err *e)
{
	return pwrite(fd, BYTE_COMMITTED, 1, 0) == 1 ? 0 : err_sys(e, errno ? -errno : -EIO, "recording the commit");
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
	enum handover_news news;
	char state = 0;

	if (fcntl(fd, F_GETLK, &lock) < 0)
		return err_sys(e, -errno, "F_GETLK");
	if (pread(fd, &state, 1, 0) < 0)
		return err_sys(e, -errno, "read");
	news = handover_answer(state == BYTE_COMMITTED[0] ? RECORD_COMMITTED : RECORD_PENDING, lock.l_type == F_UNLCK ? RECORD_FREE : RECORD_LOCKED);
	*ret = (enum outcome)(news - NEWS_ANSWER_UNKNOWN);
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
