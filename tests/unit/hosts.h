/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hosts.h - three hosts on one link and one outside, as network namespaces of this process; and TCP connections taken and made with TCP_REPAIR */
#ifndef GODWIT_TESTS_HOSTS_H
#define GODWIT_TESTS_HOSTS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum host { A, B, C, OUTSIDE, HOSTS };

/* Makes them, in namespaces of our own with an empty /run. False: not permitted here. */
bool hosts_make(void);
void hosts_enter(enum host h);
/* Takes the cable of a host out of the switch, or puts it back. */
void hosts_cut(enum host h, bool cut);
/* 10.77.0.1 and so on, fd77::1. */
void hosts_address(enum host h, int family, uint16_t port, struct sockaddr_storage *ret);
socklen_t hosts_address_len(const struct sockaddr_storage *a);

struct taken {
	uint32_t seq[2]; /* of what is received, of what is sent */
	uint8_t *data[2];
	uint32_t n[2], unsent;
	uint32_t timestamp;
	struct { uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup; } window;
	uint8_t wscale_send, wscale_receive, options;
	int mss, mss_clamp;
};

/* The socket is in repair mode then: closing it says nothing to anybody. */
void tcp_take(int fd, struct taken *t);
/* In the current host. -1 with errno. live: called just before it is let out of repair mode. */
int tcp_make(struct taken *t, const struct sockaddr_storage *own, const struct sockaddr_storage *peer, void (*live)(void *), void *arg);

#endif
