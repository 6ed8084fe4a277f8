// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * replay.c - runs a fuzzer's function over every file of the directories given, and over mutations of them that need no fuzzer: each
 * file cut short at every length, and with every byte changed
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX 65536
#define MUTATED_MAX 1024 /* larger inputs are run as they are */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A copy of exact size, so that a sanitizer sees a read behind it. */
static void run(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	memcpy(copy, data, len);
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
}

static void run_all(uint8_t *data, size_t len)
{
	size_t i;

	run(data, len);
	if (len > MUTATED_MAX)
		return;
	for (i = 0; i < len; i++)
		run(data, i);
	for (i = 0; i < len; i++) {
		uint8_t saved = data[i];

		data[i] ^= 0xff;
		run(data, len);
		data[i] = saved ^ 0x80;
		run(data, len);
		data[i] = saved;
	}
}

static int run_directory(const char *path)
{
	static uint8_t data[INPUT_MAX];
	char name[4096];
	struct dirent *item;
	DIR *d = opendir(path);
	int n = 0;

	if (!d) {
		perror(path);
		return -1;
	}
	while ((item = readdir(d))) {
		FILE *f;

		if (item->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, item->d_name);
		f = fopen(name, "re");
		if (!f)
			continue;
		run_all(data, fread(data, 1, sizeof(data), f));
		fclose(f);
		n++;
	}
	closedir(d);
	return n;
}

int main(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		int n = run_directory(argv[i]);

		if (n <= 0) {
			fprintf(stderr, "%s: no inputs\n", argv[i]);
			return 1;
		}
		printf("%s: %d inputs\n", argv[i], n);
	}
	return 0;
}
