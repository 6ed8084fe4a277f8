/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* browser.c - see browser.h */
#include "base/browser.h"

#include <string.h>
#include <strings.h>

#include "base/util.h"

/* "localhost", an address of the loopback device, each with a port or without. */
static bool is_loopback(const char *host)
{
	static const char *const names[] = { "localhost", "127.0.0.1", "[::1]" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t len = strlen(names[i]);

		if (!strncasecmp(host, names[i], len) && (!host[len] || (host[len] == ':' && !host[len + 1 + strspn(host + len + 1, "0123456789")])))
			return true;
	}
	return false;
}

bool browser_is_ours(bool over_tls, const char *host, const char *origin, const char *fetch_site, bool arrives)
{
	const char *scheme = over_tls ? "https://" : "http://";

	if (!over_tls && host && !is_loopback(host)) /* no browser leaves it out */
		return false;
	if (origin && (!host || strncmp(origin, scheme, strlen(scheme)) != 0 || strcasecmp(origin + strlen(scheme), host) != 0))
		return false;
	return !fetch_site || arrives || !strcmp(fetch_site, "same-origin") || !strcmp(fetch_site, "none");
}
