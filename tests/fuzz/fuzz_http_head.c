// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_http_head.c - what a browser, or who pretends to be one, sends to `godwit dashboard` */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/browser.h"
#include "base/http_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t head_len = http_head_length((const char *)data, len), written;
	struct http_head head, again;
	struct err e = ERR_INIT;
	char text[HTTP_HEAD_MAX];

	if (http_head_parse((const char *)data, head_len, &head, &e) < 0) {
		if (!e.message[0])
			abort();
		return 0;
	}
	(void)browser_is_ours(false, head.host, head.origin, head.fetch_site, false);
	/* What is passed on says the same, and is one request. */
	written = http_head_write(&head, text, sizeof(text));
	if (written >= sizeof(text) || http_head_length(text, written) != written || http_head_parse(text, written, &again, &e) < 0 || strcmp(again.target, head.target) != 0 ||
	    strcmp(again.method, head.method) != 0 || again.body_len != head.body_len || strcmp(again.last_event_id, head.last_event_id) != 0)
		abort();
	return 0;
}
