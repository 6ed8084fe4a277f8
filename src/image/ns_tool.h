/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_tool.h - programs that know the rules of filters: nft(8), iptables-save(8), ipset(8). They are run in the caller's network namespace. */
#ifndef GODWIT_IMAGE_NS_TOOL_H
#define GODWIT_IMAGE_NS_TOOL_H

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"

/* Runs a program with one of its standard descriptors at `fd`. Returns its exit status, or -errno. */
int net_tool_run(const char *const *arguments, int at, int fd);
/* An empty file without a name; the caller's. */
int net_tool_file(struct err *e);
/* What it says. -ENOENT: it is not installed. */
int net_tool_save(const char *const *arguments, ProtobufCBinaryData *ret, struct err *e);

#endif
