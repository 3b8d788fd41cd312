// What instructions the processor and the operating system allow beyond those that everything is compiled for.
#pragma once

namespace edgeprune {

// avx2, fma and f16c together.
bool has_avx2() noexcept;
// avx512f, avx512bw and avx512_vnni together.
bool has_avx512_vnni() noexcept;
// avx512f, avx512bw, avx512dq and avx512vl together.
bool has_avx512() noexcept;
// asimddp of aarch64.
bool has_dot_product() noexcept;

}  // namespace edgeprune
