// What instructions the processor and the operating system allow beyond those that everything is compiled for.
#pragma once

namespace edgeprune {

// avx2, fma and f16c together.
bool has_avx2() noexcept;
// avx2 and avx_vnni together.
bool has_avx_vnni() noexcept;
// avx512f, avx512bw, avx512dq and avx512vl together.
bool has_avx512() noexcept;
// Those and avx512_vnni.
bool has_avx512_vnni() noexcept;
// Those and avx512_bf16.
bool has_avx512_bf16() noexcept;
// amx_int8 and amx_tile, which the operating system has to be asked for.
bool has_amx_int8() noexcept;
// asimddp of aarch64.
bool has_dot_product() noexcept;

}  // namespace edgeprune
