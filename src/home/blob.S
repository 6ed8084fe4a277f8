/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blob.S - the stub program, as data of the worker */
	.section .rodata
	.globl home_stub_blob, home_stub_blob_end
	.balign 16
home_stub_blob:
	.incbin "stub"
home_stub_blob_end:
	.section .note.GNU-stack, "", @progbits
