/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns.c - which namespaces a unit owns, and those that a worker enters; see ns.h */
#include "image/ns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/ns_user.h"
#include "image/place.h"
#include "image/process_check.h"

#define SETTING_MAX 256

static const char *const ipc_settings[] = {
	"kernel/shmmax", "kernel/shmall", "kernel/shmmni", "kernel/shm_rmid_forced", "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
	"kernel/shm_next_id", "kernel/msg_next_id", "kernel/sem_next_id", "fs/mqueue/queues_max", "fs/mqueue/msg_max", "fs/mqueue/msgsize_max", "fs/mqueue/msg_default", "fs/mqueue/msgsize_default",
};

static int host[NS_KINDS] = { -1, -1, -1, -1, -1, -1, -1, -1 }, unit_net = -1, unit_cgroups = -1; /* host: the worker's own, where it has entered others */

uint32_t ns_owned(pid_t pid)
{
	uint32_t owned = 0;

	for (int k = 0; k < NS_KINDS; k++)
		if (k != NS_TIME && ns_differs(pid, 0, (enum ns_kind)k)) /* clocks.h */
			owned |= NS_BIT(k);
	return owned;
}

static uint64_t unit_id[NS_KINDS]; /* of the unit's namespaces that the worker does not enter; 0: they are the worker's */

bool ns_is_hosts(enum ns_kind kind, uint64_t id)
{
	return id == (host[kind] >= 0 ? ns_id_of(host[kind]) : ns_id(0, kind));
}

int ns_open_hosts(enum ns_kind kind)
{
	return host[kind] >= 0 ? fcntl(host[kind], F_DUPFD_CLOEXEC, 0) : ns_open(0, kind);
}

int ns_remember_hosts(struct err *e)
{
	for (int k = 0; k < NS_KINDS; k++)
		if (NS_ENTERED & NS_BIT(k) && host[k] < 0 && (host[k] = ns_open(0, (enum ns_kind)k)) < 0)
			return err_sys(e, errno, "the host's %s namespace", ns_name((enum ns_kind)k));
	return 0;
}

bool ns_has_pids(void)
{
	return unit_id[NS_PID] != 0;
}

pid_t ns_seen(pid_t tid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "NSpid:", 6) == 0)
			return (pid_t)atoi(strrchr(line, '\t'));
	return tid;
}

bool ns_is_first(pid_t pid)
{
	return pid > 0 && ns_differs(pid, 0, NS_PID) && ns_seen(pid) == 1;
}

bool ns_has_net(void)
{
	return unit_net >= 0;
}

void ns_outside(bool outside)
{
	if (unit_net >= 0)
		(void)!setns(outside ? host[NS_NET] : unit_net, CLONE_NEWNET);
}

int ns_remember_host_net(struct err *e)
{
	host[NS_NET] = ns_open(0, NS_NET);
	return host[NS_NET] < 0 ? err_sys(e, errno, "the host's network namespace") : 0;
}

int ns_remember_unit_net(struct err *e)
{
	unit_net = ns_open(0, NS_NET);
	return unit_net < 0 ? err_sys(e, errno, "the unit's network namespace") : 0;
}

void ns_in_own_cgroups(bool own)
{
	if (host[NS_CGROUP] >= 0 && unit_cgroups >= 0)
		(void)!setns(own ? host[NS_CGROUP] : unit_cgroups, CLONE_NEWCGROUP);
}

bool ns_has_cgroups(void)
{
	return unit_cgroups >= 0;
}

int ns_make_cgroups(struct err *e)
{
	host[NS_CGROUP] = ns_open(0, NS_CGROUP);
	if (host[NS_CGROUP] < 0 || unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(e, errno, "a cgroup namespace");
	unit_cgroups = ns_open(0, NS_CGROUP);
	if (unit_cgroups < 0)
		return err_sys(e, errno, "a cgroup namespace");
	ns_in_own_cgroups(true);
	return 0;
}

static int enter(pid_t root, enum ns_kind kind, struct err *e)
{
	cleanup_close int fd = ns_open(root, kind);

	host[kind] = ns_open(0, kind);
	if (host[kind] < 0 || fd < 0 || setns(fd, ns_flag(kind)) < 0)
		return err_sys(e, errno, "process %d: entering its %s namespace", root, ns_name(kind));
	if (kind == NS_NET)
		unit_net = take_fd(&fd);
	if (kind == NS_CGROUP)
		unit_cgroups = take_fd(&fd);
	return 0;
}

static uint64_t id_of_unit(enum ns_kind kind)
{
	if (unit_id[kind])
		return unit_id[kind];
	return host[kind] >= 0 ? ns_id(0, kind) : 0; /* the worker is in it */
}

/* Whether a namespace moves with the unit; units_own: that of its first process, if it does. */
static bool is_units(enum ns_kind kind, uint64_t id, uint64_t units_own)
{
	uint32_t number = 0;

	return id && (id == units_own || (ns_others_find(kind, id, &number) && number && !ns_is_hosts(kind, id)));
}

/* podman's process for the ports of a container of a user: it only connects to the container, by the network namespace that stays. */
static bool leads_ports(pid_t pid)
{
	char path[64], name[32] = "";
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, name, sizeof(name) - 1) > 0 && (!strcmp(name, "rootlessport") || !strcmp(name, "rootlessport-child"));
}

void ns_check_others(bool (*is_inside)(void *arg, pid_t pid), void *arg, struct refusals *r)
{
	static const struct {
		enum ns_kind kind;
		const char *cause;
	} lost[] = {
		{ NS_PID, "it is in the pid namespace of the unit without being one of its processes, and would be killed with it" },
		{ NS_NET, "it is in the network namespace of the unit without being one of its processes, and would lose its devices" },
	};
	cleanup_closedir DIR *proc = opendir("/proc");
	uint64_t units[ARRAY_SIZE(lost)];

	for (size_t i = 0; i < ARRAY_SIZE(lost); i++)
		units[i] = id_of_unit(lost[i].kind);
	for (struct dirent *d; proc && (d = readdir(proc));) {
		pid_t pid = (pid_t)atoi(d->d_name);

		for (size_t i = 0; pid > 0 && pid != getpid() && i < ARRAY_SIZE(lost); i++) {
			struct process_stat stat_now;

			if (!is_units(lost[i].kind, ns_id(pid, lost[i].kind), units[i]) || is_inside(arg, pid) || process_stat_read(pid, &stat_now, NULL) < 0 || stat_now.state == 'Z' || stat_now.state == 'X')
				continue; /* one that has ended loses nothing */
			if (!strcmp(stat_now.name, "godwit-init") && ns_differs(pid, 0, NS_PID))
				continue; /* of a pid namespace that is there for a number (process_in_own_numbers) */
			if (lost[i].kind == NS_NET && leads_ports(pid)) {
				notes_add("ports that podman's rootlessport leads to it stay with the host that it has left, and lead to nobody.");
				continue;
			}
			refusals_add(r, "ns.others", lost[i].cause, "end it, or start it from the unit", "process %d", pid);
			break;
		}
	}
}

void ns_leave(void)
{
	for (int k = 0; k < NS_KINDS; k++) {
		if (host[k] >= 0)
			(void)!setns(host[k], ns_flag((enum ns_kind)k));
		close_fdp(&host[k]);
		unit_id[k] = 0;
	}
	close_fdp(&unit_net);
	close_fdp(&unit_cgroups);
	ns_others_leave();
	ns_mounts_leave();
	ns_nets_leave();
	ns_user_leave();
	place_set(0);
}

static int read_setting(const char *name, char *value, size_t size)
{
	char path[128];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, value, size - 1);
	if (n < 0)
		return -errno;
	while (n && value[n - 1] == '\n')
		n--;
	value[n] = 0;
	return 0;
}

bool ns_setting_is(const char *name, const char *value)
{
	char now[SETTING_MAX];

	return read_setting(name, now, sizeof(now)) == 0 && !strcmp(now, value);
}

void ns_settings_capture(Gw__NsSetting ***v, size_t *n)
{
	*v = must_alloc(ARRAY_SIZE(ipc_settings) * sizeof(**v));
	for (size_t i = 0; i < ARRAY_SIZE(ipc_settings); i++) {
		char value[SETTING_MAX];
		Gw__NsSetting *s;

		if (read_setting(ipc_settings[i], value, sizeof(value)) < 0 || strcmp(value, "-1") == 0) /* a next number that nobody has asked for */
			continue;
		(*v)[(*n)++] = s = must_alloc(sizeof(*s));
		gw__ns_setting__init(s);
		string_set(&s->name, ipc_settings[i]);
		string_set(&s->value, value);
	}
}

/* What belongs to the view is told by the view. */
static int take_view(pid_t root, struct err *e)
{
	unit_id[NS_MNT] = ns_id(root, NS_MNT);
	if (!unit_id[NS_MNT])
		return err_sys(e, errno, "the mount namespace of process %d", root);
	place_set(root);
	return 0;
}

int ns_capture(pid_t root, bool has_view, Gw__Namespaces **ret, struct refusals *r, struct err *e)
{
	uint32_t owned = ns_owned(root);
	Gw__Namespaces *msg;
	struct utsname names;
	int code = 0;

	*ret = NULL;
	if (owned & NS_BIT(NS_PID) && process_in_own_numbers(root))
		owned &= ~(NS_BIT(NS_PID) | NS_BIT(NS_MNT));
	if (has_view) {
		owned &= ~NS_BIT(NS_MNT);
		code = take_view(root, e);
	}
	if (!owned || code < 0)
		return code;
	for (int k = 0; k < NS_KINDS && code == 0; k++)
		if (NS_ENTERED & owned & NS_BIT(k))
			code = enter(root, (enum ns_kind)k, e);
	if (code < 0)
		return code;
	for (int k = 0; k < NS_KINDS; k++)
		if (~NS_ENTERED & owned & NS_BIT(k) && !(unit_id[k] = ns_id(root, (enum ns_kind)k)))
			return err_sys(e, errno, "the %s namespace of process %d", ns_name((enum ns_kind)k), root);
	if (owned & NS_BIT(NS_MNT))
		place_set(root);
	if (owned & NS_BIT(NS_PID) && ns_seen(root) != 1)
		refusals_add(r, "ns.pid", "it is in a pid namespace whose first process stays behind", "move that one", "process %d", root);
	*ret = msg = must_alloc(sizeof(*msg));
	gw__namespaces__init(msg);
	msg->owned = owned;
	msg->root = root;
	if (uname(&names) == 0) {
		string_set(&msg->nodename, names.nodename);
		string_set(&msg->domainname, names.domainname);
	}
	if (owned & NS_BIT(NS_USER))
		code = ns_user_capture(root, msg, e);
	if (owned & NS_BIT(NS_IPC))
		ns_settings_capture(&msg->settings, &msg->n_settings);
	if (owned & NS_BIT(NS_NET) && code == 0) {
		msg->nets = must_alloc(sizeof(*msg->nets));
		msg->n_nets = 1; /* ns_nets_capture fills it */
		msg->nets[0] = must_alloc(sizeof(*msg->nets[0]));
		gw__ns_net__init(msg->nets[0]);
	}
	if (owned & NS_BIT(NS_MNT) && code == 0)
		code = ns_mounts_capture(root, 0, msg, r, e);
	return code;
}

static bool is_ipc_setting(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(ipc_settings); i++)
		if (strcmp(name, ipc_settings[i]) == 0)
			return true;
	return false;
}

int ns_settings_validate(Gw__NsSetting *const *v, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (!is_ipc_setting(v[i]->name) || strlen(v[i]->value) >= SETTING_MAX)
			return err_set(e, -EBADMSG, "a setting that there is not");
	return 0;
}

static int validate(const Gw__Namespaces *msg, struct err *e)
{
	if (msg->owned >> NS_TIME || (!msg->owned && !msg->n_others))
		return err_set(e, -EBADMSG, "namespaces %#x", msg->owned);
	if (strlen(msg->nodename) > 64 || strlen(msg->domainname) > 64)
		return err_set(e, -EBADMSG, "names of a host");
	if (!msg->n_nets != !(msg->owned & NS_BIT(NS_NET)) || msg->n_nets > 1)
		return err_set(e, -EBADMSG, "%zu network namespaces", msg->n_nets);
	for (size_t i = 0; i < msg->n_nets; i++)
		if (ns_net_validate(msg->nets[i], e) < 0)
			return -EBADMSG;
	if (ns_settings_validate(msg->settings, msg->n_settings, e) < 0 || ns_others_validate(msg, e) < 0)
		return -EBADMSG;
	return ns_user_validate(msg, e) < 0 ? -EBADMSG : ns_mounts_validate(msg, e);
}

void ns_encode(const Gw__Namespaces *msg, uint8_t **ret_data, size_t *ret_len)
{
	*ret_len = gw__namespaces__get_packed_size(msg);
	*ret_data = must_alloc(*ret_len);
	gw__namespaces__pack(msg, *ret_data);
}

int ns_decode(const void *data, size_t len, Gw__Namespaces **ret, struct err *e)
{
	Gw__Namespaces *msg = gw__namespaces__unpack(NULL, len, data);
	int code = msg ? validate(msg, e) : err_set(e, -EBADMSG, "namespaces that cannot be read");

	if (code < 0) {
		if (msg)
			gw__namespaces__free_unpacked(msg, NULL);
		return code;
	}
	*ret = msg;
	return 0;
}
