/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * entry.S - where tasks enter the agent, and how they leave it (x86-64)
 *
 * Offset 0 of the blob is agent_entry: rdi = slot, rsi = header, rsp = a stack in the scratch.
 */
	.section .text.entry, "ax"
	.globl agent_entry
	.hidden agent_entry
agent_entry:
	xorl %ebp, %ebp
	andq $-16, %rsp
	call stub_task
	ud2

	.text
/*
 * void stub_restore(struct slot *slot) - loads slot->regs and goes on there.
 *
 * Flags first, on the stub's stack; then the program's stack pointer, so that a signal that arrives as soon as the mask is
 * restored finds the stack it expects; then the other registers; the last two instructions (rdi, rip) are in
 * slot->thunk, made by the caller. syscall and mov leave the flags alone. The vector registers were never touched.
 */
	.globl stub_restore
	.hidden stub_restore
stub_restore:
	movq %rdi, %rbx
	pushq 192(%rbx)
	popfq
	movq 200(%rbx), %rsp
	movl $14, %eax
	movl $2, %edi
	leaq 40(%rbx), %rsi
	movl $0, %edx
	movl $8, %r10d
	syscall
	movq %rbx, %rdi
	movq 48(%rdi), %r15
	movq 56(%rdi), %r14
	movq 64(%rdi), %r13
	movq 72(%rdi), %r12
	movq 80(%rdi), %rbp
	movq 88(%rdi), %rbx
	movq 96(%rdi), %r11
	movq 104(%rdi), %r10
	movq 112(%rdi), %r9
	movq 120(%rdi), %r8
	movq 128(%rdi), %rax
	movq 136(%rdi), %rcx
	movq 144(%rdi), %rdx
	movq 152(%rdi), %rsi
	movq 256(%rdi), %rdi
	jmp *%rdi

/*
 * long stub_spawn(const struct remote_call *call, struct slot *child, struct scratch_header *header) - clone or clone3;
 * the child enters stub_task with its own slot; its stack pointer was set by the call's arguments.
 */
	.globl stub_spawn
	.hidden stub_spawn
stub_spawn:
	pushq %rbx
	pushq %r12
	pushq %r13
	movq %rsi, %r12
	movq %rdx, %r13
	movq %rdi, %rbx
	movq 0(%rbx), %rax
	movq 8(%rbx), %rdi
	movq 16(%rbx), %rsi
	movq 24(%rbx), %rdx
	movq 32(%rbx), %r10
	movq 40(%rbx), %r8
	movq 48(%rbx), %r9
	syscall
	testq %rax, %rax
	jz 1f
	popq %r13
	popq %r12
	popq %rbx
	ret
1:	movq %r12, %rdi
	movq %r13, %rsi
	xorl %ebp, %ebp
	andq $-16, %rsp
	call stub_task
	ud2

/*
 * long compare_guarded(header, job) - compare_pages(header, job), or -EFAULT when a page cannot be read: compare_fault, the handler of SIGSEGV and SIGBUS, makes it return.
 * The handler finds the stack pointer in the header by the code's own address.
 */
	.globl compare_guarded
	.hidden compare_guarded
compare_guarded:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	subq $8, %rsp
	movq %rsp, 8(%rdi)
	call compare_pages
1:	addq $8, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret
2:	movq $-14, %rax
	jmp 1b

/* rdx: struct ucontext, with the stack pointer and the instruction pointer of the fault at 160 and 168 */
	.globl compare_fault
	.hidden compare_fault
compare_fault:
	leaq agent_entry(%rip), %rax
	movq 0x8008(%rax), %rax
	movq %rax, 160(%rdx)
	leaq 2b(%rip), %rax
	movq %rax, 168(%rdx)
	ret

	.globl compare_return
	.hidden compare_return
compare_return:
	movl $15, %eax
	syscall
