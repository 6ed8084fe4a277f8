// SPDX-License-Identifier: LGPL-2.1-or-later
/* hello.c - filling, packing and checking the first frame; see hello.h */
#include "wire/hello.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/utsname.h>

#include "base/util.h"
#include "wire/frame.h"

#define TEXT_MAX 128

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t read_xcr0(void)
{
	unsigned eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return (uint64_t)edx << 32 | eax;
}
#else
static uint64_t read_xcr0(void)
{
	return 0;
}
#endif

static char *boot_id(void)
{
	static char text[TEXT_MAX];
	cleanup_close int fd = -1;
	ssize_t n;

	if (text[0])
		return text;
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return text;
}

static const char *used_arch = "";

void hello_use_arch(const char *arch)
{
	used_arch = arch;
}

const char *hello_arch(void)
{
	static struct utsname name;

	if (used_arch[0])
		return used_arch;
	uname(&name);
	return name.machine;
}

void hello_fill(Gw__Hello *hello)
{
	static struct utsname name;

	gw__hello__init(hello);
	uname(&name);
	hello->version = HELLO_VERSION;
	hello->features = HELLO_FEATURES;
	hello->boot_id = boot_id();
	hello->kernel = name.release;
	hello->arch = (char *)(uintptr_t)hello_arch();
	hello->xcr0 = read_xcr0();
	hello->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	hello->boottime_ns = clock_ns(CLOCK_BOOTTIME);
	hello->realtime_ns = clock_ns(CLOCK_REALTIME);
}

void *hello_encode(const Gw__Hello *hello, size_t *ret_len)
{
	size_t len = gw__hello__get_packed_size(hello);
	uint8_t *buffer = malloc(len ? len : 1);

	if (!buffer)
		return NULL;
	*ret_len = gw__hello__pack(hello, buffer);
	return buffer;
}

int hello_send(int fd, const Gw__Hello *hello, struct err *e)
{
	size_t len = 0;
	cleanup_free void *payload = hello_encode(hello, &len);

	if (!payload)
		return err_sys(e, -ENOMEM, "HELLO");
	return frame_send(fd, FRAME_HELLO, payload, len, e);
}

int hello_ask(int fd, uint32_t role, const char *node_name, struct err *e)
{
	static uint8_t no_migration[HELLO_MIG_ID_BYTES];
	Gw__Hello hello;

	hello_fill(&hello);
	hello.role = role;
	hello.node_name = (char *)(uintptr_t)node_name;
	hello.mig_id = (ProtobufCBinaryData){ sizeof(no_migration), no_migration };
	return hello_send(fd, &hello, e);
}

bool hello_name_valid(const char *name)
{
	size_t i, len = strnlen(name, HELLO_NAME_MAX + 1);

	if (!len || len > HELLO_NAME_MAX)
		return false;
	for (i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	return name[0] != '.' && name[0] != '-';
}

/* Short printable text, which may go into messages. */
static bool text_valid(const char *text)
{
	size_t i, len = strnlen(text, TEXT_MAX);

	for (i = 0; i < len; i++)
		if (!isprint((unsigned char)text[i]))
			return false;
	return len < TEXT_MAX;
}

int hello_validate(const Gw__Hello *hello, struct err *e)
{
	if (hello->version != HELLO_VERSION)
		return err_set(e, -EPROTONOSUPPORT, "the peer speaks version %u of the protocol, this node version %u: install the same release on both",
			       hello->version, HELLO_VERSION);
	if (hello->mig_id.len != HELLO_MIG_ID_BYTES)
		return err_set(e, -EPROTO, "HELLO: expected a migration id of %u bytes, got %zu", HELLO_MIG_ID_BYTES, hello->mig_id.len);
	if (hello->role > HELLO_ROLE_MAX)
		return err_set(e, -EPROTO, "HELLO: expected a role from 0 to %u, got %u", HELLO_ROLE_MAX, hello->role);
	if (!hello_name_valid(hello->node_name))
		return err_set(e, -EPROTO, "HELLO: the node name has characters or a length that are not allowed");
	if (!text_valid(hello->boot_id) || !text_valid(hello->kernel) || !text_valid(hello->arch))
		return err_set(e, -EPROTO, "HELLO: boot id, kernel or architecture is no short printable text");
	return 0;
}

int hello_decode(const void *payload, size_t len, Gw__Hello **ret, struct err *e)
{
	cleanup_hello Gw__Hello *hello = NULL;
	int r;

	if (len > FRAME_HELLO_MAX)
		return err_set(e, -EPROTO, "HELLO: expected at most %u bytes, got %zu", FRAME_HELLO_MAX, len);
	hello = gw__hello__unpack(NULL, len, payload);
	if (!hello)
		return err_set(e, -EPROTO, "HELLO: %zu bytes that are no Hello message", len);
	r = hello_validate(hello, e);
	if (r < 0)
		return r;
	*ret = take_ptr(hello);
	return 0;
}

void hello_free(Gw__Hello **hello)
{
	if (*hello)
		gw__hello__free_unpacked(*hello, NULL);
	*hello = NULL;
}

uint64_t hello_common_features(const Gw__Hello *peer)
{
	return peer->features & HELLO_FEATURES;
}
