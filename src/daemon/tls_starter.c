// SPDX-License-Identifier: GPL-2.0-or-later
/* tls_starter.c - godwit-tls; see tls_starter.h */
#include "daemon/tls_starter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/confine.h"
#include "base/log.h"
#include "base/util.h"
#include "wire/conn.h"
#include "wire/tls_relay.h"

#define AGAIN_NS 1000000000ull
#define LOOK_MS 5000    /* whether there is another godwitd by now */
#define RELAYS_MAX 8192u

/* --- in godwitd --- */

static const struct daemon *self;

/* The node that is expected at an address: the configuration is believed first, then what the cluster says. */
static bool name_of(const struct sockaddr_in *address, char ret[TLS_NODE_MAX + 1])
{
	const struct config *config = &self->config;
	const struct sockaddr_in *own = &config->listen;
	struct cluster_node node;

	if (address->sin_port == own->sin_port && (address->sin_addr.s_addr == own->sin_addr.s_addr || ntohl(address->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET)) {
		snprintf(ret, TLS_NODE_MAX + 1, "%s", config->name);
		return true;
	}
	for (size_t i = 0; i < config->n_nodes; i++) {
		if (config->nodes[i].address.sin_addr.s_addr == address->sin_addr.s_addr && config->nodes[i].address.sin_port == address->sin_port) {
			snprintf(ret, TLS_NODE_MAX + 1, "%s", config->nodes[i].name);
			return true;
		}
	}
	if (!cluster_view_at(self->view, address, &node))
		return false;
	snprintf(ret, TLS_NODE_MAX + 1, "%.*s", (int)TLS_NODE_MAX, node.name);
	return true;
}

int tls_starter_open(struct daemon *d, const char *directory, struct err *e)
{
	snprintf(d->tls_path, sizeof(d->tls_path), "%s/tls.sock", directory);
	d->tls_fd = conn_listen_unix(d->tls_path, 0177, SOMAXCONN, e);
	if (d->tls_fd < 0)
		return d->tls_fd;
	self = d;
	tls_use(d->tls_path, name_of);
	return 0;
}

static void __attribute__((noreturn)) execute(const struct daemon *d)
{
	const struct tls_paths *p = &d->config.tls;
	char fd[16];

	(void)fcntl(d->tls_fd, F_SETFD, 0);
	snprintf(fd, sizeof(fd), "%d", d->tls_fd);
	/* Libraries free what keys have been read from without wiping it: the C library does it for them. */
	(void)setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.perturb=85", 1);
	execl("/proc/self/exe", "godwit-tls", TLS_STARTER_OPTION, fd, d->tls_path, d->config.name, p->ca, p->certificate, p->key, p->crl, (char *)NULL);
	log_error("event=tls-failed error=\"godwit-tls: %s\"", strerror(errno));
	_exit(1);
}

int tls_starter_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	bool child;

	if (d->tls_fd < 0 || worker_count(d, WORKER_TLS))
		return -1;
	if (now >= d->tls_due_ns) {
		d->tls_due_ns = now + AGAIN_NS;
		worker_start(d, WORKER_TLS, &d->tls_fd, 1, &child, NULL);
		if (child)
			execute(d);
	}
	return (int)(AGAIN_NS / 1000000);
}

/* --- godwit-tls --- */

struct signature {
	struct timespec changed[4];
	ino_t inode[4];
};

struct starter {
	int fd;
	const char *path, *node;
	struct stat place; /* of the path, as long as it is ours */
	pid_t parent;
	struct tls_paths paths;
	struct signature seen;
	struct tls_identity id;
	struct err error; /* when there is no id */
	unsigned relays;
};

static struct signature look(const struct tls_paths *p)
{
	const char *const files[] = { p->ca, p->certificate, p->key, p->crl };
	struct signature ret;
	struct stat st;

	memset(&ret, 0, sizeof(ret));
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (stat(files[i], &st) < 0)
			continue;
		ret.changed[i] = st.st_ctim;
		ret.inode[i] = st.st_ino;
	}
	return ret;
}

/* While files are being copied they may not belong together: then it goes on with what it has. */
static void read_files(struct starter *s)
{
	struct signature now = look(&s->paths);
	struct tls_identity fresh;
	struct err e = ERR_INIT;

	if ((s->id.credentials || s->error.code) && !memcmp(&now, &s->seen, sizeof(now)))
		return;
	if (tls_identity_load(&s->paths, s->node, &fresh, &e) < 0) {
		if (!s->id.credentials)
			s->error = e;
		log_error("event=tls-files-refused kept=%s error=\"%s\"", s->id.credentials ? "yes" : "no", e.message);
	} else {
		if (s->id.credentials || s->error.code)
			log_info("event=tls-files-read until=%lld", (long long)fresh.until);
		tls_identity_free(&s->id);
		s->id = fresh;
		s->error = ERR_INIT;
	}
	s->seen = now;
}

static int refuse(const struct starter *s, int fd)
{
	struct tls_greeting g = { .magic = TLS_MAGIC, .code = -EKEYREJECTED };

	snprintf(g.text, sizeof(g.text), "[tls] of this node: %.600s", s->relays >= RELAYS_MAX ? "too many connections" : s->error.message);
	(void)!send(fd, &g, sizeof(g), MSG_NOSIGNAL);
	return 1;
}

static bool is_root(int fd)
{
	struct ucred who = { .uid = (uid_t)-1 };

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &(socklen_t){ sizeof(who) }) == 0 && who.uid == 0;
}

static void start_relay(struct starter *s)
{
	cleanup_close int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	pid_t pid;

	if (fd < 0 || !is_root(fd))
		return;
	read_files(s);
	if (!s->id.credentials || s->relays >= RELAYS_MAX) {
		refuse(s, fd);
		return;
	}
	pid = fork();
	if (pid == 0) {
		close(s->fd);
		_exit(tls_relay_run(&s->id, fd));
	}
	s->relays += pid > 0;
}

/* godwitd has ended, and another has its place. */
static bool is_replaced(const struct starter *s)
{
	struct stat st;

	return getppid() != s->parent && (stat(s->path, &st) < 0 || st.st_ino != s->place.st_ino || st.st_dev != s->place.st_dev);
}

int tls_starter_main(char **argv)
{
	static struct starter s;
	struct pollfd p;

	s = (struct starter){ .fd = atoi(argv[2]), .path = argv[3], .node = argv[4], .parent = getppid() };
	snprintf(s.paths.ca, TLS_PATH_MAX, "%s", argv[5]);
	snprintf(s.paths.certificate, TLS_PATH_MAX, "%s", argv[6]);
	snprintf(s.paths.key, TLS_PATH_MAX, "%s", argv[7]);
	snprintf(s.paths.crl, TLS_PATH_MAX, "%s", argv[8]);
	prctl(PR_SET_NAME, "godwit-tls");
	signal(SIGPIPE, SIG_IGN);
	confine_starter();
	if (stat(s.path, &s.place) < 0)
		return 1;
	read_files(&s);
	p = (struct pollfd){ s.fd, POLLIN, 0 };
	while (!is_replaced(&s)) {
		if (poll(&p, 1, LOOK_MS) > 0)
			start_relay(&s);
		while (s.relays && waitpid(-1, NULL, WNOHANG) > 0)
			s.relays--;
	}
	return 0;
}
