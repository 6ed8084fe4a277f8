/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tun.c - tun and tap interfaces; see tun.h */
#include "image/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/bytes.h"
#include "kern/nsfs.h"

#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif
#define TUN_MINOR 200
#define ADDRESSES_MAX 256u
#define HEADER_BYTES_MAX 4096u
#define FLAGS_SET (IFF_TUN | IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | IFF_NAPI | IFF_NAPI_FRAGS | IFF_DETACH_QUEUE)
/* linux/if.h, which has it, does not go with net/if.h. */
#define FLAG_UP 1

bool tun_is_one(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && major(st->st_rdev) == 10 && minor(st->st_rdev) == TUN_MINOR;
}

static int refuse(const struct fd_look *look, const char *cause, const char *way_out, const char *name, struct refusals *refusals)
{
	refusals_add(refusals, "fd.tun", cause, way_out, "fd %d (/dev/net/tun%s%s)", look->fd, name[0] ? ", interface " : "", name);
	return FD_REFUSED;
}

static uint32_t prefix_of(const uint8_t *mask, size_t len)
{
	uint32_t n = 0;

	for (size_t i = 0; i < len * 8 && mask[i / 8] & (0x80 >> i % 8); i++)
		n++;
	return n;
}

static const void *address_bytes(const struct sockaddr *a, size_t *ret_len)
{
	*ret_len = a->sa_family == AF_INET ? 4 : 16;
	return a->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)(const void *)a)->sin_addr :
		(const void *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
}

static void add_address(Gw__FdTun *t, const struct ifaddrs *i)
{
	Gw__FdTunAddress *a = fd_alloc(sizeof(*a));
	const void *bytes;
	size_t len;

	gw__fd_tun_address__init(a);
	a->family = i->ifa_addr->sa_family;
	bytes = address_bytes(i->ifa_addr, &len);
	bytes_set(&a->local, bytes, len);
	if (i->ifa_netmask) {
		bytes = address_bytes(i->ifa_netmask, &len);
		a->prefix = prefix_of(bytes, len);
	}
	if ((i->ifa_flags & IFF_POINTOPOINT) && i->ifa_dstaddr) {
		bytes = address_bytes(i->ifa_dstaddr, &len);
		if (memcmp(bytes, a->local.data, len))
			bytes_set(&a->remote, bytes, len);
	}
	fd_append(&t->addresses, &t->n_addresses, a);
}

static void capture_addresses(Gw__FdTun *t)
{
	struct ifaddrs *all, *i;

	for (size_t j = 0; j < t->n_addresses; j++)
		gw__fd_tun_address__free_unpacked(t->addresses[j], NULL);
	free(t->addresses);
	t->addresses = NULL;
	t->n_addresses = 0;
	if (getifaddrs(&all) < 0)
		return;
	for (i = all; i; i = i->ifa_next) {
		if (strcmp(i->ifa_name, t->name) || !i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
			continue;
		/* Link-local ones come by themselves. */
		if (i->ifa_addr->sa_family == AF_INET6 &&
		    IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr))
			continue;
		add_address(t, i);
	}
	freeifaddrs(all);
}

static int32_t read_id(const char *interface, const char *what)
{
	char path[128];
	cleanup_fclose FILE *f = NULL;
	long id = -1;

	snprintf(path, sizeof(path), "/sys/class/net/%s/%s", interface, what);
	f = fopen(path, "re");
	return f && fscanf(f, "%ld", &id) == 1 ? (int32_t)id : -1;
}

static void capture_interface(Gw__FdTun *t)
{
	cleanup_close int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = { 0 };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", t->name);
	if (ioctl(s, SIOCGIFMTU, &r) == 0)
		t->mtu = (uint32_t)r.ifr_mtu;
	if (ioctl(s, SIOCGIFFLAGS, &r) == 0)
		t->up = r.ifr_flags & FLAG_UP;
	if ((t->flags & IFF_TAP) && ioctl(s, SIOCGIFHWADDR, &r) == 0)
		bytes_set(&t->hardware_address, r.ifr_hwaddr.sa_data, 6);
	t->owner = read_id(t->name, "owner");
	t->group = read_id(t->name, "group");
	capture_addresses(t);
}

static bool same_namespace(int fd)
{
	cleanup_close int ns = ioctl(fd, TUNGETDEVNETNS);

	return ns < 0 || ns_id_of(ns) == ns_id(0, NS_NET);
}

int tun_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, struct refusals *refusals, struct err *e)
{
	struct pollfd p = { .fd = look->held, .events = POLLIN };
	Gw__FdTun *t = d->tun;
	struct ifreq r = { 0 };
	int value = 0;
	bool attached = ioctl(look->held, TUNGETIFF, &r) == 0;

	if (!t) {
		t = d->tun = fd_alloc(sizeof(*t));
		gw__fd_tun__init(t);
		t->owner = t->group = -1;
		if (attached)
			t->name = fd_strdup(r.ifr_name);
	}
	if (attached != (t->name[0] != '\0') || (attached && strcmp(t->name, r.ifr_name)))
		return err_set(e, -EAGAIN, "fd %d: another interface than before; try again", look->fd);
	if (!attached)
		return 0;
	if (!same_namespace(look->held))
		return refuse(look, "interfaces of another network namespace cannot move yet", "run it in the host's network namespace", t->name,
			refusals);
	if (frozen && poll(&p, 1, 0) == 1 && (p.revents & POLLIN))
		return err_set(e, -EAGAIN, "fd %d: packets wait in its interface and cannot be put into another; try again when the program has "
			"read them", look->fd);
	t->flags = (uint32_t)(unsigned short)r.ifr_flags & FLAGS_SET;
	t->persist = (unsigned short)r.ifr_flags & IFF_PERSIST;
	if (ioctl(look->held, TUNGETVNETHDRSZ, &value) == 0)
		t->header_bytes = (uint32_t)value;
	if (ioctl(look->held, TUNGETSNDBUF, &value) == 0)
		t->send_buffer = value;
	capture_interface(t);
	return 0;
}

int tun_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdTun *t = d->tun;

	if (!t || strlen(t->name) >= IFNAMSIZ || strchr(t->name, '/') || strchr(t->name, '%') || (t->flags & ~FLAGS_SET) ||
	    t->n_addresses > ADDRESSES_MAX)
		return err_set(e, -EPROTO, "tun: name or flags");
	if (t->name[0] && ((t->flags & (IFF_TUN | IFF_TAP)) == 0 || t->header_bytes > HEADER_BYTES_MAX || t->mtu > 65535))
		return err_set(e, -EPROTO, "tun: flags %#x, header %u", t->flags, t->header_bytes);
	if (t->hardware_address.len && t->hardware_address.len != 6)
		return err_set(e, -EPROTO, "tun: hardware address of %zu bytes", t->hardware_address.len);
	for (size_t i = 0; i < t->n_addresses; i++) {
		const Gw__FdTunAddress *a = t->addresses[i];
		size_t len = a->family == AF_INET ? 4 : a->family == AF_INET6 ? 16 : 0;

		if (!len || a->local.len != len || (a->remote.len && a->remote.len != len) || a->prefix > len * 8)
			return err_set(e, -EPROTO, "tun: address %zu", i);
	}
	return 0;
}

static int attach(const Gw__FdTun *t, int fd, struct err *e)
{
	struct ifreq r = { .ifr_flags = (short)(t->flags & ~IFF_DETACH_QUEUE) }, detach = { .ifr_flags = IFF_DETACH_QUEUE };
	int header = (int)t->header_bytes;

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", t->name);
	if (ioctl(fd, TUNSETIFF, &r) < 0)
		return err_sys(e, -errno, "/dev/net/tun: making the interface %s on this host", t->name);
	if (header && ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
		return err_sys(e, -errno, "interface %s: its header of %d bytes", t->name, header);
	if (t->send_buffer > 0 && ioctl(fd, TUNSETSNDBUF, &t->send_buffer) < 0)
		return err_sys(e, -errno, "interface %s: its send buffer", t->name);
	if ((t->owner >= 0 && ioctl(fd, TUNSETOWNER, (long)t->owner) < 0) || (t->group >= 0 && ioctl(fd, TUNSETGROUP, (long)t->group) < 0))
		return err_sys(e, -errno, "interface %s: its owner", t->name);
	if (t->flags & IFF_DETACH_QUEUE && ioctl(fd, TUNSETQUEUE, &detach) < 0)
		return err_sys(e, -errno, "interface %s: a queue that is switched off", t->name);
	return 0;
}

int tun_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	int r = fd < 0 ? err_sys(e, -errno, "/dev/net/tun on this host") : d->tun->name[0] ? attach(d->tun, fd, e) : 0;

	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void put_attribute(struct nlmsghdr *head, unsigned short type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((char *)head + NLMSG_ALIGN(head->nlmsg_len));

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	head->nlmsg_len = (uint32_t)(NLMSG_ALIGN(head->nlmsg_len) + RTA_ALIGN(a->rta_len));
}

static int set_address(int nl, unsigned int index, const Gw__FdTunAddress *a, const char *name, struct err *e)
{
	struct {
		struct nlmsghdr head;
		struct ifaddrmsg address;
		char attributes[128];
	} m = {
		.head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)), .nlmsg_type = RTM_NEWADDR,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE },
		.address = { .ifa_family = (unsigned char)a->family, .ifa_prefixlen = (unsigned char)a->prefix, .ifa_index = index,
			.ifa_flags = a->family == AF_INET6 ? IFA_F_NODAD : 0 },
	};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[512];
	} answer;
	const ProtobufCBinaryData *other = a->remote.len ? &a->remote : &a->local;

	put_attribute(&m.head, IFA_LOCAL, a->local.data, a->local.len);
	put_attribute(&m.head, IFA_ADDRESS, other->data, other->len);
	if (send(nl, &m, m.head.nlmsg_len, 0) < 0 || recv(nl, &answer, sizeof(answer), 0) < (ssize_t)sizeof(answer.head))
		return err_sys(e, -errno, "interface %s: an address", name);
	if (answer.head.nlmsg_type == NLMSG_ERROR && answer.error.error)
		return err_sys(e, answer.error.error, "interface %s: an address", name);
	return 0;
}

static int set_addresses(const Gw__FdTun *t, struct err *e)
{
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	unsigned int index = if_nametoindex(t->name);
	int r = 0;

	for (size_t i = 0; i < t->n_addresses && r == 0; i++)
		r = set_address(nl, index, t->addresses[i], t->name, e);
	return r;
}

int tun_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	const Gw__FdTun *t = d->tun;
	cleanup_close int s = -1;
	struct ifreq r = { 0 };
	int result;

	if (!t->name[0])
		return 0;
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", t->name);
	if (t->hardware_address.len) {
		r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(r.ifr_hwaddr.sa_data, t->hardware_address.data, 6);
		if (ioctl(s, SIOCSIFHWADDR, &r) < 0)
			return err_sys(e, -errno, "interface %s: its hardware address", t->name);
	}
	r.ifr_mtu = (int)t->mtu;
	if (t->mtu && ioctl(s, SIOCSIFMTU, &r) < 0)
		return err_sys(e, -errno, "interface %s: an MTU of %u", t->name, t->mtu);
	result = set_addresses(t, e);
	if (result < 0)
		return result;
	if (ioctl(s, SIOCGIFFLAGS, &r) < 0)
		return err_sys(e, -errno, "interface %s", t->name);
	r.ifr_flags = (short)(t->up ? r.ifr_flags | FLAG_UP : r.ifr_flags & ~FLAG_UP);
	if (ioctl(s, SIOCSIFFLAGS, &r) < 0)
		return err_sys(e, -errno, "interface %s: switching it on", t->name);
	/* One in a network namespace of the unit's own was made to stay (ns_link_make.c). */
	if (ioctl(fd, TUNSETPERSIST, (long)t->persist) < 0)
		return err_sys(e, -errno, "interface %s: TUNSETPERSIST", t->name);
	return 0;
}
