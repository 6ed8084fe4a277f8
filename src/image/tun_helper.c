/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tun_helper.c - see tun_helper.h */
#include "image/tun_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/host_keeper.h"
#include "image/notes.h"
#include "image/ns_info.h"
#include "image/ns_link.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/tun_holder.h"
#include "kern/fdpass.h"

#define PROGRAM "slirp4netns"
#define ARGUMENTS_MAX 16u
#define HELPERS_MAX 16u
#define READY_MS 5000
#define FD_EXIT 3
#define FD_READY 4
#define FD_NET 5
#define FD_USER 6

/* What of its options is passed on: flags, and those with a value that is the same everywhere. */
enum { DROPPED = 1, FLAG, MTU, CIDR, API };

static const struct option options[] = {
	{ "configure", no_argument, NULL, DROPPED },
	{ "exit-fd", required_argument, NULL, DROPPED },
	{ "ready-fd", required_argument, NULL, DROPPED },
	{ "netns-type", required_argument, NULL, DROPPED },
	{ "userns-path", required_argument, NULL, DROPPED },
	{ "macaddress", required_argument, NULL, DROPPED }, /* the interface has it */
	{ "mtu", required_argument, NULL, MTU },
	{ "cidr", required_argument, NULL, CIDR },
	{ "api-socket", required_argument, NULL, API },
	{ "enable-ipv6", no_argument, NULL, FLAG },
	{ "disable-host-loopback", no_argument, NULL, FLAG },
	{ "enable-sandbox", no_argument, NULL, FLAG },
	{ "enable-seccomp", no_argument, NULL, FLAG },
	{ "disable-dns", no_argument, NULL, FLAG },
	{ NULL, 0, NULL, 0 },
};

/* --- source --- */

static void add_argument(Gw__NsTap *t, const char *name, const char *value)
{
	char **grown = realloc(t->arguments, (t->n_arguments + 1) * sizeof(*grown));
	char *text = NULL;

	if (!grown || asprintf(&text, "--%s%s%s", name, value ? "=" : "", value ? value : "") < 0)
		abort();
	t->arguments = grown;
	grown[t->n_arguments++] = text;
}

/* False: there is an option that another host cannot be given. */
static bool take_options(int argc, char **argv, Gw__NsTap *t, const char *device)
{
	int index, c;

	optind = 0; /* glibc: from the beginning, whoever has parsed before */
	opterr = 0;
	while ((index = -1, c = getopt_long(argc, argv, "ce:r:m:6a:", options, &index)) != -1) {
		if (c == '?' || c == ':')
			return false;
		if (c == 'a' || c == API)
			notes_add("ports of the host that slirp4netns leads to its interface %s stay with the host that it has left.", device);
		else if (c == '6')
			add_argument(t, "enable-ipv6", NULL);
		else if (c == 'm' || c == MTU)
			add_argument(t, "mtu", optarg);
		else if (c == CIDR)
			add_argument(t, "cidr", optarg);
		else if (c == FLAG)
			add_argument(t, options[index].name, NULL);
	}
	return true;
}

static bool read_arguments(pid_t pid, char **ret_text, char *argv[64], int *ret_argc)
{
	char path[64];
	cleanup_close int fd = -1;
	size_t len = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	*ret_text = calloc(1, 4097);
	if (fd < 0 || !*ret_text)
		return false;
	for (ssize_t n; len < 4096 && (n = read(fd, *ret_text + len, 4096 - len)) > 0;)
		len += (size_t)n;
	*ret_argc = 0;
	for (char *s = *ret_text; s < *ret_text + len && *ret_argc < 63; s += strlen(s) + 1)
		argv[(*ret_argc)++] = s;
	argv[*ret_argc] = NULL;
	return *ret_argc > 0;
}

static bool is_program(const char *path)
{
	const char *slash = strrchr(path, '/');

	return !strcmp(slash ? slash + 1 : path, PROGRAM);
}

bool tun_helper_capture(pid_t holder, const char *device, Gw__NsNet *net)
{
	cleanup_free char *text = NULL;
	char *argv[64], path[64];
	Gw__NsTap *t, **grown;
	struct stat st;
	int argc;

	snprintf(path, sizeof(path), "/proc/%d", holder);
	if (!read_arguments(holder, &text, argv, &argc) || !is_program(argv[0]) || stat(path, &st) < 0)
		return false;
	t = must_alloc(sizeof(*t));
	gw__ns_tap__init(t);
	string_set(&t->device, device);
	t->uid = st.st_uid;
	t->gid = st.st_gid;
	t->in_user = ns_differs(holder, 0, NS_USER);
	grown = take_options(argc, argv, t, device) ? realloc(net->taps, (net->n_taps + 1) * sizeof(*grown)) : NULL;
	if (!grown) {
		gw__ns_tap__free_unpacked(t, NULL);
		return false;
	}
	net->taps = grown;
	grown[net->n_taps++] = t;
	return true;
}

/* --- destination --- */

static bool is_argument(const char *text)
{
	static const char digits[] = "0123456789";

	if (!strncmp(text, "--mtu=", 6))
		return text[6] && strlen(text) < 16 && strspn(text + 6, digits) == strlen(text + 6);
	if (!strncmp(text, "--cidr=", 7))
		return text[7] && strlen(text) < 64 && strspn(text + 7, "0123456789./") == strlen(text + 7);
	for (size_t i = 0; options[i].name; i++)
		if (options[i].val == FLAG && !strncmp(text, "--", 2) && !strcmp(text + 2, options[i].name))
			return true;
	return false;
}

int tun_helpers_validate(const Gw__NsNet *net, struct err *e)
{
	for (size_t i = 0; i < net->n_taps; i++) {
		const Gw__NsTap *t = net->taps[i];

		if (!net_is_name(t->device) || t->n_arguments > ARGUMENTS_MAX)
			return err_set(e, -EBADMSG, "network: helper %zu", i);
		for (size_t k = 0; k < t->n_arguments; k++)
			if (!is_argument(t->arguments[k]))
				return err_set(e, -EBADMSG, "network: an option of helper %zu", i);
	}
	return net->n_taps > HELPERS_MAX ? err_set(e, -EBADMSG, "network: %zu helpers", net->n_taps) : 0;
}

/* With the privileges that it had: those of the unit's user namespace, or a user's. */
static int be_user(const Gw__NsTap *t, int user)
{
	if (setgroups(0, NULL) < 0) /* from outside: it may be denied in there */
		return -errno;
	if (t->in_user && user >= 0)
		return ns_enter(user, NS_USER) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ? -errno : 0;
	return t->uid && (setresgid(t->gid, t->gid, t->gid) < 0 || setresuid(t->uid, t->uid, t->uid) < 0) ? -errno : 0;
}

/* fds: as they are to be called in there, from FD_EXIT on; the last may be -1. */
static void __attribute__((noreturn)) exec_helper(const Gw__NsTap *t, const int fds[4])
{
	char *argv[ARGUMENTS_MAX + 8];
	int moved[4], null;
	size_t n = 0;

	if (be_user(t, fds[3]) < 0)
		_exit(126);
	for (int i = 0; i < 4; i++)
		moved[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD, NS_HIGH_FD);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < FD_EXIT; i++)
		dup2(null, i);
	for (int i = 0; i < 4; i++)
		if (moved[i] >= 0)
			dup2(moved[i], FD_EXIT + i);
	syscall(SYS_close_range, fds[3] < 0 ? FD_USER : FD_USER + 1, ~0u, 0);
	argv[n++] = (char[]){ PROGRAM };
	for (size_t i = 0; i < t->n_arguments; i++)
		argv[n++] = t->arguments[i];
	argv[n++] = (char[]){ "--exit-fd=3" };
	argv[n++] = (char[]){ "--ready-fd=4" };
	argv[n++] = (char[]){ "--netns-type=path" };
	if (fds[3] >= 0 && !t->in_user)
		argv[n++] = (char[]){ "--userns-path=/proc/self/fd/6" };
	argv[n++] = (char[]){ "/proc/self/fd/5" };
	argv[n++] = t->device;
	argv[n] = NULL;
	execvp(PROGRAM, argv);
	_exit(127);
}

/* The interface was made to stay (ns_link_make.c); now it goes with its holder, as it did. */
static void let_go_with(pid_t helper, const Gw__NsTap *t, uint64_t ns)
{
	cleanup_close int fd = tun_get_held(helper, t->device, ns);

	if (fd >= 0)
		(void)ioctl(fd, TUNSETPERSIST, 0L);
}

/* What godwit-net works with: a copy of the worker's memory. */
struct keeping {
	const Gw__NsTap *tap;
	pid_t helper;
	int leave; /* it ends when this is closed */
};

static bool begin(void *arg, const int fds[HOST_KEEPER_FDS])
{
	struct keeping *k = arg;
	int leave[2], ready[2];
	struct pollfd p;
	char byte;

	if (pipe2(leave, O_CLOEXEC) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		return false;
	k->helper = fork();
	if (k->helper == 0)
		exec_helper(k->tap, (const int[4]){ leave[0], ready[1], fds[0], fds[1] });
	close(leave[0]);
	close(ready[1]);
	k->leave = leave[1];
	p = (struct pollfd){ ready[0], POLLIN, 0 };
	if (k->helper < 0 || poll(&p, 1, READY_MS) <= 0 || read(ready[0], &byte, 1) != 1) {
		if (k->helper > 0)
			kill(k->helper, SIGKILL);
		return false;
	}
	close(ready[0]);
	let_go_with(k->helper, k->tap, ns_id_of(fds[0]));
	return true;
}

static void end(void *arg)
{
	kill(((const struct keeping *)arg)->helper, SIGTERM);
}

static int start_one(const Gw__NsTap *t, int net, int user, struct refusals *r, struct err *e)
{
	static const struct host_keeper keeper = { begin, end };
	struct keeping k = { .tap = t };
	int ret = host_keeper_start(&keeper, &k, (const int[HOST_KEEPER_FDS]){ net, user }, e);

	if (ret == 0)
		refusals_add(r, "ns.net.tun", "its packets go to slirp4netns, which cannot be started at the destination", "install it there (apt-get install slirp4netns)", "network device %s", t->device);
	return MIN(ret, 0);
}

int tun_helpers_start(const Gw__Namespaces *msg, const struct ns_made *made, struct refusals *r, struct err *e)
{
	int user = msg->user && msg->user->inside & NS_BIT(NS_NET) ? made->user : -1, ret = 0;
	uint32_t number;
	Gw__NsNet *net;

	for (size_t i = 0; ret == 0 && (net = ns_net_of(msg, i, &number)); i++) {
		cleanup_close int ns = number ? fcntl(ns_others_fd(number), F_DUPFD_CLOEXEC, 0) : ns_open(0, NS_NET);

		for (size_t k = 0; ret == 0 && !r->n && k < net->n_taps; k++)
			ret = ns < 0 ? err_sys(e, errno, "a network namespace of the unit") : start_one(net->taps[k], ns, user, r, e);
	}
	return ret;
}
