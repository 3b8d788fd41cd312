#include "image_yuv.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "edgeprune.h"
#include "error.h"

namespace edgeprune {
namespace {

// The largest sum, (1.17 * 255 + 2.12 * 128) * 2^20, stays below 2^30.
constexpr int kYuvBits = 20;

// The luma coefficients of red and blue; green has the rest.
struct Primaries {
    double red, blue;
};

Primaries primaries_of(int32_t matrix) {
    switch (matrix) {
        case EP_MATRIX_BT601:
            return {0.299, 0.114};
        case EP_MATRIX_BT709:
            return {0.2126, 0.0722};
        default:
            throw Error(EP_ERROR_INVALID_ARGUMENT,
                        "frame.color_matrix is " + std::to_string(matrix) + ", which is no ep_color_matrix value");
    }
}

int32_t fixed(double value) {
    return static_cast<int32_t>(std::lround(value * (1 << kYuvBits)));
}

uint8_t to_byte(int32_t sum) {
    return static_cast<uint8_t>(std::clamp(sum >> kYuvBits, 0, 255));
}

// What the two or four pixels over one chroma sample share.
struct Chroma {
    int32_t red, green, blue;
};

Chroma chroma_of(int32_t cb, int32_t cr, const YuvWeights& weights) {
    return {weights.red_cr * cr + weights.red, weights.green_cb * cb + weights.green_cr * cr + weights.green,
            weights.blue_cb * cb + weights.blue};
}

void put(int32_t luma, const Chroma& chroma, const YuvWeights& weights, uint8_t* rgb) {
    const int32_t y = luma * weights.y;
    rgb[0] = to_byte(y + chroma.red);
    rgb[1] = to_byte(y + chroma.green);
    rgb[2] = to_byte(y + chroma.blue);
}

}  // namespace

YuvWeights yuv_weights(int32_t matrix, int32_t range) {
    if (range != EP_RANGE_LIMITED && range != EP_RANGE_FULL) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "frame.color_range is " + std::to_string(range) + ", which is no ep_color_range value");
    }
    const Primaries k = primaries_of(matrix);
    const bool limited = range == EP_RANGE_LIMITED;
    const double green = 1 - k.red - k.blue;
    const double luma_scale = limited ? 255.0 / 219 : 1;
    const double chroma_scale = limited ? 255.0 / 224 : 1;
    const double luma_zero = limited ? 16 : 0;
    const double cr_to_red = 2 * (1 - k.red) * chroma_scale;
    const double cb_to_blue = 2 * (1 - k.blue) * chroma_scale;

    YuvWeights weights;
    weights.y = fixed(luma_scale);
    weights.red_cr = fixed(cr_to_red);
    weights.blue_cb = fixed(cb_to_blue);
    weights.green_cr = fixed(-cr_to_red * k.red / green);
    weights.green_cb = fixed(-cb_to_blue * k.blue / green);
    // Half a unit, so that the shift rounds to nearest.
    const double base = 0.5 - luma_scale * luma_zero;
    weights.red = fixed(base - 128 * cr_to_red);
    weights.green = fixed(base + 128 * (cr_to_red * k.red + cb_to_blue * k.blue) / green);
    weights.blue = fixed(base - 128 * cb_to_blue);
    return weights;
}

void nv12_row(const uint8_t* luma, const uint8_t* chroma, int64_t first, int64_t count, const YuvWeights& weights,
              uint8_t* rgb) {
    for (int64_t x = first; x < first + count; ++x, rgb += 3) {
        const uint8_t* const pair = chroma + x / 2 * 2;
        put(luma[x], chroma_of(pair[0], pair[1], weights), weights, rgb);
    }
}

void yuyv_row(const uint8_t* row, int64_t first, int64_t count, const YuvWeights& weights, uint8_t* rgb) {
    for (int64_t x = first; x < first + count; ++x, rgb += 3) {
        const uint8_t* const pair = row + x / 2 * 4;  // Y0 Cb Y1 Cr
        put(pair[x % 2 * 2], chroma_of(pair[1], pair[3], weights), weights, rgb);
    }
}

}  // namespace edgeprune
