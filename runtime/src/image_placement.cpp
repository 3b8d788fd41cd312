#include "image_placement.h"

#include <algorithm>

namespace edgeprune {
namespace {

// Python's //: rounds down, also below zero.
int64_t floor_half(int64_t value) {
    return value >= 0 ? value / 2 : -((1 - value) / 2);
}

// `crop` 0: all of it.
Placement place(int64_t source, int64_t padded, int64_t target, int64_t crop) {
    Placement placement;
    placement.axis.source = source;
    placement.axis.pad_before = (padded - source) / 2;
    placement.axis.padded = padded;
    placement.axis.target = target;
    placement.length = crop > 0 ? crop : target;
    const int64_t start = floor_half(target - placement.length);  // negative: the crop is larger than the picture
    placement.axis.first = std::max<int64_t>(0, start);
    placement.axis.count = std::min(placement.length, target);
    placement.offset = std::max<int64_t>(0, -start);
    return placement;
}

// An edge when the shorter of the two becomes `edge`: truncated, as Python's int(edge * length / shortest).
int64_t scaled_edge(int64_t edge, int64_t length, int64_t shortest) {
    return static_cast<int64_t>(static_cast<double>(edge * length) / static_cast<double>(shortest));
}

// How much of patch `index` shows the picture, in pixels times `axis.padded`, which makes it a whole number.
double shown(const Placement& placement, int64_t patch_px, int64_t index) {
    const ResizeAxis& axis = placement.axis;
    const int64_t start = axis.first - placement.offset;
    const int64_t low = axis.pad_before * axis.target - start * axis.padded;
    const int64_t high = low + axis.source * axis.target;
    const int64_t edge = patch_px * axis.padded;
    return static_cast<double>(std::max<int64_t>(0, std::min(high, (index + 1) * edge) - std::max(low, index * edge)));
}

}  // namespace

Placements place_picture(int64_t width, int64_t height, const PreprocessSpec& spec) {
    const int64_t longest = std::max(width, height);
    const int64_t whole_height = spec.pad_square ? longest : height;
    const int64_t whole_width = spec.pad_square ? longest : width;
    const int64_t shortest = std::min(whole_height, whole_width);
    const auto target = [&](int64_t edge, int64_t length) {
        return spec.exact ? edge : scaled_edge(edge, length, shortest);
    };
    return {place(height, whole_height, target(spec.resize_height, whole_height), spec.crop_height),
            place(width, whole_width, target(spec.resize_width, whole_width), spec.crop_width)};
}

std::vector<float> padding_mask(int64_t width, int64_t height, const PreprocessSpec& spec, int32_t rows, int32_t cols) {
    if (spec.mask_patch_px == 0) return {};
    const Placements places = place_picture(width, height, spec);
    const int64_t patch_px = spec.mask_patch_px;
    // A product of two whole numbers below 2^53 is rounded once, so both sides of the comparison are equal when the
    // true ones are.
    const double whole = static_cast<double>(patch_px * places.rows.axis.padded) *
                         static_cast<double>(patch_px * places.columns.axis.padded);
    std::vector<float> mask;
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t column = 0; column < cols; ++column) {
            const double area = shown(places.rows, patch_px, row) * shown(places.columns, patch_px, column);
            mask.push_back(2 * area < whole ? 1.0f : 0.0f);
        }
    }
    return mask;
}

}  // namespace edgeprune
