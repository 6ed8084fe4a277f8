// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_config.c - godwit.conf */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	cleanup_free char *text = malloc(len + 1);
	struct err e = ERR_INIT;
	struct config config;

	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = 0;
	config_init(&config);
	if (config_parse(&config, text, "input", &e) < 0 && !e.message[0])
		abort();
	if (!hello_name_valid(config.name) || config.n_nodes > CONFIG_NODES_MAX)
		abort();
	config_free(&config);
	return 0;
}
