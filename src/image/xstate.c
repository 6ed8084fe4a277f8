/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xstate.c - the extended processor state between two hosts; see xstate.h */
#include "image/xstate.h"

#include <cpuid.h>

#include "base/util.h"
#include "image/bytes.h"

#define XSTATE_BV_AT 512
#define MXCSR_AT 24
#define X87_REGISTERS_AT 32
#define SSE_REGISTERS_AT 160
#define SSE_REGISTERS_LEN 256
#define XSTATE_PKRU 9
#define SOFTWARE_AT 464 /* bytes for software use, where the kernel puts its XCR0 */

const struct xstate_layout *xstate_layout_here(void)
{
	static struct xstate_layout here;
	uint32_t a, b, c, d;

	if (here.len)
		return &here;
	if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d)) {
		here.features = 3;
		here.len = XSTATE_LEGACY_LEN;
		return &here;
	}
	here.features = (uint64_t)d << 32 | a;
	here.len = b;
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		if (!(here.features >> i & 1))
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		here.component[i].size = a;
		here.component[i].offset = b;
	}
	return &here;
}

size_t xstate_used_len(const void *area, size_t len)
{
	const struct xstate_layout *here = xstate_layout_here();
	size_t used = XSTATE_LEGACY_LEN;
	uint64_t in_use;

	if (len < XSTATE_LEGACY_LEN)
		return len;
	memcpy(&in_use, (const uint8_t *)area + XSTATE_BV_AT, sizeof(in_use));
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
		if (in_use >> i & 1)
			used = MAX(used, (size_t)here->component[i].offset + here->component[i].size);
	return MIN(used, len);
}

/* What a compacted area has for each component, those of the kernel's own included: Intel SDM volume 1, 13.4.3. */
struct compact {
	uint32_t size;
	bool aligned;
};

static const struct compact *compact_components(void)
{
	static struct compact components[XSTATE_COMPONENTS];
	static bool known;
	uint32_t a, b, c, d, kernel_low, kernel_high;

	if (known || !__get_cpuid_count(0xd, 1, &a, &b, &kernel_low, &kernel_high))
		return components;
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		if (!((xstate_layout_here()->features | kernel_low | (uint64_t)kernel_high << 32) >> i & 1))
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		components[i] = (struct compact){ a, c >> 1 & 1 };
	}
	known = true;
	return components;
}

void xstate_from_kernel_prepare(void)
{
	compact_components();
}

/* Copies the components that are in use; whether all of them lie within the area. */
static bool expand(const uint8_t *area, size_t len, uint64_t in_use, uint64_t compacted, uint32_t pkru, uint8_t *to)
{
	const struct xstate_layout *here = xstate_layout_here();
	const struct compact *components = compact_components();
	size_t at = XSTATE_LEGACY_LEN;

	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		const struct compact *c = &components[i];
		bool present = compacted ? compacted >> i & 1 : in_use >> i & 1;

		if (!present)
			continue;
		if (!c->size)
			return false;
		at = !compacted ? here->component[i].offset : c->aligned ? (at + 63) & ~(size_t)63 : at;
		if (in_use >> i & 1 && (at + c->size > len || (size_t)here->component[i].offset + c->size > XSTATE_MAX))
			return false;
		if (in_use >> i & 1 && i == XSTATE_PKRU)
			memcpy(to + here->component[i].offset, &pkru, sizeof(pkru));
		else if (in_use >> i & 1)
			memcpy(to + here->component[i].offset, area + at, c->size);
		at += c->size;
	}
	return true;
}

size_t xstate_from_kernel(const void *area, size_t len, uint32_t pkru, uint8_t *to)
{
	static const uint8_t x87[] = { 0x7f, 0x03 }, mxcsr[] = { 0x80, 0x1f, 0, 0, 0xff, 0xff, 0, 0 };
	const struct xstate_layout *here = xstate_layout_here();
	const uint8_t *from = area;
	uint64_t header[2]; /* components in use; those in a compacted area, its highest bit saying that it is one */
	size_t used = XSTATE_LEGACY_LEN;

	if (len < XSTATE_LEGACY_LEN)
		return 0;
	memcpy(header, from + XSTATE_BV_AT, sizeof(header));
	header[0] &= here->features;
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
		if (header[0] >> i & 1)
			used = MAX(used, (size_t)here->component[i].offset + here->component[i].size);
	if (used > XSTATE_MAX || header[0] >> XSTATE_TILE_DATA & 1)
		return 0;
	memset(to, 0, used);
	/* Components in their initial state are not what lies there: x87, then SSE, MXCSR being of AVX, too. */
	memcpy(to, header[0] & 1 ? from : x87, header[0] & 1 ? MXCSR_AT : sizeof(x87));
	memcpy(to + MXCSR_AT, header[0] & 6 ? from + MXCSR_AT : mxcsr, sizeof(mxcsr));
	if (header[0] & 1)
		memcpy(to + X87_REGISTERS_AT, from + X87_REGISTERS_AT, SSE_REGISTERS_AT - X87_REGISTERS_AT);
	if (header[0] & 2)
		memcpy(to + SSE_REGISTERS_AT, from + SSE_REGISTERS_AT, SSE_REGISTERS_LEN);
	memcpy(to + SOFTWARE_AT, &here->features, sizeof(here->features));
	memcpy(to + XSTATE_BV_AT, header, sizeof(header[0]));
	return expand(from, len, header[0], header[1] >> 63 ? header[1] : 0, pkru, to) ? used : 0;
}

void xstate_describe(Gw__Process *msg)
{
	const struct xstate_layout *here = xstate_layout_here();

	msg->xfeatures = here->features;
	msg->xstate_len = here->len;
	msg->xcomponents = must_alloc(XSTATE_COMPONENTS * sizeof(*msg->xcomponents));
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		Gw__XstateComponent *c;

		if (!here->component[i].size)
			continue;
		c = must_alloc(sizeof(*c));
		gw__xstate_component__init(c);
		c->number = i;
		c->offset = here->component[i].offset;
		c->size = here->component[i].size;
		msg->xcomponents[msg->n_xcomponents++] = c;
	}
}

int xstate_validate_layout(const Gw__Process *msg, struct err *e)
{
	if (msg->xstate_len < XSTATE_LEGACY_LEN || msg->xstate_len > XSTATE_MAX)
		return err_set(e, -EBADMSG, "XSAVE area of %u bytes", msg->xstate_len);
	for (size_t i = 0; i < msg->n_xcomponents; i++) {
		const Gw__XstateComponent *c = msg->xcomponents[i];

		if (c->number < 2 || c->number >= XSTATE_COMPONENTS || c->offset < XSTATE_LEGACY_LEN || c->offset > msg->xstate_len ||
		    c->size > msg->xstate_len - c->offset)
			return err_set(e, -EBADMSG, "XSAVE component %u at %u, %u bytes", c->number, c->offset, c->size);
	}
	return 0;
}

void xstate_layout_of(const Gw__Process *msg, struct xstate_layout *ret_layout)
{
	*ret_layout = (struct xstate_layout){ .features = msg->xfeatures, .len = msg->xstate_len };
	for (size_t i = 0; i < msg->n_xcomponents; i++) {
		ret_layout->component[msg->xcomponents[i]->number].offset = msg->xcomponents[i]->offset;
		ret_layout->component[msg->xcomponents[i]->number].size = msg->xcomponents[i]->size;
	}
}

int xstate_translate(const struct xstate_layout *from, const void *area, size_t len, uint8_t *ret_area, struct err *e)
{
	const struct xstate_layout *here = xstate_layout_here();
	const uint8_t *in = area;
	uint64_t in_use;

	if (len < XSTATE_LEGACY_LEN || len > XSTATE_MAX)
		return err_set(e, -EBADMSG, "processor state of %zu bytes", len);
	memcpy(&in_use, in + XSTATE_BV_AT, sizeof(in_use));
	if (in_use & ~here->features)
		return err_set(e, -EOPNOTSUPP, "the program uses processor state 0x%llx that this host's processor lacks",
			       (unsigned long long)(in_use & ~here->features));
	if (in_use >> XSTATE_TILE_DATA & 1)
		return err_set(e, -EOPNOTSUPP, "the program has data in AMX tiles, which cannot move; try again later");
	memcpy(ret_area, in, SOFTWARE_AT);
	memcpy(ret_area + SOFTWARE_AT, &here->features, sizeof(here->features));
	memcpy(ret_area + XSTATE_BV_AT, &in_use, sizeof(in_use));
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		uint32_t size = from->component[i].size;

		if (!(in_use >> i & 1))
			continue;
		if (!size || size != here->component[i].size || (size_t)from->component[i].offset + size > len ||
		    (size_t)here->component[i].offset + size > here->len)
			return err_set(e, -EOPNOTSUPP, "processor state %u has another form on this host", i);
		memcpy(ret_area + here->component[i].offset, in + from->component[i].offset, size);
	}
	return 0;
}
