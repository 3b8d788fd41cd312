// Where a picture lies in what preprocessing makes of it, and which patches of that are padding.
#pragma once

#include <cstdint>
#include <vector>

#include "image.h"
#include "image_resize.h"

namespace edgeprune {

// A dimension of the result: padded to a square where the spec says so, resized to `axis.target`, then the centre of
// it.
struct Placement {
    ResizeAxis axis;
    int64_t length = 0;  // of the result
    int64_t offset = 0;  // where the resized picture begins in it; zeros before and behind
};

struct Placements {
    Placement rows, columns;
};

Placements place_picture(int64_t width, int64_t height, const PreprocessSpec& spec);

// (rows * cols) in raster order: 1 for a patch of which more than half shows no picture, else 0. Empty where the spec
// has no padding mask. Exact: a patch of which just one half shows the picture is none of the padding.
std::vector<float> padding_mask(int64_t width, int64_t height, const PreprocessSpec& spec, int32_t rows, int32_t cols);

}  // namespace edgeprune
