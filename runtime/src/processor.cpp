#include "processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
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

bool has_avx512_vnni() noexcept {
    static const bool has =
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
    return has;
}

bool has_avx512() noexcept {
    static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has;
}
#else
bool has_avx2() noexcept {
    return false;
}

bool has_avx512_vnni() noexcept {
    return false;
}

bool has_avx512() noexcept {
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
