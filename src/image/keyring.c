/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keyring.c - see keyring.h */
#include "image/keyring.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "kern/cred_peek.h"

#define ANONYMOUS "_ses" /* joined without a name */

/* The session keyring that it has joined; 0: none. "_uid_ses.0" is what everybody gets who only asks for one. */
static int joined(const struct cred_record *r)
{
	return strncmp(r->session.name, "_uid_ses.", 9) ? r->session.serial : 0;
}

static void check_thread(pid_t pid, const struct cred_record *r, const struct cred_record *first, struct refusals *refusals)
{
	const char *cause = NULL;

	if (cred_has_landlock(r))
		refusals_add(refusals, "task.landlock", "Landlock restricts what it may do, and its rules cannot be read", "start the program without its sandbox",
			     "process %d (Landlock)", pid);
	if (r->process.keys || r->thread.keys)
		cause = "it has keys of its own (process or thread keyring), which cannot be read";
	else if (joined(r) && r->session.keys > r->session.user_links)
		cause = "there are keys in its session keyring, which cannot be read";
	else if (joined(r) != joined(first))
		cause = "its threads are in different session keyrings";
	if (cause)
		refusals_add(refusals, "task.keys", cause, "let it drop them (keyctl clear)", "process %d (keyring %s)", pid, r->session.name);
}

int keyring_capture(pid_t pid, Gw__Process *msg, struct refusals *r, struct err *e)
{
	cleanup_free struct cred_record *v = NULL;
	int n = cred_peek(pid, &v, e);

	if (n < 1)
		return n < 0 ? n : 0; /* it has ended, which others will notice */
	if (v[0].has_ldt)
		refusals_add(r, "mm.ldt", "it has segments of its own (modify_ldt), which cannot move yet", "start the program without them", "process %d", pid);
	for (int i = 0; i < n; i++) {
		check_thread(pid, &v[i], &v[0], r);
		/* What is done in the thread before the move would be handed to the program, too. */
		if (v[i].dispatches)
			refusals_add(r, "task.dispatch", "its system calls are handed to the program (PR_SET_SYSCALL_USER_DISPATCH), and such threads cannot move yet",
				     "let it switch that off", "thread %d", v[i].tid);
	}
	if (!joined(&v[0]))
		return 0;
	string_set(&msg->session_keyring, v[0].session.name);
	msg->keyring_links_user = v[0].session.user_links > 0;
	return 0;
}

int keyring_validate(const Gw__Process *msg, struct err *e)
{
	return strlen(msg->session_keyring) < CRED_NAME_LEN ? 0 : err_set(e, -EBADMSG, "process %d: name of its session keyring", msg->pid);
}

void keyring_plan_join(struct batch *b, const Gw__Process *msg, uint32_t uid, uint32_t gid)
{
	const char *name = msg->session_keyring;

	if (!name[0])
		return;
	batch_call(b, "keyctl(KEYCTL_JOIN_SESSION_KEYRING)", SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, strcmp(name, ANONYMOUS) ? batch_string(b, name) : 0);
	batch_try(b, "keyctl(KEYCTL_CHOWN)", SYS_keyctl, KEYCTL_CHOWN, (uint64_t)KEY_SPEC_SESSION_KEYRING, uid, gid);
}

void keyring_plan_link(struct batch *b, const Gw__Process *msg)
{
	if (msg->session_keyring[0] && msg->keyring_links_user)
		batch_try(b, "keyctl(KEYCTL_LINK)", SYS_keyctl, KEYCTL_LINK, (uint64_t)KEY_SPEC_USER_KEYRING, (uint64_t)KEY_SPEC_SESSION_KEYRING);
}
