/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * browser.h - whether a page of ours has made a browser send a request, or somebody else's
 *
 * A browser on the same machine reaches what listens on a loopback address, and it runs programs of strangers. What it says of a request cannot be forged by them: Host is the name by which the
 * page's server was reached, which is not a loopback one when a stranger's name leads here (DNS rebinding); Origin and Sec-Fetch-Site say whose page asks (Fetch Standard, Fetch Metadata).
 */
#ifndef GODWIT_BASE_BROWSER_H
#define GODWIT_BASE_BROWSER_H

#include <stdbool.h>

/* over_tls: then the name is one that a certificate is for, and not looked at. Each of the others is a header's value, or NULL: it is absent. arrives: it is a page that is asked for, to which a link may lead from anywhere. */
bool browser_is_ours(bool over_tls, const char *host, const char *origin, const char *fetch_site, bool arrives);

#endif
