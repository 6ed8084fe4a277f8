/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blob.S - the agent and the skeleton program, as data of the worker */
	.section .rodata
	.globl agent_blob, agent_blob_end, skeleton_blob, skeleton_blob_end
	.balign 16
agent_blob:
	.incbin "agent.bin"
agent_blob_end:
	.balign 16
skeleton_blob:
	.incbin "skeleton"
skeleton_blob_end:
	.section .note.GNU-stack, "", @progbits
