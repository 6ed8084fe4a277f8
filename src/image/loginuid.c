/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* loginuid.c - see loginuid.h */
#include "image/loginuid.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/ns_user.h"

#define LOGINUID "/proc/thread-self/loginuid"

/* 0: none, or nobody keeps them here. */
static uint32_t read_plus_1(const char *path)
{
	cleanup_fclose FILE *f = fopen(path, "re");
	uint32_t value;

	return f && fscanf(f, "%u", &value) == 1 ? value + 1 : 0;
}

void loginuid_check(pid_t pid, pid_t tid, struct refusals *r)
{
	char own[64], theirs[64];

	snprintf(own, sizeof(own), "/proc/%d/task/%d/loginuid", pid, tid);
	snprintf(theirs, sizeof(theirs), "/proc/%d/loginuid", pid);
	if (read_plus_1(own) != read_plus_1(theirs))
		refusals_add(r, "task.loginuid", "its login id is not that of its process", "let the program set it before it makes threads", "thread %d", tid);
}

static bool may_change(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_AUDIT_CONTROL & 1);
}

void loginuid_validate_here(const Gw__Process *msg, struct refusals *r)
{
	uint32_t own = read_plus_1(LOGINUID);

	if (msg->loginuid_plus_1 == own)
		return;
	if (access(LOGINUID, F_OK) < 0)
		refusals_add(r, "task.loginuid", "the destination's kernel has no auditing", "move it to a host that has", "login id %u",
			     msg->loginuid_plus_1 - 1);
	else if (own && !may_change())
		refusals_add(r, "task.loginuid", "godwitd on the destination has one of its own and may not change it",
			     "let the system's service manager start the destination's godwitd", "login id %u", msg->loginuid_plus_1 - 1);
}

int loginuid_set(struct batch *b, const Gw__Process *msg, struct err *e)
{
	uint32_t was = ns_user_choose(msg->n_namespaces ? msg->namespaces[NS_USER] : 0);
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", msg->loginuid_plus_1 ? ns_user_sees(false, msg->loginuid_plus_1 - 1) : UINT32_MAX), ret;
	int64_t fd;

	ns_user_choose(was);
	if (msg->loginuid_plus_1 == read_plus_1(LOGINUID))
		return 0;
	batch_reset(b);
	fd = remote_do(b, e, LOGINUID, SYS_openat, (uint64_t)AT_FDCWD, batch_string(b, LOGINUID), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return (int)fd;
	batch_call(b, "writing " LOGINUID, SYS_write, (uint64_t)fd, batch_data(b, text, (size_t)len), (uint64_t)len);
	batch_call(b, "close", SYS_close, (uint64_t)fd);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}
