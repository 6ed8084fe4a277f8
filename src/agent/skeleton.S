/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton.S - the smallest program: a clean address space to build a process in
 *
 * It stops for its tracer at once. Registers and memory are the tracer's from then on.
 */
	.globl _start
	.text
_start:	int3
	jmp _start
