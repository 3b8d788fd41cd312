// A picture in memory that is read row by row, so that a caller's frame is never copied whole.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgeprune.h"
#include "image.h"
#include "image_yuv.h"

namespace edgeprune {

struct FrameView {
    // Writes `count` RGB pixels from pixel `first` of row `y` on.
    using Reader = void (*)(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* rgb);

    // Borrows the picture.
    FrameView(const Rgb& image);  // NOLINT: a picture is a frame
    // Borrows the frame's memory. Throws Error: EP_ERROR_INVALID_ARGUMENT (null, stride, format, fields of other
    // formats), EP_ERROR_IMAGE (size).
    explicit FrameView(const ep_frame& frame);

    bool is_rgb() const;
    const uint8_t* luma(int64_t y) const { return data + static_cast<size_t>(y) * stride; }
    const uint8_t* chroma_row(int64_t y) const { return chroma + static_cast<size_t>(y / 2) * chroma_stride; }

    int width = 0, height = 0;
    const uint8_t* data = nullptr;  // the first row of the only, or the luma, plane
    size_t stride = 0;
    Reader read = nullptr;
    const uint8_t* chroma = nullptr;  // NV12 only
    size_t chroma_stride = 0;
    YuvWeights yuv;
};

}  // namespace edgeprune
