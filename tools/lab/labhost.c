/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * labhost.c - command table and shared helpers of labhost
 *
 * usage: labhost init|exec|kill STATE_DIR PREFIX NAME [ARGUMENT...]
 */
#include "labhost.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "base/util.h"

void lab_die(const struct labhost *host, int errnum, const char *format, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);
	fprintf(stderr, "lab: %s: %s%s%s\n", host->name, message, errnum ? ": " : "", errnum ? strerror(errnum) : "");
	_exit(LABHOST_FAILED);
}

unsigned long long lab_start_time(pid_t pid)
{
	cleanup_fclose FILE *f = NULL;
	unsigned long long start = 0;
	char path[64], line[1024];
	char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return 0;
	p = strrchr(line, ')');         /* the name before it may hold anything */
	if (!p)
		return 0;
	for (int field = 2; field < 22 && p; field++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, " %llu", &start) != 1)
		return 0;
	return start;
}

int lab_open_init(const struct labhost *host, pid_t *ret_pid)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_close int pidfd = -1;
	unsigned long long start;
	struct pollfd ended;
	char path[512];
	int pid;

	snprintf(path, sizeof(path), "%s/hosts/%s/init", host->state, host->name);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%d %llu", &pid, &start) != 2)
		return -1;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || lab_start_time(pid) != start)
		return -1;
	ended = (struct pollfd){ .fd = pidfd, .events = POLLIN };
	if (poll(&ended, 1, 0) != 0)
		return -1;
	*ret_pid = pid;
	return take_fd(&pidfd);
}

int lab_open_netns(const struct labhost *host, const char *what)
{
	char path[512];

	snprintf(path, sizeof(path), "/run/netns/%s-%s", host->prefix, what);
	return open(path, O_RDONLY | O_CLOEXEC);
}

bool lab_cgroup(const struct labhost *host, char *path, size_t size)
{
	cleanup_fclose FILE *f = fopen("/proc/self/mounts", "re");
	char line[4096], point[4096], type[64];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %4095s %63s", point, type) != 2 || strcmp(type, "cgroup2") != 0)
			continue;
		return snprintf(path, size, "%s/godwit-lab-%s/%s", point, host->prefix, host->name) < (int)size;
	}
	return false;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct labhost *host, int argc, char **argv);
	} commands[] = {
		{ "init", host_init },
		{ "exec", host_exec },
		{ "kill", host_kill },
	};
	struct labhost host;

	for (size_t i = 0; argc >= 5 && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		host = (struct labhost){ .state = argv[2], .prefix = argv[3], .name = argv[4] };
		return commands[i].run(&host, argc - 5, argv + 5);
	}
	fprintf(stderr, "usage: labhost init|exec|kill STATE_DIR PREFIX NAME [ARGUMENT...]\n");
	return LABHOST_FAILED;
}
