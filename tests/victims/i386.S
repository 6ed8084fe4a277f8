/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i386.S - a 32-bit victim without a C library: i386 STATUS_FILE
 *
 * Writes "ready\n" with its pid left out (the driver knows it), sleeps until SIGTERM kills it. Moving it has to be refused.
 */
	.text
	.globl _start
_start:
	mov 8(%esp), %ebx	/* argv[1] */
	mov $0x441, %ecx	/* O_WRONLY | O_CREAT | O_APPEND */
	mov $0666, %edx
	mov $5, %eax
	int $0x80
	mov %eax, %esi
	mov $20, %eax		/* getpid, printed in decimal */
	int $0x80
	mov $buffer_end, %edi
	movb $'\n', (%edi)
	mov $10, %ebp
1:	dec %edi
	xor %edx, %edx
	div %ebp
	add $'0', %dl
	mov %dl, (%edi)
	test %eax, %eax
	jnz 1b
	sub $6, %edi
	movl $0x64616572, (%edi)	/* "read" */
	movw $0x2079, 4(%edi)		/* "y " */
	mov %esi, %ebx
	mov %edi, %ecx
	mov $buffer_end + 1, %edx
	sub %edi, %edx
	mov $4, %eax
	int $0x80
	mov %esi, %ebx
	mov $6, %eax
	int $0x80
2:	mov $29, %eax		/* pause */
	int $0x80
	jmp 2b

	.bss
buffer:	.skip 40
buffer_end:
	.skip 4
	.section .note.GNU-stack, "", @progbits
