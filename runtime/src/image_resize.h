// Resampling with the fixed-point arithmetic of Pillow's Image.resize, for the part of the result that is wanted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "image_frame.h"

namespace edgeprune {

// One dimension of a resize. The picture, with `pad_before` pixels of padding in front of it and the rest behind, is
// `padded` long; it becomes `target` long, of which [first, first + count) is wanted.
struct ResizeAxis {
    int64_t source = 0;
    int64_t pad_before = 0;
    int64_t padded = 0;
    int64_t target = 0;
    int64_t first = 0;
    int64_t count = 0;
};

// Writes rows.count rows of columns.count RGB pixels, `stride` bytes apart. The padding is never materialised.
// A frame that is no RGB8 is converted as its rows are read: never more of them at once than one output needs.
void resize(const FrameView& frame, const ResizeAxis& columns, const ResizeAxis& rows, Resample filter,
            const std::array<uint8_t, 3>& pad_color, uint8_t* out, size_t stride);

}  // namespace edgeprune
