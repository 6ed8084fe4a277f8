/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tun_holder.c - see tun_holder.h */
#include "image/tun_holder.h"

#include <errno.h>
#include <linux/if_link.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/ns_link_internal.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/tun_helper.h"
#include "kern/fdpass.h"
#include "kern/nsfs.h"

#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif

/* How many descriptors the kernel knows of: one that is not persistent has at least one, and a carrier tells of one. */
static unsigned holders_of(const struct net_link *l)
{
	const struct nlattr *a[IFLA_TUN_MAX + 1];

	netlink_nested(l->data, a, IFLA_TUN_MAX);
	if (a[IFLA_TUN_NUM_QUEUES])
		return net_attr_u32(a[IFLA_TUN_NUM_QUEUES]) + net_attr_u32(a[IFLA_TUN_NUM_DISABLED_QUEUES]);
	return (a[IFLA_TUN_PERSIST] && !mnl_attr_get_u8(a[IFLA_TUN_PERSIST])) || (l->a[IFLA_CARRIER] && mnl_attr_get_u8(l->a[IFLA_CARRIER]));
}

static unsigned units_own(const Gw__FdTable *fds, const char *name)
{
	unsigned n = 0;

	for (size_t i = 0; fds && i < fds->n_descs; i++)
		n += fds->descs[i]->tun && !strcmp(fds->descs[i]->tun->name, name);
	return n;
}

/* A descriptor, if it is of the interface of that name, in that namespace; or -1. */
static int take_held(pid_t pid, int pidfd, int fd, const char *name, uint64_t ns)
{
	char path[64], line[128], word[64];
	cleanup_fclose FILE *f = NULL;
	cleanup_close int got = -1, in = -1;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "iff: %63s", word) == 1 && !strcmp(word, name);
	got = found ? pidfd_get(pidfd, fd, NULL) : -1;
	in = got < 0 ? -1 : ioctl(got, TUNGETDEVNETNS);
	return in >= 0 && ns_id_of(in) == ns ? take_fd(&got) : -1;
}

int tun_get_held(pid_t pid, const char *name, uint64_t ns)
{
	cleanup_close int pidfd = pidfd_open_process(pid, NULL);
	cleanup_closedir DIR *dir = NULL;
	char path[64], target[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = pidfd < 0 ? NULL : opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof(target) - 1);

		int fd = n > 0 && (target[n] = 0, !strcmp(target, "/dev/net/tun")) ? take_held(pid, pidfd, atoi(d->d_name), name, ns) : -1;

		if (fd >= 0)
			return fd;
	}
	return -1;
}

/* 0: nobody who can be seen. */
static pid_t find_holder(const char *name, uint64_t ns, char comm[64])
{
	cleanup_closedir DIR *proc = opendir("/proc");

	for (struct dirent *d; proc && (d = readdir(proc));) {
		pid_t pid = (pid_t)atoi(d->d_name);
		cleanup_close int fd = pid <= 0 || pid == getpid() ? -1 : tun_get_held(pid, name, ns);
		cleanup_fclose FILE *f = NULL;
		char path[64];

		if (fd < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		f = fopen(path, "re");
		if (!f || !fgets(comm, 64, f))
			strcpy(comm, "?");
		comm[strcspn(comm, "\n")] = 0;
		return pid;
	}
	return 0;
}

static void check_link(const struct net_link *l, uint64_t ns, Gw__NsNet *net, const Gw__FdTable *fds, struct refusals *r)
{
	char comm[64] = "", who[128] = "a process outside of the unit";
	pid_t holder;

	if (strcmp(l->kind, "tun") != 0 || holders_of(l) <= units_own(fds, l->name))
		return;
	holder = find_holder(l->name, ns, comm);
	if (holder && holders_of(l) == 1 && tun_helper_capture(holder, l->name, net))
		return;
	if (holder)
		snprintf(who, sizeof(who), "process %d (%s)", holder, comm);
	refusals_add(r, "ns.net.tun", "its packets go to a process that is none of the unit and stays behind", "connect it by a pair of devices and a bridge instead (podman run --network bridge)",
		     "network device %s, which %s holds", l->name, who);
}

void tun_check_holders(Gw__Namespaces *msg, const Gw__FdTable *fds, struct refusals *r)
{
	uint32_t number;
	Gw__NsNet *net;

	for (size_t i = 0; (net = ns_net_of(msg, i, &number)); i++) {
		uint64_t ns = number ? ns_id_of(ns_others_fd(number)) : ns_id(0, NS_NET);

		if (net->n_lists)
			net_list_for_each(m, &net->lists[NET_LINKS]) {
				struct net_link l;

				if (net_link_read(m, &l))
					check_link(&l, ns, net, number ? NULL : fds, r); /* descriptors of interfaces elsewhere are refused (tun.c) */
			}
	}
}
