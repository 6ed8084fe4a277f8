/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cpu.c - see cpu.h */
#include "base/cpu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>

enum { EBX, ECX, EDX, EAX };

/* Levels of the psABI, and what no level has. */
enum { V1 = 1, V2, V3, V4, NO_LEVEL };

/* State that the operating system keeps for it: bits of XCR0. */
#define YMM 0x6u
#define ZMM 0xe6u
#define TILES 0x60000u

static const struct feature {
	char name[CPU_NAME_MAX];
	uint32_t leaf, subleaf;
	uint8_t reg, bit, level;
	uint32_t state;
	const char *glibc; /* as GLIBC_TUNABLES calls it */
	const char *go;    /* as GODEBUG does */
} features[] = {
	{ "pni", 1, 0, ECX, 0, V2, 0, NULL, NULL },
	{ "pclmulqdq", 1, 0, ECX, 1, NO_LEVEL, 0, NULL, "pclmulqdq" },
	{ "ssse3", 1, 0, ECX, 9, V2, 0, "SSSE3", "ssse3" },
	{ "fma", 1, 0, ECX, 12, V3, YMM, "FMA", "fma" },
	{ "cx16", 1, 0, ECX, 13, V2, 0, NULL, NULL },
	{ "sse4_1", 1, 0, ECX, 19, V2, 0, "SSE4_1", "sse41" },
	{ "sse4_2", 1, 0, ECX, 20, V2, 0, "SSE4_2", "sse42" },
	{ "movbe", 1, 0, ECX, 22, V3, 0, "MOVBE", NULL },
	{ "popcnt", 1, 0, ECX, 23, V2, 0, "POPCNT", "popcnt" },
	{ "aes", 1, 0, ECX, 25, NO_LEVEL, 0, NULL, "aes" },
	/* Of every level: the dynamic linker saves registers by it, whatever it is told. */
	{ "xsave", 1, 0, ECX, 27, V1, 0, NULL, NULL },
	{ "avx", 1, 0, ECX, 28, V3, YMM, "AVX", "avx" },
	{ "f16c", 1, 0, ECX, 29, V3, YMM, NULL, NULL },
	{ "rdrand", 1, 0, ECX, 30, NO_LEVEL, 0, NULL, NULL },
	{ "fsgsbase", 7, 0, EBX, 0, NO_LEVEL, 0, NULL, NULL },
	{ "bmi1", 7, 0, EBX, 3, V3, 0, "BMI1", "bmi1" },
	{ "rtm", 7, 0, EBX, 11, NO_LEVEL, 0, "RTM", NULL },
	{ "avx2", 7, 0, EBX, 5, V3, YMM, "AVX2", "avx2" },
	{ "bmi2", 7, 0, EBX, 8, V3, 0, "BMI2", "bmi2" },
	{ "avx512f", 7, 0, EBX, 16, V4, ZMM, "AVX512F", NULL },
	{ "avx512dq", 7, 0, EBX, 17, V4, ZMM, "AVX512DQ", NULL },
	{ "rdseed", 7, 0, EBX, 18, NO_LEVEL, 0, NULL, NULL },
	{ "adx", 7, 0, EBX, 19, NO_LEVEL, 0, NULL, "adx" },
	{ "avx512ifma", 7, 0, EBX, 21, NO_LEVEL, ZMM, NULL, NULL },
	{ "clflushopt", 7, 0, EBX, 23, NO_LEVEL, 0, NULL, NULL },
	{ "clwb", 7, 0, EBX, 24, NO_LEVEL, 0, NULL, NULL },
	{ "avx512cd", 7, 0, EBX, 28, V4, ZMM, "AVX512CD", NULL },
	{ "sha_ni", 7, 0, EBX, 29, NO_LEVEL, 0, NULL, NULL },
	{ "avx512bw", 7, 0, EBX, 30, V4, ZMM, "AVX512BW", NULL },
	{ "avx512vl", 7, 0, EBX, 31, V4, ZMM, "AVX512VL", NULL },
	{ "avx512vbmi", 7, 0, ECX, 1, NO_LEVEL, ZMM, NULL, NULL },
	{ "ospke", 7, 0, ECX, 4, NO_LEVEL, 0, NULL, NULL },
	{ "avx512_vbmi2", 7, 0, ECX, 6, NO_LEVEL, ZMM, NULL, NULL },
	{ "gfni", 7, 0, ECX, 8, NO_LEVEL, 0, NULL, NULL },
	{ "vaes", 7, 0, ECX, 9, NO_LEVEL, YMM, NULL, NULL },
	{ "vpclmulqdq", 7, 0, ECX, 10, NO_LEVEL, YMM, NULL, NULL },
	{ "avx512_vnni", 7, 0, ECX, 11, NO_LEVEL, ZMM, NULL, NULL },
	{ "avx512_bitalg", 7, 0, ECX, 12, NO_LEVEL, ZMM, NULL, NULL },
	{ "avx512_vpopcntdq", 7, 0, ECX, 14, NO_LEVEL, ZMM, NULL, NULL },
	{ "rdpid", 7, 0, ECX, 22, NO_LEVEL, 0, NULL, NULL },
	{ "movdiri", 7, 0, ECX, 27, NO_LEVEL, 0, NULL, NULL },
	{ "movdir64b", 7, 0, ECX, 28, NO_LEVEL, 0, NULL, NULL },
	{ "avx512_vp2intersect", 7, 0, EDX, 8, NO_LEVEL, ZMM, NULL, NULL },
	{ "amx_bf16", 7, 0, EDX, 22, NO_LEVEL, TILES, NULL, NULL },
	{ "avx512_fp16", 7, 0, EDX, 23, NO_LEVEL, ZMM, NULL, NULL },
	{ "amx_tile", 7, 0, EDX, 24, NO_LEVEL, TILES, NULL, NULL },
	{ "amx_int8", 7, 0, EDX, 25, NO_LEVEL, TILES, NULL, NULL },
	{ "sha512", 7, 1, EAX, 0, NO_LEVEL, YMM, NULL, NULL },
	{ "sm3", 7, 1, EAX, 1, NO_LEVEL, YMM, NULL, NULL },
	{ "sm4", 7, 1, EAX, 2, NO_LEVEL, YMM, NULL, NULL },
	{ "avx_vnni", 7, 1, EAX, 4, NO_LEVEL, YMM, NULL, NULL },
	{ "avx512_bf16", 7, 1, EAX, 5, NO_LEVEL, ZMM, NULL, NULL },
	{ "cmpccxadd", 7, 1, EAX, 7, NO_LEVEL, 0, NULL, NULL },
	{ "amx_fp16", 7, 1, EAX, 21, NO_LEVEL, TILES, NULL, NULL },
	{ "avx_ifma", 7, 1, EAX, 23, NO_LEVEL, YMM, NULL, NULL },
	{ "avx_vnni_int8", 7, 1, EDX, 4, NO_LEVEL, YMM, NULL, NULL },
	{ "avx_ne_convert", 7, 1, EDX, 5, NO_LEVEL, YMM, NULL, NULL },
	{ "xsaveopt", 0xd, 1, EAX, 0, NO_LEVEL, 0, NULL, NULL },
	{ "xsavec", 0xd, 1, EAX, 1, NO_LEVEL, 0, "XSAVEC", NULL },
	{ "xgetbv1", 0xd, 1, EAX, 2, NO_LEVEL, 0, NULL, NULL },
	{ "lahf_lm", 0x80000001, 0, ECX, 0, V2, 0, NULL, NULL },
	{ "abm", 0x80000001, 0, ECX, 5, V3, 0, "LZCNT", NULL },
	{ "xop", 0x80000001, 0, ECX, 11, NO_LEVEL, YMM, NULL, NULL },
	{ "fma4", 0x80000001, 0, ECX, 16, NO_LEVEL, YMM, "FMA4", NULL },
	{ "tbm", 0x80000001, 0, ECX, 21, NO_LEVEL, 0, NULL, NULL },
	{ "rdtscp", 0x80000001, 0, EDX, 27, NO_LEVEL, 0, NULL, NULL },
};

_Static_assert(sizeof(features) / sizeof(*features) <= 64 * CPU_WORDS, "more features than a set has room for");

static uint64_t read_xcr0(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return (uint64_t)edx << 32 | eax;
}

/* The register of EBX, ECX, EDX, EAX that has it; 0 where the processor does not know the leaf. */
static uint32_t ask(const struct feature *f)
{
	uint32_t v[4] = { 0 };

	return __get_cpuid_count(f->leaf, f->subleaf, &v[EAX], &v[EBX], &v[ECX], &v[EDX]) ? v[f->reg] : 0;
}

static void ask_processor(struct cpu_set64 *ret)
{
	uint64_t xcr0 = read_xcr0();

	for (unsigned int i = 0; i < cpu_features(); i++)
		if (ask(&features[i]) >> features[i].bit & 1 && (xcr0 & features[i].state) == features[i].state)
			cpu_add(ret, i);
}

static const char *const levels[] = { "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4" };

static unsigned int level_of(const char *name)
{
	for (unsigned int i = 0; i < sizeof(levels) / sizeof(*levels); i++)
		if (!strcmp(name, levels[i]))
			return i + V1;
	return 0;
}

#define N_FEATURES (sizeof(features) / sizeof(*features))
#else
/* None that is chosen among when a program starts. */
static const struct feature {
	char name[CPU_NAME_MAX];
	uint32_t leaf, subleaf;
	uint8_t reg, bit, level;
	const char *glibc, *go;
} features[1];
#define N_FEATURES 0u
enum { EBX, ECX, EDX };

static void ask_processor(struct cpu_set64 *ret)
{
	(void)ret;
}

static unsigned int level_of(const char *name)
{
	(void)name;
	return 0;
}
#endif

static struct cpu_set64 hidden;

unsigned int cpu_features(void)
{
	return N_FEATURES;
}

const char *cpu_feature_name(unsigned int i)
{
	return features[i].name;
}

int cpu_feature_find(const char *name)
{
	for (unsigned int i = 0; i < cpu_features(); i++)
		if (!strcmp(features[i].name, name))
			return (int)i;
	return -1;
}

bool cpu_has(const struct cpu_set64 *set, unsigned int i)
{
	return set->word[i / 64] >> i % 64 & 1;
}

void cpu_add(struct cpu_set64 *set, unsigned int i)
{
	set->word[i / 64] |= 1ull << i % 64;
}

struct cpu_set64 cpu_here(void)
{
	static struct cpu_set64 asked;
	static bool has_asked;
	struct cpu_set64 ret;

	if (!has_asked)
		ask_processor(&asked);
	has_asked = true;
	for (unsigned int w = 0; w < CPU_WORDS; w++)
		ret.word[w] = asked.word[w] & ~hidden.word[w];
	return ret;
}

int cpu_hide(const char *names, struct err *e)
{
	char text[512], *save = NULL;
	struct cpu_set64 set = { { 0 } };

	if (snprintf(text, sizeof(text), "%s", names) >= (int)sizeof(text))
		return err_set(e, -EINVAL, "too many names of processor features");
	for (char *name = strtok_r(text, " ,\t", &save); name; name = strtok_r(NULL, " ,\t", &save)) {
		int i = cpu_feature_find(name);

		if (i < 0)
			return err_set(e, -EINVAL, "'%.40s' is no processor feature that is looked at; use names of /proc/cpuinfo such as avx2", name);
		cpu_add(&set, (unsigned int)i);
	}
	hidden = set;
	return 0;
}

bool cpu_baseline(const char *level, struct cpu_set64 *ret)
{
	unsigned int number = level_of(level);

	*ret = (struct cpu_set64){ { 0 } };
	for (unsigned int i = 0; i < cpu_features(); i++)
		if (features[i].level <= number)
			cpu_add(ret, i);
	return number > 0;
}

static const char *separate(const char *before, const char *separator)
{
	return before && *before ? separator : "";
}

static const char *or_nothing(const char *text)
{
	return text ? text : "";
}

static size_t append(char *to, const char *separator, const char *prefix, const char *name, const char *suffix)
{
	size_t len = strlen(to);

	return len + (size_t)snprintf(to + len, CPU_VARIABLE_MAX - len, "%s%s%s%s", separator, prefix, name, suffix);
}

/* What OpenSSL is to see of leaf 1 (EDX, ECX) and leaf 7 (EBX, ECX): bits of no level and of higher ones are taken away. */
static uint64_t openssl_mask(uint32_t leaf, unsigned int level, unsigned int low, unsigned int high)
{
	uint64_t mask = 0;

	for (unsigned int i = 0; i < cpu_features(); i++)
		if (features[i].leaf == leaf && !features[i].subleaf && features[i].level > level && (features[i].reg == low || features[i].reg == high))
			mask |= 1ull << (features[i].bit + (features[i].reg == high ? 32 : 0));
	return mask;
}

int cpu_baseline_variables(const char *level, const char *(*before)(const char *name), char ret[CPU_VARIABLES][CPU_VARIABLE_MAX], struct err *e)
{
	const char *glibc = before("GLIBC_TUNABLES"), *go = before("GODEBUG");
	unsigned int number = level_of(level);
	const char *comma = "";
	size_t longest = 0;

	if (!number)
		return err_set(e, -EINVAL, "'%.40s' is no level of processors; use x86-64, x86-64-v2, x86-64-v3 or x86-64-v4", level);
	longest = (size_t)snprintf(ret[0], CPU_VARIABLE_MAX, "GLIBC_TUNABLES=%s%sglibc.cpu.hwcaps=", or_nothing(glibc), separate(glibc, ":"));
	for (unsigned int i = 0; i < cpu_features() && longest < CPU_VARIABLE_MAX; i++)
		if (features[i].glibc && features[i].level > number) {
			longest = append(ret[0], comma, "-", features[i].glibc, "");
			comma = ",";
		}
	if (longest < CPU_VARIABLE_MAX)
		longest = (size_t)snprintf(ret[1], CPU_VARIABLE_MAX, "GODEBUG=%s", or_nothing(go));
	comma = separate(go, ",");
	for (unsigned int i = 0; i < cpu_features() && longest < CPU_VARIABLE_MAX; i++)
		if (features[i].go && features[i].level > number) {
			longest = append(ret[1], comma, "cpu.", features[i].go, "=off");
			comma = ",";
		}
	if (longest >= CPU_VARIABLE_MAX)
		return err_set(e, -EINVAL, "GLIBC_TUNABLES or GODEBUG is too long to be added to");
	snprintf(ret[2], CPU_VARIABLE_MAX, "OPENSSL_ia32cap=~0x%llx:~0x%llx", (unsigned long long)openssl_mask(1, number, EDX, ECX),
		 (unsigned long long)openssl_mask(7, number, EBX, ECX));
	snprintf(ret[3], CPU_VARIABLE_MAX, CPU_BASELINE_VARIABLE "=%s", level);
	return 0;
}
