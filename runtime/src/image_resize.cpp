// Pillow's 8-bit resampling: weights in double, normalised, rounded to 22 fractional bits; a pass over each axis,
// rounded to bytes in between. Pillow 13 takes the vertical pass first where the height shrinks much more than the
// width; older releases never do, so their bytes of such pictures differ by a few units. Sums are exact in 32-bit
// integers, so the order of additions is free, and padding is one product with the sum of its weights. The weights of
// an output add up to one, so padding is still of its colour after the first pass.
#include "image_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "error.h"

// Not under ThreadSanitizer, which would instrument the resolvers that run before it has started.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__AVX2__) && \
    !defined(__SANITIZE_THREAD__)
#define EDGEPRUNE_AVX2_CLONE __attribute__((target_clones("avx2", "default")))
#else
#define EDGEPRUNE_AVX2_CLONE
#endif

namespace edgeprune {
namespace {

constexpr int kWeightBits = 22;
constexpr int32_t kHalf = 1 << (kWeightBits - 1);
// 256 MiB of weights: reached by pictures beyond about 16 million pixels along one edge.
constexpr int64_t kMaxWeights = int64_t{1} << 26;

double bilinear(double x) {
    return std::max(0.0, 1.0 - std::fabs(x));
}

// Keys' cubic convolution with a = -1/2.
double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= 3.14159265358979323846;
    return std::sin(x) / x;
}

double lanczos(double x) {
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct Kernel {
    double (*value)(double);
    double radius;
};

Kernel kernel_of(Resample filter) {
    switch (filter) {
        case Resample::bilinear:
            return {bilinear, 1.0};
        case Resample::bicubic:
            return {bicubic, 2.0};
        case Resample::lanczos:
            break;
    }
    return {lanczos, 3.0};
}

// The weights of one output: `count` of them on the picture from `begin` on, and their sum over the padding.
struct Tap {
    int64_t begin = 0;
    int64_t count = 0;
    size_t weights = 0;
    int32_t pad_weight = 0;
};

class Taps {
public:
    Taps(const ResizeAxis& axis, Resample filter);
    const int32_t* weights(const Tap& tap) const { return weights_.data() + tap.weights; }
    const std::vector<Tap>& all() const { return taps_; }
    // The part of the picture that any output reads.
    int64_t begin() const { return begin_; }
    int64_t end() const { return end_; }
    // The most rows, or columns, that one output reads.
    int64_t longest() const { return longest_; }

private:
    void append(const ResizeAxis& axis, int64_t first, const std::vector<int32_t>& weights);
    void filter_weights(const ResizeAxis& axis, const Kernel& kernel);

    std::vector<Tap> taps_;
    std::vector<int32_t> weights_;
    int64_t begin_ = 0;
    int64_t end_ = 0;
    int64_t longest_ = 0;
};

int32_t to_fixed(double weight) {
    const double scaled = weight * (1 << kWeightBits);
    return static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

Taps::Taps(const ResizeAxis& axis, Resample filter) {
    taps_.reserve(static_cast<size_t>(axis.count));
    begin_ = axis.source;
    if (axis.padded == axis.target) {  // Pillow skips this pass; one weight of 1 copies exactly
        const std::vector<int32_t> one{1 << kWeightBits};
        for (int64_t i = axis.first; i < axis.first + axis.count; ++i) append(axis, i, one);
    } else {
        filter_weights(axis, kernel_of(filter));
    }
    if (end_ <= begin_) begin_ = end_ = 0;  // only padding is wanted
    for (Tap& tap : taps_) {
        if (tap.count == 0) tap.begin = begin_;
    }
}

void Taps::filter_weights(const ResizeAxis& axis, const Kernel& kernel) {
    const double scale = static_cast<double>(axis.padded) / static_cast<double>(axis.target);
    const double stretch = std::max(scale, 1.0);
    const double support = kernel.radius * stretch;
    if (support * 2 * static_cast<double>(axis.count) > static_cast<double>(kMaxWeights)) {
        throw Error(EP_ERROR_IMAGE, "an image edge of " + std::to_string(axis.padded) +
                                        " pixels is too long to resample; crop or shrink the image first");
    }
    const double inverse = 1.0 / stretch;
    std::vector<double> exact;
    std::vector<int32_t> fixed;
    for (int64_t i = axis.first; i < axis.first + axis.count; ++i) {
        const double center = (static_cast<double>(i) + 0.5) * scale;
        const int64_t low = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
        const int64_t high = std::min(axis.padded, static_cast<int64_t>(center + support + 0.5));
        exact.clear();
        double sum = 0.0;
        for (int64_t x = low; x < high; ++x) {
            exact.push_back(kernel.value((static_cast<double>(x) - center + 0.5) * inverse));
            sum += exact.back();
        }
        fixed.clear();
        for (const double weight : exact) fixed.push_back(to_fixed(sum != 0.0 ? weight / sum : weight));
        append(axis, low, fixed);
    }
}

void Taps::append(const ResizeAxis& axis, int64_t first, const std::vector<int32_t>& weights) {
    Tap tap;
    tap.weights = weights_.size();
    tap.begin = std::clamp<int64_t>(first - axis.pad_before, 0, axis.source);
    for (size_t i = 0; i < weights.size(); ++i) {
        const int64_t x = first + static_cast<int64_t>(i) - axis.pad_before;
        if (x < 0 || x >= axis.source) {
            tap.pad_weight += weights[i];
        } else {
            weights_.push_back(weights[i]);
            ++tap.count;
        }
    }
    longest_ = std::max(longest_, tap.count);
    if (tap.count > 0) {
        begin_ = std::min(begin_, tap.begin);
        end_ = std::max(end_, tap.begin + tap.count);
    }
    taps_.push_back(tap);
}

uint8_t to_byte(int32_t sum) {
    return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

// Several rows go through the horizontal pass side by side, so that the innermost loop is one vector operation.
constexpr int kRows = 8;
constexpr int kLanes = 3 * kRows;

// rows[r] points at `bytes` bytes of row r; out is (bytes, kRows).
EDGEPRUNE_AVX2_CLONE void interleave(const uint8_t* const rows[kRows], size_t bytes, uint8_t* out) {
    for (size_t i = 0; i < bytes; ++i) {
        for (size_t r = 0; r < kRows; ++r) out[i * kRows + r] = rows[r][i];
    }
}

// sums[lane] += pixels[i][lane] * weights[i] for every i.
EDGEPRUNE_AVX2_CLONE void accumulate(const uint8_t* pixels, const int32_t* weights, int64_t count,
                                     int32_t sums[kLanes]) {
    int32_t local[kLanes];
    std::memcpy(local, sums, sizeof(local));
    for (int64_t i = 0; i < count; ++i, pixels += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) local[lane] += pixels[lane] * weights[i];
    }
    std::memcpy(sums, local, sizeof(local));
}

// sums[i] += row[i] * weight.
EDGEPRUNE_AVX2_CLONE void add_row(const uint8_t* row, int32_t weight, size_t bytes, int32_t* sums) {
    for (size_t i = 0; i < bytes; ++i) sums[i] += row[i] * weight;
}

EDGEPRUNE_AVX2_CLONE void to_bytes(const int32_t* sums, size_t bytes, uint8_t* out) {
    for (size_t i = 0; i < bytes; ++i) out[i] = to_byte(sums[i]);
}

// Rows [0, height) of the part of a frame that a pass reads, as RGB: where they lie when they are RGB already, else
// converted into a ring that keeps the last `kept` of them.
class Rows {
public:
    Rows(const FrameView& frame, int64_t top, int64_t left, int64_t width, int64_t kept)
        : frame_(frame), top_(top), left_(left), width_(width), kept_(std::max<int64_t>(kept, 1)) {
        if (!frame.is_rgb()) ring_.resize(static_cast<size_t>(kept_ * width) * 3);
    }

    // Valid until `kept` further rows have been asked for. Ask for each row for the first time in ascending order.
    const uint8_t* operator()(int64_t y) {
        if (ring_.empty()) return frame_.luma(top_ + y) + left_ * 3;
        for (; next_ <= y; ++next_) {
            if (next_ > y - kept_) frame_.read(frame_, top_ + next_, left_, width_, slot(next_));
        }
        return slot(y);
    }

private:
    uint8_t* slot(int64_t y) { return ring_.data() + static_cast<size_t>(y % kept_ * width_) * 3; }

    const FrameView frame_;  // a copy: what is passed may be made of an Rgb for the call only
    const int64_t top_, left_, width_, kept_;
    int64_t next_ = 0;  // the first row that has not been converted
    std::vector<uint8_t> ring_;
};

// One pass along each of `height` rows, which begin at the pixel that taps.begin() names.
void pass_columns(Rows& source, int64_t height, const Taps& taps, const std::array<uint8_t, 3>& pad_color, uint8_t* out,
                  size_t out_stride) {
    const size_t span = static_cast<size_t>(taps.end() - taps.begin()) * 3;
    std::vector<uint8_t> block(span * kRows);
    for (int64_t y = 0; y < height; y += kRows) {
        const uint8_t* rows[kRows];
        for (int r = 0; r < kRows; ++r) rows[r] = source(std::min(y + r, height - 1));
        interleave(rows, span, block.data());
        const size_t used = static_cast<size_t>(std::min<int64_t>(kRows, height - y));
        uint8_t* to = out + static_cast<size_t>(y) * out_stride;
        for (const Tap& tap : taps.all()) {
            int32_t sums[kLanes];
            for (int lane = 0; lane < kLanes; ++lane) sums[lane] = kHalf + pad_color[lane / kRows] * tap.pad_weight;
            const size_t offset = static_cast<size_t>(tap.begin - taps.begin()) * kLanes;
            accumulate(block.data() + offset, taps.weights(tap), tap.count, sums);
            for (size_t c = 0; c < 3; ++c) {
                for (size_t r = 0; r < used; ++r) to[r * out_stride + c] = to_byte(sums[c * kRows + r]);
            }
            to += 3;
        }
    }
}

// One pass along each of `width` columns; the first row is the one that taps.begin() names.
void pass_rows(Rows& source, int64_t width, const Taps& taps, const std::array<uint8_t, 3>& pad_color, uint8_t* out,
               size_t out_stride) {
    const size_t bytes = static_cast<size_t>(width) * 3;
    std::vector<int32_t> sums(bytes);
    for (const Tap& tap : taps.all()) {
        for (size_t i = 0; i < bytes; ++i) sums[i] = kHalf + pad_color[i % 3] * tap.pad_weight;
        for (int64_t i = 0; i < tap.count; ++i) {
            add_row(source(tap.begin - taps.begin() + i), taps.weights(tap)[i], bytes, sums.data());
        }
        to_bytes(sums.data(), bytes, out);
        out += out_stride;
    }
}

bool vertical_first(const ResizeAxis& columns, const ResizeAxis& rows) {
    const int64_t lost = rows.padded - rows.target;
    return lost > 0 && lost > 2 * (columns.padded - columns.target);
}

}  // namespace

void resize(const FrameView& frame, const ResizeAxis& columns, const ResizeAxis& rows, Resample filter,
            const std::array<uint8_t, 3>& pad_color, uint8_t* out, size_t stride) {
    const Taps across(columns, filter);
    const Taps down(rows, filter);
    const int64_t width = across.end() - across.begin();
    const int64_t height = down.end() - down.begin();
    if (vertical_first(columns, rows)) {
        Rgb flat{static_cast<int>(width), static_cast<int>(rows.count), {}};
        flat.data.resize(static_cast<size_t>(width) * static_cast<size_t>(rows.count) * 3);
        Rows source(frame, down.begin(), across.begin(), width, down.longest());
        pass_rows(source, width, down, pad_color, flat.data.data(), static_cast<size_t>(width) * 3);
        Rows second(flat, 0, 0, width, 0);
        pass_columns(second, rows.count, across, pad_color, out, stride);
    } else {
        Rgb narrow{static_cast<int>(columns.count), static_cast<int>(height), {}};
        const size_t narrow_stride = static_cast<size_t>(columns.count) * 3;
        narrow.data.resize(static_cast<size_t>(height) * narrow_stride);
        Rows source(frame, down.begin(), across.begin(), width, kRows);
        pass_columns(source, height, across, pad_color, narrow.data.data(), narrow_stride);
        Rows second(narrow, 0, 0, columns.count, 0);
        pass_rows(second, columns.count, down, pad_color, out, stride);
    }
}

}  // namespace edgeprune
