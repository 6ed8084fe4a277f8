// SPDX-License-Identifier: GPL-2.0-or-later
/* bootstrap.c - see bootstrap.h */
#include "cli/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"

#define BYTES_MAX (256u << 20)

/* Of the C library, and what belongs to it. */
static bool stays(const char *name)
{
	static const char *const names[] = { "ld-linux", "libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "libresolv.so", "linux-vdso", "libnss_", "libutil.so" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strncmp(name, names[i], strlen(names[i])))
			return true;
	return false;
}

static int find_daemon(const char *own, char ret[PATH_MAX], struct err *e)
{
	static const char *const places[] = { "godwitd", "../sbin/godwitd", "../daemon/godwitd" }; /* beside it, installed, where it has been built */
	size_t len = (size_t)(strrchr(own, '/') - own);

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(ret, PATH_MAX, "%.*s/%s", (int)MIN(len, (size_t)3000), own, places[i]);
		if (access(ret, X_OK) == 0)
			return 0;
	}
	return err_set(e, -ENOENT, "there is no godwitd beside %s that could be copied", own);
}

static int link_at(const char *directory, const char *below, const char *name, const char *to, struct err *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/%s", directory, below, name);
	return symlink(to, path) < 0 && errno != EEXIST ? err_sys(e, -errno, "%s", path) : 0;
}

static pid_t run_to(char *const *words, int *ret_fd)
{
	int pipe[2];
	pid_t pid;

	if (pipe2(pipe, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		dup2(pipe[1], STDOUT_FILENO);
		execvp(words[0], words);
		_exit(127);
	}
	close(pipe[1]);
	*ret_fd = pipe[0];
	if (pid < 0)
		close(pipe[0]);
	return pid;
}

static int ended_well(pid_t pid, const char *what, struct err *e)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err_set(e, -EIO, "%s failed", what);
}

/* "	libgnutls.so.30 => /lib/x86_64-linux-gnu/libgnutls.so.30 (0x...)" */
static int link_libraries(const char *directory, const char *program, struct err *e)
{
	char *words[] = { (char *)"ldd", (char *)(uintptr_t)program, NULL };
	char name[256], path[1024];
	cleanup_free char *line = NULL;
	cleanup_fclose FILE *f = NULL;
	size_t size = 0;
	int fd, r = 0;
	pid_t pid = run_to(words, &fd);

	if (pid < 0 || !(f = fdopen(fd, "r")))
		return err_sys(e, -errno, "ldd");
	while (r == 0 && getline(&line, &size, f) > 0)
		if (sscanf(line, " %255s => %1023s", name, path) == 2 && path[0] == '/' && !strchr(name, '/') && !stays(name))
			r = link_at(directory, "lib", name, path, e);
	return ended_well(pid, "ldd", e) < 0 ? e->code : r;
}

static int lay_out(const char *directory, struct err *e)
{
	char own[PATH_MAX], daemon[PATH_MAX], path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);

	if (n <= 0)
		return err_sys(e, -errno, "/proc/self/exe");
	own[n] = 0;
	if (find_daemon(own, daemon, e) < 0)
		return e->code;
	snprintf(path, sizeof(path), "%.100s/bin", directory);
	if (mkdir(path, 0700) < 0)
		return err_sys(e, -errno, "%s", path);
	snprintf(path, sizeof(path), "%.100s/lib", directory);
	if (mkdir(path, 0700) < 0)
		return err_sys(e, -errno, "%s", path);
	if (link_at(directory, "bin", "godwit", own, e) < 0 || link_at(directory, "bin", "godwitd", daemon, e) < 0 || link_libraries(directory, own, e) < 0)
		return e->code;
	return link_libraries(directory, daemon, e);
}

static int read_all(int fd, struct bootstrap *b, struct err *e)
{
	size_t size = 0;
	ssize_t n;

	do {
		if (b->len + BOOTSTRAP_BLOCK > size) {
			char *grown = size < BYTES_MAX ? realloc(b->data, size + (4u << 20)) : NULL;

			if (!grown)
				return err_set(e, -ENOMEM, "the programs are too large");
			b->data = grown;
			size += 4u << 20;
		}
		n = read(fd, b->data + b->len, BOOTSTRAP_BLOCK);
		b->len += (size_t)MAX(n, 0);
	} while (n > 0 || (n < 0 && errno == EINTR));
	b->blocks = (b->len + BOOTSTRAP_BLOCK - 1) / BOOTSTRAP_BLOCK;
	if (b->blocks * BOOTSTRAP_BLOCK > size)
		return err_set(e, -ENOMEM, "the programs are too large");
	memset(b->data + b->len, 0, b->blocks * BOOTSTRAP_BLOCK - b->len);
	b->len = b->blocks * BOOTSTRAP_BLOCK;
	return 0;
}

static void remove_directory(const char *directory)
{
	char *words[] = { (char *)"rm", (char *)"-rf", (char *)"--", (char *)(uintptr_t)directory, NULL };
	int fd;
	pid_t pid = run_to(words, &fd);

	if (pid > 0) {
		close(fd);
		(void)ended_well(pid, "rm", NULL);
	}
}

int bootstrap_pack(struct bootstrap *ret, struct err *e)
{
	char directory[] = "/tmp/godwit-pack-XXXXXX";
	char *words[] = { (char *)"tar", (char *)"-chf", (char *)"-", (char *)"-C", directory, (char *)"bin", (char *)"lib", NULL };
	struct bootstrap b = { 0 };
	pid_t pid = -1;
	int r, fd;

	if (!mkdtemp(directory))
		return err_sys(e, -errno, "%s", directory);
	r = lay_out(directory, e);
	if (r == 0 && (pid = run_to(words, &fd)) < 0)
		r = err_sys(e, -errno, "tar");
	if (r == 0) {
		r = read_all(fd, &b, e);
		close(fd);
		if (ended_well(pid, "tar", r == 0 ? e : NULL) < 0 && r == 0)
			r = e ? e->code : -EIO;
	}
	remove_directory(directory);
	if (r == 0)
		*ret = b;
	else
		free(b.data);
	return r;
}

void bootstrap_mark(void)
{
	const char *directory = getenv("GODWIT_BOOTSTRAP");
	char path[PATH_MAX];
	int fd;

	if (!directory)
		return;
	snprintf(path, sizeof(path), "%s/used", directory);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	close_fdp(&fd);
}
