// Y'CbCr frames of cameras to R'G'B', by the matrices of ITU-R BT.601-7 and BT.709-6.
#pragma once

#include <cstdint>

namespace edgeprune {

// Fixed point with kYuvBits fractional bits:
//   R = clamp((y * Y + red_cr * Cr + red) >> kYuvBits), and G, B likewise; the offsets hold 128, 16 and the rounding.
struct YuvWeights {
    int32_t y = 0;
    int32_t red_cr = 0;
    int32_t green_cb = 0, green_cr = 0;
    int32_t blue_cb = 0;
    int32_t red = 0, green = 0, blue = 0;
};

// `matrix` is an ep_color_matrix, `range` an ep_color_range. Throws Error(EP_ERROR_INVALID_ARGUMENT).
YuvWeights yuv_weights(int32_t matrix, int32_t range);

// `count` RGB pixels from pixel `first` of a row on. A chroma sample serves each pixel it covers: no interpolation.
void nv12_row(const uint8_t* luma, const uint8_t* chroma, int64_t first, int64_t count, const YuvWeights& weights,
              uint8_t* rgb);
void yuyv_row(const uint8_t* row, int64_t first, int64_t count, const YuvWeights& weights, uint8_t* rgb);

}  // namespace edgeprune
