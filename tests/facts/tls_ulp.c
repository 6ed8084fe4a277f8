// SPDX-License-Identifier: GPL-2.0-or-later
/* tls_ulp.c - whether the kernel could take TLS over from a relay after the handshake (TCP_ULP "tls"); Godwit does not depend on it */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "fact.h"

#ifndef TCP_ULP
#define TCP_ULP 31
#endif

int main(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int l = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0), ret;

	MUST(bind(l, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(l, 1) == 0 && getsockname(l, (struct sockaddr *)&at, &len) == 0);
	MUST(connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	ret = setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3);
	FACT(ret == 0 || errno == ENOENT, "it says whether it has it: %s", ret == 0 ? "it has" : "it has not");
	return fact_result();
}
