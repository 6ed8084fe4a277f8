/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* listener.c - clients at home; see listener.h */
#include "home/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"

#define FIRST_ID 500u /* where the numbers of sockets begin (image/relay.h) */
#define LAST_ID 999u
#define KIND (CHANNEL_READS | CHANNEL_WRITES | CHANNEL_SOCKET)

static int choose_id(struct channels *c)
{
	for (uint32_t id = FIRST_ID; id <= LAST_ID; id++) {
		struct channel *ch = channels_find(c, id);

		if (ch && !channel_is_over(ch))
			continue;
		channels_forget(c, id);
		return (int)id;
	}
	return -1;
}

void listener_take(struct channels *c, const struct door_connect *client, int fd, const int32_t sender[3], struct session *s)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;
	size_t len = strnlen(client->path, sizeof(client->path));
	int id = client->path[0] == '/' && len < sizeof(client->path) ? choose_id(c) : -1;

	if (id < 0) {
		close(fd);
		return;
	}
	if (channels_add(c, (uint32_t)id, KIND | CHANNEL_HOME, fd, NULL) < 0)
		return;
	memcpy(c->v[c->n - 1].sender, sender, sizeof(c->v[c->n - 1].sender));
	m.kind = GW__HOME_KIND__HOME_OPEN;
	m.channel = (uint32_t)id;
	m.uid = client->uid;
	m.gid = client->gid;
	m.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)client->path };
	session_send(s, &m);
}

/* Whoever asks who the client is (SO_PEERCRED) is told these ids; what may be connected to home has judged already. */
static int connect_as(int fd, const struct sockaddr_un *at, uid_t uid, gid_t gid)
{
	int ret;

	(void)!setegid(gid);
	(void)!seteuid(uid);
	setfsuid(0);
	ret = connect(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;
	(void)!seteuid(0);
	(void)!setegid(0);
	return ret;
}

static int connect_to(const Gw__HomeMessage *m, pid_t root)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), file = -1;
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%d/root%.*s", root, (int)m->data.len, (const char *)m->data.data);
	file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || file < 0)
		return -errno;
	snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d", file);
	return connect_as(fd, &at, m->uid, m->gid) < 0 ? -ECONNREFUSED : take_fd(&fd);
}

void listener_open(struct channels *c, const Gw__HomeMessage *m, pid_t root, struct session *s)
{
	struct channel none = { .id = m->channel };
	int fd = connect_to(m, root);

	channels_forget(c, m->channel);
	if (fd >= 0 && channels_add(c, m->channel, KIND, fd, NULL) == 0)
		return;
	channel_say(&none, GW__HOME_KIND__HOME_END, s);
	channel_say(&none, GW__HOME_KIND__HOME_BROKEN, s);
}
