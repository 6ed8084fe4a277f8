/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* refuse_send.c - see refuse_send.h */
#include "migrate/refuse_send.h"

#include <errno.h>

#include "base/util.h"
#include "migrate/decode.h"
#include "wire/frame.h"

int refusals_send(int fd, const struct refusals *r, struct err *e)
{
	size_t n = MIN(r->n, (size_t)REFUSE_REASONS_MAX);
	cleanup_free Gw__RefusalReason *reasons = calloc(n, sizeof(*reasons));
	cleanup_free Gw__RefusalReason **pointers = calloc(n, sizeof(*pointers));
	cleanup_free uint8_t *packed = NULL;
	Gw__Refuse refuse = GW__REFUSE__INIT;
	int ret;

	if (!reasons || !pointers)
		return err_sys(e, -ENOMEM, "the answer");
	for (size_t i = 0; i < n; i++) {
		gw__refusal_reason__init(&reasons[i]);
		reasons[i].code = r->v[i].code;
		reasons[i].thing = r->v[i].thing;
		reasons[i].cause = r->v[i].cause;
		reasons[i].way_out = r->v[i].way_out;
		pointers[i] = &reasons[i];
	}
	refuse.n_reasons = n;
	refuse.reasons = pointers;
	packed = malloc(gw__refuse__get_packed_size(&refuse) + 1);
	if (!packed)
		return err_sys(e, -ENOMEM, "the answer");
	ret = frame_send(fd, FRAME_REFUSE, packed, gw__refuse__pack(&refuse, packed), e);
	return ret < 0 ? ret : err_set(e, -EPERM, "refused: %s", r->v[0].thing);
}
