/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_other.c - see ns_other.h */
#include "image/ns_other.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cgroup.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "image/ns_user.h"
#include "image/place.h"

#define NAME_LEN_MAX 64

/* What the processes of a unit may be in apart from each other. */
static const uint32_t movable = NS_BIT(NS_UTS) | NS_BIT(NS_IPC) | NS_BIT(NS_NET) | NS_BIT(NS_TIME) | NS_BIT(NS_MNT) | NS_BIT(NS_PID) | NS_BIT(NS_USER) | NS_BIT(NS_CGROUP);

/* One worker has one unit: at the source those that it has found, at the destination those that it has made. */
static struct other {
	enum ns_kind kind;
	uint64_t id;
	int fd;
} *others;
static size_t n_others;
/* Source: those of the unit's first process; held open, so that no other one can be taken for them. */
static uint64_t first[NS_KINDS];
static int first_fds[NS_KINDS] = { -1, -1, -1, -1, -1, -1, -1, -1 };

/* Source. */
static int add_other(enum ns_kind kind, int fd)
{
	struct other *grown = realloc(others, (n_others + 1) * sizeof(*grown));

	if (!grown)
		abort();
	others = grown;
	grown[n_others] = (struct other){ kind, ns_id_of(fd), fcntl(fd, F_DUPFD_CLOEXEC, NS_HIGH_FD) };
	close(fd);
	return (int)n_others++;
}

void ns_others_put(uint32_t number, int fd)
{
	others[number - 1].fd = fcntl(fd, F_DUPFD_CLOEXEC, NS_HIGH_FD);
	others[number - 1].id = ns_id_of(fd);
	close(fd);
}

int ns_first_fd(enum ns_kind kind)
{
	return first_fds[kind];
}

int ns_others_fd(uint32_t number)
{
	return number && number <= n_others ? others[number - 1].fd : -1;
}

void ns_others_leave(void)
{
	for (size_t i = 0; i < n_others; i++)
		close_fdp(&others[i].fd);
	free(others);
	others = NULL;
	n_others = 0;
	for (int k = 0; k < NS_KINDS; k++) {
		close_fdp(&first_fds[k]);
		first[k] = 0;
	}
}

/* Into the one and back; *ret_back is what leads back. */
static int visit(int fd, enum ns_kind kind, int *ret_back)
{
	cleanup_close int back = ns_open(0, kind);
	int ret = back < 0 ? -errno : ns_enter(fd, kind);

	if (ret == 0)
		*ret_back = take_fd(&back);
	return ret;
}

static void come_back(int back, enum ns_kind kind)
{
	if (ns_enter(back, kind) < 0)
		abort(); /* all else would be done in the wrong one */
	close(back);
}

#define NOWHERE INT_MAX /* as `back` */

int ns_others_visit(enum ns_kind kind, uint32_t number)
{
	int back = NOWHERE, ret;

	if (!number)
		return NOWHERE;
	if (number > n_others || others[number - 1].kind != kind)
		return -ENOENT;
	ret = visit(others[number - 1].fd, kind, &back);
	return ret < 0 ? ret : back;
}

void ns_others_return(enum ns_kind kind, int back)
{
	if (back != NOWHERE)
		come_back(back, kind);
}

/* --- source --- */

bool ns_others_find(enum ns_kind kind, uint64_t id, uint32_t *ret)
{
	if (id == (first[kind] ? first[kind] : ns_id(0, kind))) {
		*ret = 0;
		return true;
	}
	for (size_t i = 0; i < n_others; i++)
		if (others[i].kind == kind && others[i].id == id) {
			*ret = (uint32_t)i + 1;
			return true;
		}
	return false;
}

/* Objects of System V IPC: the worker's namespace is another one for a moment. */
static bool has_objects(void)
{
	static const char *const lists[] = { "/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg" };

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		cleanup_fclose FILE *f = fopen(lists[i], "re");
		char line[512];

		if (f && fgets(line, sizeof(line), f) && fgets(line, sizeof(line), f))
			return true;
	}
	return false;
}

/* POSIX message queues that have a name: a mount of theirs that is attached nowhere shows them (fsopen(2)). */
static bool has_queues(void)
{
	cleanup_close int context = fsopen("mqueue", FSOPEN_CLOEXEC);
	cleanup_closedir DIR *dir = NULL;
	cleanup_close int mount = -1;
	struct dirent *d;
	int fd;

	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return false;
	mount = fsmount(context, FSMOUNT_CLOEXEC, 0);
	fd = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (d = readdir(dir)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			return true;
	return false;
}

static void capture_uts(Gw__NsOther *out)
{
	struct utsname names;

	if (uname(&names) < 0)
		return;
	string_set(&out->nodename, names.nodename);
	string_set(&out->domainname, names.domainname);
}

/* The last one of the table. */
static int capture_one(int fd, enum ns_kind kind, pid_t pid, Gw__Namespaces *msg, struct refusals *r, struct err *e)
{
	Gw__NsOther *out = msg->others[msg->n_others - 1];
	int back = -1, ret;

	if (kind == NS_MNT) {
		ret = place_set_space((uint32_t)n_others, pid);
		if (ret < 0)
			return err_sys(e, ret == -ENOENT ? -ESRCH : ret, "the root of process %d's mount namespace", pid);
		return ns_mounts_capture(pid, (uint32_t)n_others, msg, r, e);
	}
	if (kind == NS_NET) { /* ns_nets_capture, when all are known */
		out->net = must_alloc(sizeof(*out->net));
		gw__ns_net__init(out->net);
		return 0;
	}
	if (kind == NS_USER) {
		ret = ns_user_read(fd, out, e);
		if (ret == 0)
			ns_user_remember((uint32_t)n_others, out->uid_map, out->gid_map, out->deny_groups, true);
		return ret;
	}
	if (kind == NS_CGROUP)
		return cgroup_roots_capture(pid, fd, out, r, e);
	if (kind == NS_TIME)
		return clocks_offsets_of(fd, &out->monotonic_offset_ns, &out->boottime_offset_ns, e);
	ret = visit(fd, kind, &back);
	if (ret < 0)
		return err_sys(e, ret, "process %d: entering its %s namespace", pid, ns_name(kind));
	if (kind == NS_UTS)
		capture_uts(out);
	if (kind == NS_IPC) {
		ns_settings_capture(&out->settings, &out->n_settings);
		if (has_objects())
			refusals_add(r, "ns.ipc", "there are System V objects in its IPC namespace, which is not that of the unit's first process", "remove them (ipcrm)", "process %d", pid);
		if (has_queues())
			refusals_add(r, "ns.ipc", "there are POSIX message queues in its IPC namespace, which is not that of the unit's first process", "let the program remove them (mq_unlink)", "process %d", pid);
	}
	come_back(back, kind);
	return 0;
}

/* Beside one that belongs to a user namespace of the unit's, others that do not cannot be made together with it. */
static bool mounts_can_move(const Gw__Namespaces *msg, enum ns_kind kind, int fd, uint32_t user)
{
	if (kind != NS_MNT)
		return true;
	return !ns_is_hosts(NS_MNT, ns_id_of(fd)) && (!(msg && msg->user && msg->user->inside & NS_BIT(NS_MNT)) || !user);
}

static int add_fd(pid_t pid, enum ns_kind kind, int fd, Gw__Namespaces **msg, struct refusals *r, struct err *e);

/* The namespace of the same kind that one lies in, or the user namespace that it belongs to, which has to be known before. *ret 0: the first process's. */
static int find_above(pid_t pid, enum ns_kind kind, int above, Gw__Namespaces **msg, uint32_t *ret, struct refusals *r, struct err *e)
{
	int code;

	if (above < 0)
		return err_sys(e, errno, "the %s namespace above those of process %d", ns_name(kind), pid);
	if (ns_others_find(kind, ns_id_of(above), ret))
		return 0;
	if (kind == NS_USER && ns_is_hosts(NS_USER, ns_id_of(above))) {
		*ret = NS_HOSTS;
		return 0;
	}
	code = add_fd(pid, kind, above, msg, r, e);
	if (code == 0 && !ns_others_find(kind, ns_id_of(above), ret))
		*ret = 0; /* it has been refused */
	return code;
}

/* What has to be known of a namespace first: where it lies, and to whom it belongs. */
static int find_relations(pid_t pid, enum ns_kind kind, int fd, Gw__Namespaces **msg, uint32_t *ret_above, uint32_t *ret_user, struct refusals *r, struct err *e)
{
	cleanup_close int above = -1, user = ioctl(fd, kind == NS_USER ? NS_GET_PARENT : NS_GET_USERNS);
	int ret = find_above(pid, NS_USER, user, msg, ret_user, r, e);

	if (ret < 0 || kind != NS_PID || ns_is_hosts(kind, ns_id_of(fd)))
		return ret;
	above = ioctl(fd, NS_GET_PARENT);
	return find_above(pid, NS_PID, above, msg, ret_above, r, e);
}

static int add_found(pid_t pid, enum ns_kind kind, Gw__Namespaces **msg, struct refusals *r, struct err *e)
{
	cleanup_close int fd = ns_open(pid, kind);

	if (fd < 0)
		return err_sys(e, errno == ENOENT ? ESRCH : errno, "the %s namespace of process %d", ns_name(kind), pid);
	return add_fd(pid, kind, fd, msg, r, e);
}

static int add_fd(pid_t pid, enum ns_kind kind, int fd, Gw__Namespaces **msg, struct refusals *r, struct err *e)
{
	Gw__NsOther *out, **grown;
	bool of_host = ns_is_hosts(kind, ns_id_of(fd));
	uint32_t above = 0, user = 0;
	int ret = kind == NS_USER && of_host ? 0 : find_relations(pid, kind, fd, msg, &above, &user, r, e);

	if (ret < 0)
		return ret;
	if (n_others >= NS_OTHERS_MAX || !mounts_can_move(*msg, kind, fd, user) || ((kind == NS_PID || kind == NS_USER) && of_host) || ((kind == NS_USER || kind == NS_PID) && user == NS_HOSTS)) {
		char way_out[128];

		snprintf(way_out, sizeof(way_out), "move process %d by itself: those above it stay, and see it as theirs (docs/home.md)", pid);
		refusals_add(r, "task.namespace", "such a namespace of a part of the unit cannot move yet", way_out, "process %d (%s namespace)", pid, ns_name(kind));
		return 0;
	}
	if (!*msg) {
		*msg = must_alloc(sizeof(**msg));
		gw__namespaces__init(*msg);
	}
	grown = realloc((*msg)->others, ((*msg)->n_others + 1) * sizeof(*grown));
	if (!grown)
		abort();
	(*msg)->others = grown;
	grown[(*msg)->n_others++] = out = must_alloc(sizeof(*out));
	gw__ns_other__init(out);
	out->kind = kind;
	out->above = above;
	out->user = user;
	out->of_host = of_host;
	add_other(kind, fcntl(fd, F_DUPFD_CLOEXEC, 0));
	return out->of_host || kind == NS_PID ? 0 : capture_one(fd, kind, pid, *msg, r, e);
}

/* Threads have what is their process's, or are refused. */
static void check_threads(pid_t pid, struct refusals *r)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));)
		for (int k = 0; k < NS_KINDS && atoi(d->d_name) > 0 && atoi(d->d_name) != pid; k++)
			if (ns_differs(pid, atoi(d->d_name), (enum ns_kind)k) ||
			    (k == NS_PID && ns_id_for_children(pid, NS_PID) != ns_id_for_children(atoi(d->d_name), NS_PID) && ns_id(atoi(d->d_name), NS_PID)))
				refusals_add(r, "thread.namespace", "threads with namespaces other than their process's cannot move", "use a process instead",
					     "thread %s (%s namespace)", d->d_name, ns_name((enum ns_kind)k));
}

static void check_children(pid_t pid, struct refusals *r)
{
	static const enum ns_kind kinds[] = { NS_PID, NS_TIME };

	if (!ns_id(pid, NS_UTS)) /* it has ended, and is in a pid namespace only */
		return;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint64_t own = ns_id(pid, kinds[i]), children = ns_id_for_children(pid, kinds[i]);

		uint32_t number;

		/* 0: a pid namespace whose first process has not been made yet. An agent would be it. */
		if (own && own != children && (kinds[i] == NS_PID ? !children || !ns_others_find(NS_PID, children, &number) : children != 0))
			refusals_add(r, "task.namespace-for-children", "its future children would get another namespace than its own", "move it before it calls unshare, or its children by themselves",
				     "process %d (%s namespace)", pid, ns_name(kinds[i]));
	}
}

/* Then it has been refused already. */
static bool is_any_in(const pid_t *pids, size_t n, enum ns_kind kind, uint64_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ns_id(pids[i], kind) == id)
			return true;
	return false;
}

int ns_others_capture(const pid_t *pids, size_t n, Gw__Namespaces **msg, struct refusals *r, struct err *e)
{
	int ret = 0;

	ns_others_leave();
	for (int k = 0; k < NS_KINDS; k++) {
		first_fds[k] = ns_open(pids[0], (enum ns_kind)k);
		first[k] = first_fds[k] < 0 ? 0 : ns_id_of(first_fds[k]);
	}
	for (size_t i = 0; i < n && ret == 0; i++) {
		for (int k = 0; k < NS_KINDS && ret == 0; k++) {
			uint64_t id = ns_id(pids[i], (enum ns_kind)k);
			uint32_t number;

			if (id && !ns_others_find((enum ns_kind)k, id, &number) && !is_any_in(pids, i, (enum ns_kind)k, id))
				ret = add_found(pids[i], (enum ns_kind)k, msg, r, e);
		}
		check_threads(pids[i], r);
	}
	for (size_t i = 0; i < n && ret == 0; i++)
		check_children(pids[i], r);
	if (ret == 0 && *msg)
		ns_mounts_name_procs(*msg, r);
	return ret < 0 || !*msg ? ret : ns_nets_capture(*msg, r, e);
}

/* As Process.children_space; UINT32_MAX: it is in none of the table. */
static uint32_t children_of(pid_t pid)
{
	uint64_t children = ns_id_for_children(pid, NS_PID);
	uint32_t number;

	if (children == ns_id(pid, NS_PID))
		return 0;
	return children && ns_others_find(NS_PID, children, &number) ? number : UINT32_MAX;
}

static int number_of_pids(uint64_t id)
{
	uint32_t number;

	return ns_others_find(NS_PID, id, &number) ? (int)number : -1;
}

void ns_others_name(pid_t pid, Gw__Process *msg)
{
	uint32_t numbers[NS_KINDS] = { 0 };
	bool any = false;

	for (int k = 0; k < NS_KINDS; k++)
		any |= ns_others_find((enum ns_kind)k, ns_id(pid, (enum ns_kind)k), &numbers[k]) && numbers[k];
	free(msg->namespaces);
	msg->n_namespaces = any ? NS_KINDS : 0;
	msg->namespaces = must_alloc(sizeof(numbers));
	memcpy(msg->namespaces, numbers, sizeof(numbers));
	free(msg->host_ids);
	free(msg->host_groups);
	msg->host_ids = msg->host_groups = NULL;
	msg->n_host_ids = msg->n_host_groups = 0;
	if (numbers[NS_USER])
		ns_user_read_ids(pid, &msg->host_ids, &msg->n_host_ids, &msg->host_groups, &msg->n_host_groups);
	msg->children_space = children_of(pid);
}

int ns_others_name_tree(const Gw__Namespaces *msg, struct tree *t, struct err *e)
{
	cleanup_free uint32_t *above = must_alloc((msg->n_others + 1) * sizeof(*above));

	above[0] = 0;
	for (size_t i = 0; i < msg->n_others; i++)
		above[i + 1] = msg->others[i]->above;
	return tree_name_spaces(t, above, msg->n_others + 1, number_of_pids, e);
}

uint32_t ns_others_user_of(pid_t pid)
{
	uint32_t number;

	return ns_others_find(NS_USER, ns_id(pid, NS_USER), &number) ? number : 0;
}

bool ns_others_have_users(void)
{
	for (size_t i = 0; i < n_others; i++)
		if (others[i].kind == NS_USER)
			return true;
	return false;
}

bool ns_others_same(pid_t pid, pid_t tid, const Gw__Process *msg)
{
	for (int k = 0; k < NS_KINDS; k++) {
		uint64_t id = ns_id(tid, (enum ns_kind)k);
		uint32_t number;

		if (id && (!ns_others_find((enum ns_kind)k, id, &number) || number != (msg->n_namespaces ? msg->namespaces[k] : 0)))
			return false;
	}
	return children_of(pid) == msg->children_space && ns_id(pid, NS_TIME) == ns_id_for_children(pid, NS_TIME);
}

/* --- destination --- */

int ns_others_validate(const Gw__Namespaces *msg, struct err *e)
{
	if (msg->n_others > NS_OTHERS_MAX)
		return err_set(e, -EBADMSG, "%zu namespaces", msg->n_others);
	for (size_t i = 0; i < msg->n_others; i++) {
		const Gw__NsOther *o = msg->others[i];

		if (o->kind >= NS_KINDS || !(movable & NS_BIT(o->kind)))
			return err_set(e, -EBADMSG, "a namespace of kind %u", o->kind);
		if (o->above && (o->kind != NS_PID || o->above > i || msg->others[o->above - 1]->kind != NS_PID))
			return err_set(e, -EBADMSG, "a pid namespace in namespace %u", o->above);
		if ((o->kind == NS_PID || o->kind == NS_USER) && o->of_host)
			return err_set(e, -EBADMSG, "the host's %s namespace", ns_name((enum ns_kind)o->kind));
		if (o->user == NS_HOSTS ? !msg->user || o->kind == NS_USER || o->kind == NS_PID : o->user && (o->user > i || msg->others[o->user - 1]->kind != NS_USER))
			return err_set(e, -EBADMSG, "a %s namespace that belongs to namespace %u", ns_name((enum ns_kind)o->kind), o->user);
		if (o->kind == NS_MNT && msg->user && msg->user->inside & NS_BIT(NS_MNT) && o->user)
			return err_set(e, -EBADMSG, "a mount namespace that belongs to another user namespace than the first process's");
		if (o->kind == NS_USER && ns_user_validate_other(o, e) < 0)
			return -EBADMSG;
		if (o->kind == NS_CGROUP && cgroup_roots_validate(o, e) < 0)
			return -EBADMSG;
		if (!o->net != !(o->kind == NS_NET && !o->of_host) || (o->net && ns_net_validate(o->net, e) < 0))
			return err_set(e, -EBADMSG, "a network namespace that cannot be");
		if (strlen(o->nodename) > NAME_LEN_MAX || strlen(o->domainname) > NAME_LEN_MAX || ns_settings_validate(o->settings, o->n_settings, e) < 0 || (o->kind != NS_CGROUP && o->n_roots))
			return err_set(e, -EBADMSG, "names or settings of a namespace");
	}
	return 0;
}

int ns_others_validate_process(const Gw__Namespaces *msg, const Gw__Process *p, struct err *e)
{
	if ((p->n_host_ids || (p->n_namespaces == NS_KINDS && p->namespaces[NS_USER])) && !ns_user_ids_are_good(p->n_host_ids, p->n_host_groups))
		return err_set(e, -EBADMSG, "process %d: %zu ids", p->pid, p->n_host_ids);
	if (p->n_namespaces && p->n_namespaces != NS_KINDS)
		return err_set(e, -EBADMSG, "process %d: %zu namespaces", p->pid, p->n_namespaces);
	if (p->children_space && (!msg || p->children_space > msg->n_others || msg->others[p->children_space - 1]->kind != NS_PID))
		return err_set(e, -EBADMSG, "process %d: a pid namespace for its children that there is not", p->pid);
	for (size_t k = 0; k < p->n_namespaces; k++) {
		uint32_t number = p->namespaces[k];

		if (number && (!msg || number > msg->n_others || msg->others[number - 1]->kind != k))
			return err_set(e, -EBADMSG, "process %d: a %s namespace that there is not", p->pid, ns_name((enum ns_kind)k));
	}
	return 0;
}

void ns_others_take_over(const Gw__Process *offered, Gw__Process *msg)
{
	if (!offered->n_namespaces || msg->n_namespaces)
		return;
	msg->namespaces = must_alloc(offered->n_namespaces * sizeof(*msg->namespaces));
	memcpy(msg->namespaces, offered->namespaces, offered->n_namespaces * sizeof(*msg->namespaces));
	msg->n_namespaces = offered->n_namespaces;
}

/* In a new one. */
static int fill(const Gw__NsOther *o, struct err *e)
{
	if (o->kind == NS_UTS && (sethostname(o->nodename, strlen(o->nodename)) < 0 || setdomainname(o->domainname, strlen(o->domainname)) < 0))
		return err_sys(e, errno, "the names of a host");
	return o->kind == NS_IPC ? ns_settings_restore(o->settings, o->n_settings, e) : 0;
}

static void put(size_t i, enum ns_kind kind, int fd)
{
	others[i] = (struct other){ kind, ns_id_of(fd), fcntl(fd, F_DUPFD_CLOEXEC, NS_HIGH_FD) };
	close(fd);
}

/* By the worker, which is in those of the first process, and comes back. */
static int make_here(const Gw__NsOther *o, struct err *e)
{
	cleanup_close int back = ns_open(0, (enum ns_kind)o->kind), fd = -1;
	int ret;

	if (back < 0 || unshare(ns_flag((enum ns_kind)o->kind)) < 0)
		return err_sys(e, errno, "a %s namespace", ns_name((enum ns_kind)o->kind));
	ret = fill(o, e);
	fd = ns_open(0, (enum ns_kind)o->kind);
	come_back(take_fd(&back), (enum ns_kind)o->kind);
	if (ret == 0 && fd < 0)
		return err_sys(e, errno, "a %s namespace", ns_name((enum ns_kind)o->kind));
	return ret < 0 ? ret : take_fd(&fd);
}

/* What a child that makes one has to say, in shared memory. */
struct making {
	int code;
	struct err e;
};

static void __attribute__((noreturn)) make_in_child(const Gw__NsOther *o, int user, struct making *m, int socket)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	m->code = o->kind == NS_CGROUP ? cgroup_roots_join(o, &m->e) : 0;
	if (m->code == 0 && user >= 0 && (m->code = ns_user_be(user, o->user)) < 0)
		err_sys(&m->e, m->code, "entering a user namespace of the unit");
	if (m->code == 0 && unshare(ns_flag((enum ns_kind)o->kind)) < 0)
		m->code = err_sys(&m->e, errno, "a %s namespace", ns_name((enum ns_kind)o->kind));
	if (m->code == 0)
		m->code = fill(o, &m->e);
	(void)!write(socket, "", 1);
	(void)!read(socket, &byte, 1); /* until it has been opened */
	_exit(0);
}

/* By a child, in the user namespace that it is to belong to (-1: the worker's), or in the control group where it is to begin. */
static int make_apart(const Gw__NsOther *o, int user, struct err *e)
{
	struct making *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int pair[2], fd = -1, ret;
	char byte;
	pid_t pid;

	if (m == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "a %s namespace", ns_name((enum ns_kind)o->kind));
	m->code = -ECHILD;
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		make_in_child(o, user, m, pair[1]);
	}
	close(pair[1]);
	ret = pid > 0 && read(pair[0], &byte, 1) == 1 ? m->code : -ECHILD;
	if (ret == 0 && (fd = ns_open(pid, (enum ns_kind)o->kind)) < 0)
		ret = -errno;
	if (ret < 0)
		err_set(e, ret, "%s", m->e.message[0] ? m->e.message : "a process that makes a namespace has ended");
	close(pair[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	munmap(m, sizeof(*m));
	return ret < 0 ? ret : fd;
}

/* -1: it is the host's. */
static int user_fd(const struct ns_made *made, uint32_t user)
{
	return user == NS_HOSTS ? -1 : user ? others[user - 1].fd : made->user;
}

static int make_one(const Gw__NsOther *o, size_t i, const struct ns_made *made, struct err *e)
{
	int user = user_fd(made, o->user), fd;

	if (o->of_host) {
		fd = ns_open_hosts((enum ns_kind)o->kind);
		return fd < 0 ? err_sys(e, errno, "the host's %s namespace", ns_name((enum ns_kind)o->kind)) : fd;
	}
	if (o->kind != NS_USER)
		return user >= 0 || o->kind == NS_CGROUP ? make_apart(o, user, e) : make_here(o, e);
	fd = ns_user_make_other(o, o->user, user, e);
	if (fd >= 0)
		ns_user_remember((uint32_t)i + 1, o->uid_map, o->gid_map, o->deny_groups, true);
	return fd;
}

/* The worker is in those of the first process. */
static int remember_first(struct err *e)
{
	first_fds[NS_NET] = ns_open(0, NS_NET);
	return first_fds[NS_NET] < 0 ? err_sys(e, errno, "a network namespace") : 0;
}

/* Those that others need, or that need no others. */
static bool comes_early(const Gw__NsOther *o)
{
	return o->of_host || (o->kind != NS_PID && o->kind != NS_MNT && o->kind != NS_TIME);
}

int ns_others_begin(const Gw__Namespaces *msg, const struct ns_made *made, struct err *e)
{
	int ret = remember_first(e);

	others = must_alloc((msg->n_others + 1) * sizeof(*others));
	for (n_others = 0; n_others < msg->n_others; n_others++)
		others[n_others] = (struct other){ (enum ns_kind)msg->others[n_others]->kind, 0, -1 };
	for (size_t i = 0; i < msg->n_others && ret >= 0; i++)
		if (comes_early(msg->others[i]) && (ret = make_one(msg->others[i], i, made, e)) >= 0)
			put(i, (enum ns_kind)msg->others[i]->kind, ret);
	return MIN(ret, 0);
}

int ns_others_make(const Gw__Namespaces *msg, const struct ns_made *made, const Gw__Clocks *first_clocks, const struct clock_offsets *offsets, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < msg->n_others && ret == 0; i++) {
		const Gw__NsOther *o = msg->others[i];
		int fd = -1;

		if (comes_early(o) || o->kind == NS_PID) /* ns_others_put */
			continue;
		if (o->kind == NS_MNT) {
			fd = ns_open(made->spaces[i], NS_MNT);
			ret = fd < 0 || place_set_space((uint32_t)i + 1, made->spaces[i]) < 0 ? err_sys(e, errno, "mount namespace %zu of the unit, which process %d holds (%d)", i + 1, made->spaces[i], fd) : 0;
		} else {
			fd = ret = clocks_make_namespace(offsets->monotonic_ns + o->monotonic_offset_ns - first_clocks->monotonic_offset_ns,
							 offsets->boottime_ns + o->boottime_offset_ns - first_clocks->boottime_offset_ns, user_fd(made, o->user), o->user, e);
			ret = MIN(ret, 0);
		}
		if (ret == 0)
			put(i, (enum ns_kind)o->kind, fd);
	}
	return ret;
}

int ns_others_find_owned(const Gw__Namespaces *msg, uint32_t user, enum ns_kind kind)
{
	for (size_t i = 0; i < msg->n_others; i++)
		if (msg->others[i]->kind == kind && !msg->others[i]->of_host && msg->others[i]->user == user)
			return others[i].fd;
	return -1;
}
