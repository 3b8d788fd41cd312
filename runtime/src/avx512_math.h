// Functions of 16 lanes for kernels of AVX-512.
#pragma once

#include <immintrin.h>

namespace edgeprune::vector_math {

// 2^x for |x| <= 150, within 3e-7 of it: x = n + f, |f| <= 1/2, and the Taylor polynomial of 2^f. What is no number
// stays none.
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static inline __m512 power_of_two(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 sum = _mm512_set1_ps(1.540353e-4F);
    for (const float term : {1.333356e-3F, 9.618129e-3F, 5.550411e-2F, 0.24022651F, 0.69314718F, 1.0F})
        sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(term));
    return _mm512_scalef_ps(sum, n);
}

}  // namespace edgeprune::vector_math
