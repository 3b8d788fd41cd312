// Caller's frames: check them, then copy to packed RGB.
#include <cstring>
#include <limits>

#include "error.h"
#include "image.h"

namespace edgeprune {
namespace {

using RowCopy = void (*)(const uint8_t* from, uint8_t* to, int width);

void copy_rgb(const uint8_t* from, uint8_t* to, int width) {
    std::memcpy(to, from, static_cast<size_t>(width) * 3);
}

void copy_bgr(const uint8_t* from, uint8_t* to, int width) {
    for (int x = 0; x < width; ++x, from += 3, to += 3) {
        to[0] = from[2];
        to[1] = from[1];
        to[2] = from[0];
    }
}

void copy_rgba(const uint8_t* from, uint8_t* to, int width) {
    for (int x = 0; x < width; ++x, from += 4, to += 3) {
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
    }
}

void copy_gray(const uint8_t* from, uint8_t* to, int width) {
    for (int x = 0; x < width; ++x, ++from, to += 3) to[0] = to[1] = to[2] = *from;
}

struct Layout {
    size_t bytes_per_pixel;
    RowCopy copy;
};

Layout layout_of(int32_t format) {
    switch (format) {
        case EP_PIXEL_RGB8:
            return {3, copy_rgb};
        case EP_PIXEL_BGR8:
            return {3, copy_bgr};
        case EP_PIXEL_RGBA8:
            return {4, copy_rgba};
        case EP_PIXEL_GRAY8:
            return {1, copy_gray};
        default:
            throw Error(EP_ERROR_INVALID_ARGUMENT,
                        "pixel format " + std::to_string(format) + " is unknown; use an ep_pixel_format value");
    }
}

}  // namespace

void check_image_size(int64_t width, int64_t height, const std::string& what) {
    const std::string text = what + " has " + std::to_string(width) + " x " + std::to_string(height) + " pixels; ";
    if (width < 1 || height < 1) throw Error(EP_ERROR_IMAGE, text + "give one of at least 1 x 1");
    constexpr int64_t kMaxEdge = std::numeric_limits<int32_t>::max();
    if (width > kMaxEdge || height > kMaxEdge || width > kMaxImagePixels / height) {
        throw Error(EP_ERROR_IMAGE, text + "the limit is " + std::to_string(kMaxImagePixels) + ", so shrink it first");
    }
}

Rgb to_rgb(const ep_frame& frame) {
    if (frame.data == nullptr) throw Error(EP_ERROR_INVALID_ARGUMENT, "frame.data is null; point it at the first row");
    const Layout layout = layout_of(frame.format);
    check_image_size(frame.width_px, frame.height_px);
    const size_t packed = static_cast<size_t>(frame.width_px) * layout.bytes_per_pixel;
    const size_t stride = frame.stride == 0 ? packed : frame.stride;
    if (stride < packed) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "frame.stride is " + std::to_string(stride) +
                                                   " bytes but a row of pixels takes " + std::to_string(packed));
    }
    if (stride > std::numeric_limits<size_t>::max() / static_cast<size_t>(frame.height_px)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "frame.stride " + std::to_string(stride) + " is beyond any memory");
    }
    Rgb image{frame.width_px, frame.height_px, {}};
    const size_t row = static_cast<size_t>(image.width) * 3;
    image.data.resize(row * static_cast<size_t>(image.height));
    for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
        layout.copy(frame.data + y * stride, image.data.data() + y * row, image.width);
    }
    return image;
}

}  // namespace edgeprune
