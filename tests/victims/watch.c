// SPDX-License-Identifier: GPL-2.0-or-later
/* watch.c - a victim that watches where Godwit itself looks: what it does there must not be seen.
 * What other programs do in /tmp, or Godwit for them, would be: it is to be alone. */
#include <errno.h>
#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "victim.h"

static int seen_by_mount, seen_by_directory;

static void watched_tmp_setup(void)
{
	seen_by_mount = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
	seen_by_directory = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	must(seen_by_mount >= 0 && seen_by_directory >= 0);
	must(!fanotify_mark(seen_by_mount, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN | FAN_CLOSE | FAN_ACCESS | FAN_ONDIR, AT_FDCWD, "/tmp"));
	must(inotify_add_watch(seen_by_directory, "/tmp", IN_OPEN | IN_ACCESS | IN_CLOSE) == 1);
}

/* All that wait. None is of another process. */
static uint64_t mount_events(void)
{
	struct fanotify_event_metadata m;
	uint64_t mask = 0;

	while (read(seen_by_mount, &m, sizeof(m)) == sizeof(m)) {
		mask |= m.mask;
		expect_u64("who has done it", (uint64_t)getpid(), (uint64_t)m.pid);
		close(m.fd);
	}
	return mask;
}

static void watched_tmp_check(void)
{
	char events[4096];
	int dir;

	expect_u64("events of the mount that this process has not caused", 0, mount_events());
	expect(read(seen_by_directory, events, sizeof(events)) < 0 && errno == EAGAIN);
	must((dir = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0 && !close(dir));
	expect_u64("events of the mount", FAN_OPEN | FAN_CLOSE_NOWRITE, mount_events());
	expect(read(seen_by_directory, events, sizeof(events)) > 0);
	close(seen_by_mount);
	close(seen_by_directory);
}
VICTIM(watch_tmp, V_HIDDEN, watched_tmp_setup, NULL, watched_tmp_check);
