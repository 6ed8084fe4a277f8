// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_layout.c - what a peer sends about an address space: files, answers, mappings, mm numbers, vdso. The first byte says which */
#include <stdlib.h>

#include "base/util.h"
#include "image/mm.h"
#include "image/vdso.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void files(const uint8_t *data, size_t len, struct err *e)
{
	struct fsfile_table t = { 0 };
	uint8_t *again;
	size_t again_len;

	if (fsfile_table_decode(data, len, &t, e) < 0)
		return;
	if (fsfile_table_validate(&t, e) < 0 || fsfile_table_encode(&t, &again, &again_len, e) < 0)
		abort();
	free(again);
	fsfile_table_free(&t);
}

static void layout(const uint8_t *data, size_t len, struct err *e)
{
	struct fsfile_answer answers[4] = { { FSFILE_HAVE }, { FSFILE_CREATE }, { FSFILE_TEMP }, { FSFILE_STAND_IN } };
	struct range_list ranges = { 0 };
	struct vma_list l = { 0 };
	uint64_t at;

	if (vma_list_decode(data, len, 4, &l, e) < 0)
		return;
	vma_list_apply_answers(&l, answers, 4);
	if (vma_list_validate(&l, 4, e) < 0 || vma_file_ranges(&l, 1, &ranges, e) < 0)
		abort();
	at = vma_find_free(&l, NULL, 1 << 20);
	if (at && (vma_find(&l, at) || vma_find(&l, at + (1 << 20) - 1)))
		abort();
	range_list_free(&ranges);
	vma_list_free(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fsfile_answer *answers = NULL;
	struct err e = ERR_INIT;
	struct mm_fields mm;
	struct vdso vdso;

	if (!len)
		return 0;
	switch (data[0] % 5) {
	case 0:
		files(data + 1, len - 1, &e);
		break;
	case 1:
		layout(data + 1, len - 1, &e);
		break;
	case 2:
		if (mm_decode(data + 1, len - 1, 4, &mm, &e) == 0 && mm_validate(&mm, 4, &e) < 0)
			abort();
		break;
	case 3:
		if (vdso_decode(data + 1, len - 1, &vdso, &e) == 0 && vdso.n > VDSO_PARTS_MAX)
			abort();
		break;
	case 4:
		if (fsfile_answers_decode(data + 1, len - 1, 3, &answers, &e) == 0)
			free(answers);
		break;
	}
	return 0;
}
