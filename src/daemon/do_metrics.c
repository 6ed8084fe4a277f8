// SPDX-License-Identifier: GPL-2.0-or-later
/* do_metrics.c - the metrics of this node, for `godwit metrics` and godwit-api */
#include <errno.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/metrics.h"
#include "daemon/reply.h"

int do_metrics(const struct daemon *d, int fd)
{
	cleanup_free char *text = NULL;
	struct err e = ERR_INIT;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool good = f != NULL;

	if (f) {
		metrics_write(d, f);
		good = fclose(f) == 0;
	}
	if (!good) {
		err_sys(&e, -errno, "metrics");
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	reply_result(fd, json_pack("{s:s}", "text", text));
	return 0;
}
