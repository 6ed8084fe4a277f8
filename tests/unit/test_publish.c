// SPDX-License-Identifier: GPL-2.0-or-later
/* test_publish.c - what is read from the rules that container engines make, as nft(8) prints them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_list.h"
#include "image/ns_publish.h"
#include "kern/netlink.h"

static void add_address(ProtobufCBinaryData *list, const char *text, uint8_t prefix)
{
	char buf[256];
	struct nlmsghdr *m = netlink_begin(buf, RTM_NEWADDR, 0, sizeof(struct ifaddrmsg));
	struct ifaddrmsg *h = mnl_nlmsg_get_payload(m);

	h->ifa_family = AF_INET;
	h->ifa_prefixlen = prefix;
	mnl_attr_put_u32(m, IFA_LOCAL, inet_addr(text));
	bytes_append(list, m, NLMSG_ALIGN(m->nlmsg_len));
}

/* A unit with the address 10.88.0.7 behind a bridge with 10.88.0.1/16. */
static Gw__Namespaces *unit(void)
{
	Gw__Namespaces *msg = must_alloc(sizeof(*msg));
	Gw__NsNet *net = must_alloc(sizeof(*net));
	Gw__NsPeer *peer = must_alloc(sizeof(*peer));

	gw__namespaces__init(msg);
	gw__ns_net__init(net);
	gw__ns_peer__init(peer);
	msg->nets = must_alloc(sizeof(*msg->nets));
	msg->nets[msg->n_nets++] = net;
	net->peers = must_alloc(sizeof(*net->peers));
	net->peers[net->n_peers++] = peer;
	net->lists = must_alloc(NET_LISTS * sizeof(*net->lists));
	net->n_lists = NET_LISTS;
	add_address(&net->lists[NET_ADDRESSES], "10.88.0.7", 16);
	add_address(&peer->bridge_addresses, "10.88.0.1", 16);
	notes_clear();
	return msg;
}

static Gw__Namespaces *read_rules(const char *rules)
{
	Gw__Namespaces *msg = unit();
	char *text = strdup(rules);

	published_read(text, msg);
	free(text);
	return msg;
}

static void expect(const Gw__Namespaces *msg, size_t i, uint32_t protocol, uint32_t port, uint32_t to_port)
{
	const Gw__NsPublished *p;

	assert_true(i < msg->nets[0]->n_published);
	p = msg->nets[0]->published[i];
	assert_int_equal(p->protocol, protocol);
	assert_int_equal(p->port, port);
	assert_int_equal(p->to_port, to_port);
	assert_int_equal(p->address, inet_addr("10.88.0.7"));
}

static void of_iptables(void **state)
{
	Gw__Namespaces *msg = read_rules("table ip nat {\n"
					 "\tchain POSTROUTING {\n"
					 "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
					 "\t\tip saddr 10.88.0.0/16 counter packets 0 bytes 0 jump NETAVARK-1D8721804F16F\n"
					 "\t}\n"
					 "\tchain NETAVARK-HOSTPORT-DNAT {\n"
					 "\t\ttcp dport 8080  counter packets 0 bytes 0 jump NETAVARK-DN-1D8721804F16F\n"
					 "\t}\n"
					 "\tchain NETAVARK-1D8721804F16F {\n"
					 "\t\tip daddr 10.88.0.0/16 counter packets 0 bytes 0 accept\n"
					 "\t\tip daddr != 224.0.0.0/4 counter packets 0 bytes 0 masquerade \n"
					 "\t}\n"
					 "\tchain NETAVARK-DN-1D8721804F16F {\n"
					 "\t\tip saddr 10.88.0.0/16 tcp dport 8080 counter packets 0 bytes 0 jump NETAVARK-HOSTPORT-SETMARK\n"
					 "\t\ttcp dport 8080 counter packets 0 bytes 0 dnat to 10.88.0.7:80\n"
					 "\t\tudp dport 5353 counter packets 0 bytes 0 dnat to 10.88.0.7:53\n"
					 "\t\ttcp dport 8081 counter packets 0 bytes 0 dnat to 10.88.0.8:80\n"
					 "\t}\n"
					 "}\n");

	assert_int_equal(msg->nets[0]->n_published, 2);
	expect(msg, 0, IPPROTO_TCP, 8080, 80);
	expect(msg, 1, IPPROTO_UDP, 5353, 53);
	assert_true(msg->nets[0]->peers[0]->masqueraded);
	assert_int_equal(notes_count(), 0);
	gw__namespaces__free_unpacked(msg, NULL);
}

static void of_nftables(void **state)
{
	Gw__Namespaces *msg = read_rules("table inet netavark {\n"
					 "\tchain nv_2f259bab_10_88_0_0_nm16 {\n"
					 "\t\tip daddr 10.88.0.0/16 accept\n"
					 "\t\tip daddr != 224.0.0.0/4 masquerade\n"
					 "\t}\n"
					 "\tchain POSTROUTING {\n"
					 "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
					 "\t\tip saddr 10.88.0.0/16 jump nv_2f259bab_10_88_0_0_nm16\n"
					 "\t}\n"
					 "\tchain nv_2f259bab_10_88_0_0_nm16_dnat {\n"
					 "\t\tip saddr 127.0.0.1 tcp dport 8080 jump NETAVARK-HOSTPORT-SETMARK\n"
					 "\t\ttcp dport 8080 dnat ip to 10.88.0.7:80\n"
					 "\t}\n"
					 "}\n");

	assert_int_equal(msg->nets[0]->n_published, 1);
	expect(msg, 0, IPPROTO_TCP, 8080, 80);
	assert_true(msg->nets[0]->peers[0]->masqueraded);
	gw__namespaces__free_unpacked(msg, NULL);
}

static void of_one_device(void **state)
{
	Gw__Namespaces *msg = read_rules("\t\tiifname != \"docker0\" tcp dport 8080 counter packets 0 bytes 0 dnat to 10.88.0.7:80\n"
					 "\t\tiifname \"eth1\" tcp dport 8081 dnat to 10.88.0.7:81\n");

	assert_int_equal(msg->nets[0]->n_published, 1);
	expect(msg, 0, IPPROTO_TCP, 8080, 80);
	assert_int_equal(notes_count(), 1);
	gw__namespaces__free_unpacked(msg, NULL);
}

/* A port that only the host itself could reach must not be opened to all elsewhere. */
static void of_one_address(void **state)
{
	Gw__Namespaces *msg = read_rules("\tchain NETAVARK-HOSTPORT-DNAT {\n"
					 "\t\tip daddr 127.0.0.1 tcp dport 8080  counter packets 0 bytes 0 jump NETAVARK-DN-1D8721804F16F\n"
					 "\t}\n"
					 "\tchain NETAVARK-DN-1D8721804F16F {\n"
					 "\t\ttcp dport 8080 counter packets 0 bytes 0 dnat to 10.88.0.7:80\n"
					 "\t}\n");

	assert_int_equal(msg->nets[0]->n_published, 0);
	assert_int_equal(notes_count(), 1);
	assert_false(msg->nets[0]->peers[0]->masqueraded);
	gw__namespaces__free_unpacked(msg, NULL);
}

static void of_many_ports(void **state)
{
	Gw__Namespaces *msg = read_rules("\t\ttcp dport 8080-8090 dnat to 10.88.0.7:80-90\n"
					 "\t\ttcp dport { 80, 443 } dnat to 10.88.0.7\n"
					 "\t\tdnat to 10.88.0.7\n"
					 "\t\ttcp dport 99999 dnat to 10.88.0.7:80\n"
					 "\t\ttcp dport 22 dnat to 10.88.0.7\n");

	assert_int_equal(msg->nets[0]->n_published, 1);
	expect(msg, 0, IPPROTO_TCP, 22, 22);
	assert_true(notes_count() > 0);
	gw__namespaces__free_unpacked(msg, NULL);
}

static void of_odd_text(void **state)
{
	static const char *const odd[] = { "", "\n", "dnat to ", " dport ", "p dport 1 dnat to 10.88.0.7:", "chain ", "ip saddr ", "jump ", "ip saddr 10.88.0.0/16 jump" };

	for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		Gw__Namespaces *msg = read_rules(odd[i]);

		assert_int_equal(msg->nets[0]->n_published, 0);
		assert_false(msg->nets[0]->peers[0]->masqueraded);
		gw__namespaces__free_unpacked(msg, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_iptables),	  cmocka_unit_test(of_nftables),   cmocka_unit_test(of_one_device),
		cmocka_unit_test(of_one_address), cmocka_unit_test(of_many_ports), cmocka_unit_test(of_odd_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
