/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* address.c - see address.h */
#include "net/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <stdlib.h>

#include "base/util.h"
#include "net/redirect_internal.h"

#define ROUTE_TRIES 30
#define ROUTE_AGAIN_US 10000
#define ROUNDS 3u
#define ROUND_MS 30

bool address_is_ipv4(const struct owned_address *a)
{
	return host_is_ipv4(a->address);
}

static int family_of(const struct owned_address *a)
{
	return address_is_ipv4(a) ? AF_INET : AF_INET6;
}

static const uint8_t *bytes_of(const struct owned_address *a)
{
	return address_is_ipv4(a) ? a->address + 12 : a->address;
}

static unsigned bits_of(const struct owned_address *a)
{
	return address_is_ipv4(a) ? 32 : 128;
}

/* --- as text --- */

/* Such as one host can have for itself. */
static bool is_one_hosts(const struct owned_address *a)
{
	const struct in6_addr *v6 = (const void *)a->address;
	uint8_t first = a->address[12];

	if (address_is_ipv4(a))
		return first && first != 127 && first < 224;
	return !IN6_IS_ADDR_UNSPECIFIED(v6) && !IN6_IS_ADDR_LOOPBACK(v6) && !IN6_IS_ADDR_MULTICAST(v6) && !IN6_IS_ADDR_LINKLOCAL(v6);
}

static bool is_device_name(const char *name)
{
	size_t n = 0;

	while (n < IFNAMSIZ && name[n] && name[n] != '/' && name[n] != ':' && !isspace((unsigned char)name[n]) && !iscntrl((unsigned char)name[n]))
		n++;
	return n < IFNAMSIZ && !name[n] && strcmp(name, ".") && strcmp(name, "..");
}

static bool read_address(const char *text, struct owned_address *ret)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	memcpy(ret->address, mapped, sizeof(mapped));
	return inet_pton(AF_INET, text, ret->address + 12) == 1 || (inet_pton(AF_INET6, text, ret->address) == 1 && !address_is_ipv4(ret));
}

int address_parse(const char *text, struct owned_address *ret, struct err *e)
{
	struct owned_address a = { .prefix = 0 };
	char copy[ADDRESS_TEXT], *device, *prefix, *end = NULL;
	unsigned long bits = 0;

	snprintf(copy, sizeof(copy), "%s", strlen(text) < sizeof(copy) ? text : "");
	device = strchr(copy, '%');
	if (device)
		*device++ = 0;
	prefix = strchr(copy, '/');
	if (prefix) {
		*prefix++ = 0;
		bits = isdigit((unsigned char)*prefix) ? strtoul(prefix, &end, 10) : 0;
	}
	if (!read_address(copy, &a) || !is_one_hosts(&a))
		return err_set(e, -EINVAL, "address '%.60s': an address of one host is expected, as 10.0.0.50/24 or fd00::50/64%%eth0", text);
	if (prefix && (!bits || *end || bits > bits_of(&a)))
		return err_set(e, -EINVAL, "address '%.60s': the length of its network is a number from 1 to %u", text, bits_of(&a));
	if (device && (!*device || !is_device_name(device)))
		return err_set(e, -EINVAL, "address '%.60s': the name of a device is expected behind '%%'", text);
	a.prefix = (uint8_t)bits;
	snprintf(a.device, sizeof(a.device), "%.15s", device ? device : "");
	*ret = a;
	return 0;
}

const char *address_text(const struct owned_address *a, char text[ADDRESS_TEXT])
{
	char number[INET6_ADDRSTRLEN] = "?";

	inet_ntop(family_of(a), bytes_of(a), number, sizeof(number));
	if (a->prefix)
		snprintf(text, ADDRESS_TEXT, "%s/%u", number, a->prefix);
	else
		snprintf(text, ADDRESS_TEXT, "%s", number);
	return text;
}

const char *address_text_whole(const struct owned_address *a, char text[ADDRESS_TEXT])
{
	size_t len = strlen(address_text(a, text));

	if (a->device[0])
		snprintf(text + len, ADDRESS_TEXT - len, "%%%s", a->device);
	return text;
}

/* --- devices --- */

struct device {
	const char *name; /* that is looked for; NULL: by its number */
	uint32_t index;
	uint8_t hardware[6];
	char found[IFNAMSIZ];
	bool up, ethernet;
};

static int on_link(const struct nlmsghdr *m, void *arg)
{
	const struct ifinfomsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *a[IFLA_MAX + 1];
	struct device *d = arg;

	if (m->nlmsg_type != RTM_NEWLINK)
		return 0;
	netlink_attributes(m, sizeof(*h), a, IFLA_MAX);
	d->index = (uint32_t)h->ifi_index;
	d->up = h->ifi_flags & IFF_UP;
	d->ethernet = h->ifi_type == ARPHRD_ETHER && a[IFLA_ADDRESS] && mnl_attr_get_payload_len(a[IFLA_ADDRESS]) == 6;
	if (d->ethernet)
		memcpy(d->hardware, mnl_attr_get_payload(a[IFLA_ADDRESS]), 6);
	if (a[IFLA_IFNAME] && !mnl_attr_validate(a[IFLA_IFNAME], MNL_TYPE_NUL_STRING))
		snprintf(d->found, sizeof(d->found), "%.15s", mnl_attr_get_str(a[IFLA_IFNAME]));
	return 0;
}

static int find_device(struct netlink *nl, struct device *d)
{
	char buf[512];
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETLINK, 0, sizeof(struct ifinfomsg));

	((struct ifinfomsg *)mnl_nlmsg_get_payload(m))->ifi_index = d->name ? 0 : (int)d->index;
	if (d->name)
		mnl_attr_put_strz(m, IFLA_IFNAME, d->name);
	d->index = 0;
	return netlink_ask(nl, m, on_link, d) < 0 || !d->index ? -ENODEV : 0;
}

/* The network with the longest prefix that has the address in it. */
struct search {
	const struct owned_address *a;
	uint32_t index;
	unsigned prefix;
	bool here;
	uint32_t device;     /* if it is not 0: one of the host's own addresses there, rather of the same network */
	uint8_t source[16];
	int source_prefix;   /* -1: none */
};

static bool is_within(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	for (unsigned i = 0; i < bits; i++)
		if ((a[i / 8] ^ b[i / 8]) & 0x80 >> i % 8)
			return false;
	return true;
}

static void look_at_source(struct search *s, const struct ifaddrmsg *h, const uint8_t *address)
{
	int prefix = is_within(address, bytes_of(s->a), h->ifa_prefixlen) ? h->ifa_prefixlen : 0;

	/* Neither this one nor that of another unit. */
	if (h->ifa_index != s->device || h->ifa_scope != RT_SCOPE_UNIVERSE || h->ifa_flags & (IFA_F_SECONDARY | IFA_F_DEPRECATED) || prefix <= s->source_prefix ||
	    is_within(address, bytes_of(s->a), bits_of(s->a)))
		return;
	memcpy(s->source, address, bits_of(s->a) / 8);
	s->source_prefix = prefix;
}

static int on_address(const struct nlmsghdr *m, void *arg)
{
	const struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);
	const struct nlattr *a[IFA_MAX + 1], *local;
	struct search *s = arg;

	if (m->nlmsg_type != RTM_NEWADDR || h->ifa_family != family_of(s->a) || h->ifa_prefixlen > bits_of(s->a))
		return 0;
	netlink_attributes(m, sizeof(*h), a, IFA_MAX);
	local = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
	if (!local || mnl_attr_get_payload_len(local) != bits_of(s->a) / 8)
		return 0;
	look_at_source(s, h, mnl_attr_get_payload(local));
	if (is_within(mnl_attr_get_payload(local), bytes_of(s->a), bits_of(s->a)))
		s->here = true;
	else if (h->ifa_scope != RT_SCOPE_HOST && h->ifa_prefixlen && h->ifa_prefixlen > s->prefix &&
		 is_within(mnl_attr_get_payload(local), bytes_of(s->a), h->ifa_prefixlen)) {
		s->index = h->ifa_index;
		s->prefix = h->ifa_prefixlen;
	}
	return 0;
}

static int search(struct netlink *nl, const struct owned_address *a, uint32_t device, struct search *ret)
{
	char buf[512];
	struct nlmsghdr *m = netlink_begin(buf, RTM_GETADDR, 0, sizeof(struct ifaddrmsg));

	((struct ifaddrmsg *)mnl_nlmsg_get_payload(m))->ifa_family = (uint8_t)family_of(a);
	*ret = (struct search){ .a = a, .device = device, .source_prefix = -1 };
	return netlink_dump(nl, m, on_address, ret);
}

int address_choose_device(struct netlink *nl, struct owned_address *a, struct err *e)
{
	struct device d = { .name = a->device[0] ? a->device : NULL };
	char text[ADDRESS_TEXT];
	struct search s;
	int r = search(nl, a, 0, &s);

	if (r < 0)
		return netlink_error(nl, r, e, "reading the addresses of this host");
	address_text(a, text);
	if (!d.name && !s.index)
		return err_set(e, -ENODEV, "no device of this host is in the network of %s: say which one (%s%%DEVICE)", text, text);
	d.index = s.index;
	if (find_device(nl, &d) < 0)
		return err_set(e, -ENODEV, "address %s: this host has no device %s", text, a->device);
	if (!d.up || !d.ethernet)
		return err_set(e, -ENODEV, "address %s: device %s is not %s", text, d.found, d.up ? "one of Ethernet" : "up");
	memcpy(a->on, d.found, sizeof(a->on));
	if (!a->prefix)
		a->prefix = (uint8_t)(s.index == d.index ? s.prefix : bits_of(a));
	return 0;
}

bool address_is_here(struct netlink *nl, const struct owned_address *a)
{
	struct search s;

	return search(nl, a, 0, &s) == 0 && s.here;
}

int address_device(struct netlink *nl, const struct owned_address *a, uint32_t *ret_device, uint8_t ret_hardware[6], struct err *e)
{
	struct device d = { .name = a->on };

	if (find_device(nl, &d) < 0)
		return err_set(e, -ENODEV, "this host has no device %s any more", a->on);
	*ret_device = d.index;
	memcpy(ret_hardware, d.hardware, 6);
	return 0;
}

static int neighbour_of(struct netlink *nl, int ns, const struct owned_address *a, struct neighbour *ret, uint8_t hardware[6])
{
	*ret = (struct neighbour){ .ns = ns, .family = family_of(a) };
	memcpy(ret->address, bytes_of(a), bits_of(a) / 8);
	return address_device(nl, a, &ret->device, hardware, NULL);
}

enum neighbour_answer address_ask(struct netlink *nl, int ns, const struct owned_address *a, const uint8_t expected[6], uint8_t other[6])
{
	struct neighbour n;
	uint8_t hardware[6];

	return neighbour_of(nl, ns, a, &n, hardware) < 0 ? NEIGHBOUR_NOBODY : neighbour_ask(&n, ROUNDS, ROUND_MS, expected, other);
}

void address_announce(struct netlink *nl, const struct owned_address *a)
{
	struct neighbour n;
	uint8_t hardware[6];

	if (neighbour_of(nl, -1, a, &n, hardware) == 0)
		neighbour_announce(&n, hardware);
}

/* --- at the device --- */

static int change(struct netlink *nl, const struct owned_address *a, uint16_t type, struct err *e)
{
	struct device d = { .name = a->on };
	struct ifa_cacheinfo deprecated = { .ifa_prefered = 0, .ifa_valid = UINT32_MAX };
	uint16_t len = (uint16_t)(bits_of(a) / 8);
	char buf[512], text[ADDRESS_TEXT];
	struct nlmsghdr *m;
	int r;

	if (find_device(nl, &d) < 0)
		return type == RTM_DELADDR ? 0 : err_set(e, -ENODEV, "address %s: this host has no device %s any more", address_text(a, text), a->on);
	m = netlink_begin(buf, type, type == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof(struct ifaddrmsg));
	*(struct ifaddrmsg *)mnl_nlmsg_get_payload(m) = (struct ifaddrmsg){ .ifa_family = (uint8_t)family_of(a), .ifa_prefixlen = a->prefix, .ifa_index = d.index };
	mnl_attr_put(m, IFA_LOCAL, len, bytes_of(a));
	mnl_attr_put(m, IFA_ADDRESS, len, bytes_of(a));
	if (type == RTM_NEWADDR && !address_is_ipv4(a)) {
		mnl_attr_put_u32(m, IFA_FLAGS, IFA_F_NODAD);
		mnl_attr_put(m, IFA_CACHEINFO, sizeof(deprecated), &deprecated);
	}
	r = netlink_do(nl, m);
	if (r == -EEXIST || (type == RTM_DELADDR && r == -EADDRNOTAVAIL))
		r = 0;
	return r < 0 ? netlink_error(nl, r, e, "address %s at device %s", address_text(a, text), a->on) : 0;
}

int address_add(struct netlink *nl, const struct owned_address *a, struct err *e)
{
	return change(nl, a, RTM_NEWADDR, e);
}

/* The kernel's own has protocol "kernel", in version 6 metric 0, which no other can have. */
static int change_route(struct netlink *nl, const struct owned_address *a, uint16_t type, uint32_t device, uint8_t protocol, const uint8_t *source)
{
	uint16_t len = (uint16_t)(bits_of(a) / 8);
	char buf[512];
	struct nlmsghdr *m = netlink_begin(buf, type, type == RTM_NEWROUTE ? NLM_F_CREATE : 0, sizeof(struct rtmsg));

	*(struct rtmsg *)mnl_nlmsg_get_payload(m) = (struct rtmsg){ .rtm_family = (uint8_t)family_of(a), .rtm_dst_len = (uint8_t)bits_of(a), .rtm_table = RT_TABLE_LOCAL,
								      .rtm_protocol = protocol, .rtm_scope = address_is_ipv4(a) ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE, .rtm_type = RTN_LOCAL };
	mnl_attr_put(m, RTA_DST, len, bytes_of(a));
	mnl_attr_put_u32(m, RTA_OIF, device);
	if (source)
		mnl_attr_put(m, RTA_PREFSRC, len, source);
	return netlink_do(nl, m);
}

void address_spare(struct netlink *nl, const struct owned_address *a)
{
	struct device d = { .name = a->on };
	struct search s;
	int r;

	if (find_device(nl, &d) < 0 || search(nl, a, d.index, &s) < 0 || !s.here || s.source_prefix < 0)
		return;
	/* In version 4 it comes before the kernel's. In version 6 it comes behind, so the kernel's goes, which is made some time after the address. */
	r = change_route(nl, a, RTM_NEWROUTE, d.index, RTPROT_STATIC, s.source);
	if ((r == 0 || r == -EEXIST) && !address_is_ipv4(a))
		for (int i = 0; i < ROUTE_TRIES && change_route(nl, a, RTM_DELROUTE, d.index, RTPROT_KERNEL, NULL) == -ESRCH; i++)
			usleep(ROUTE_AGAIN_US);
}

int address_remove(struct netlink *nl, const struct owned_address *a, struct err *e)
{
	struct device d = { .name = a->on };

	if (find_device(nl, &d) == 0)
		change_route(nl, a, RTM_DELROUTE, d.index, RTPROT_STATIC, NULL);
	return change(nl, a, RTM_DELADDR, e);
}
