#include "processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace edgeprune {

#if defined(__x86_64__)
namespace {

// Some compilers do not know f16c by name.
bool has_f16c() noexcept {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

bool has_avx2() noexcept {
    static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    return has;
}

bool has_avx512() noexcept {
    static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has;
}

bool has_avx512_vnni() noexcept {
    static const bool has = has_avx512() && __builtin_cpu_supports("avx512vnni");
    return has;
}

bool has_avx_vnni() noexcept {
    static const bool has = [] {
        constexpr unsigned kAvxVnni = 1U << 4, kLeaf = 7, kSubleaf = 1;  // some compilers do not know it by name
        unsigned a = 0, b = 0, c = 0, d = 0;
        return has_avx2() && __get_cpuid_count(kLeaf, kSubleaf, &a, &b, &c, &d) != 0 && (a & kAvxVnni) != 0;
    }();
    return has;
}

bool has_avx512_bf16() noexcept {
    static const bool has = has_avx512() && __builtin_cpu_supports("avx512bf16");
    return has;
}

bool has_amx_int8() noexcept {
#if defined(__linux__)
    static const bool has = [] {
        constexpr unsigned kTile = 1U << 24, kInt8 = 1U << 25, kLeaf = 7;
        constexpr long kAskForTiles = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, which old headers lack
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid_count(kLeaf, 0, &a, &b, &c, &d) == 0 || (d & (kTile | kInt8)) != (kTile | kInt8)) return false;
        return syscall(SYS_arch_prctl, kAskForTiles, kTileData) == 0;  // for all threads of the process
    }();
    return has;
#else
    return false;
#endif
}
#else
bool has_avx2() noexcept {
    return false;
}

bool has_avx_vnni() noexcept {
    return false;
}

bool has_avx512() noexcept {
    return false;
}

bool has_avx512_vnni() noexcept {
    return false;
}

bool has_avx512_bf16() noexcept {
    return false;
}

bool has_amx_int8() noexcept {
    return false;
}
#endif

bool has_dot_product() noexcept {
#if defined(__aarch64__) && defined(__linux__)
    constexpr unsigned long kAsimdDp = 1UL << 20;  // HWCAP_ASIMDDP, which old headers lack
    static const bool has = (getauxval(AT_HWCAP) & kAsimdDp) != 0;
    return has;
#else
    return false;
#endif
}

}  // namespace edgeprune
