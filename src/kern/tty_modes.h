/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tty_modes.h - the modes that programs have set on a terminal whose keys go elsewhere
 *
 * While a unit that is elsewhere has the foreground, its terminal at home lets all keys through (home/terminal.h). Programs that share the terminal (a job of several, make -j) may leave after it: they are to take
 * along the modes that have been set, and not those. So who hides the modes writes them down: a file in TTY_MODES_DIRECTORY for each terminal, which counts as long as the terminal has the modes that hide them.
 */
#ifndef GODWIT_KERN_TTY_MODES_H
#define GODWIT_KERN_TTY_MODES_H

#include <asm/termbits.h>

#define TTY_MODES_DIRECTORY "/run/godwit/terminals"

/* As TCGETS2, but what has been hidden. 0 or -1 with errno. */
int tty_modes_get(int fd, struct termios2 *ret);
/* `set` is about to be in force instead of `modes`. */
void tty_modes_hide(int fd, const struct termios2 *set, const struct termios2 *modes);
/* The modes are in force again. */
void tty_modes_show(int fd);

#endif
