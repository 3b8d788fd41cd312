// Pictures: pixels in, the exact bytes and floats that the Hugging Face processor (back end Pillow 13) gives out.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "edgeprune.h"

namespace edgeprune {

// Pillow refuses larger pictures as decompression bombs; so does edgeprune, before it allocates anything.
constexpr int64_t kMaxImagePixels = 178956970;
// Files beyond this are refused unread.
constexpr int64_t kMaxImageFileBytes = int64_t{512} << 20;

// Packed RGB8, row-major (height, width, 3).
struct Rgb {
    int width = 0;
    int height = 0;
    std::vector<uint8_t> data;
};

struct FrameView;  // image_frame.h; an Rgb is one

enum class Resample { bilinear, bicubic, lanczos };

// The manifest's "preprocess" object, kind "square". Order: pad, resize, crop, rescale, normalise.
struct PreprocessSpec {
    bool pad_square = false;  // pad around the centre to a square first
    std::array<uint8_t, 3> pad_color{};
    bool exact = false;                       // true: to (resize_height, resize_width)
    int resize_height = 0, resize_width = 0;  // shortest edge: both hold the edge
    Resample resample = Resample::bicubic;
    int crop_height = 0, crop_width = 0;  // 0: no crop; outside the picture is zero
    double rescale = 1.0 / 255;
    std::array<double, 3> mean{}, std{};
    bool folded = false;    // the graph normalises: normalise() gives 0..255
    int mask_patch_px = 0;  // the graph reads which patches of this edge are padding; 0: it does not
};

// Throws Error: EP_ERROR_UNSUPPORTED for a kind or a mode this library does not know, EP_ERROR_BUNDLE for a malformed
// object.
PreprocessSpec parse_preprocess(const nlohmann::json& preprocess);

// `what` begins the message. Throws Error(EP_ERROR_IMAGE): no pixels, or more than kMaxImagePixels.
void check_image_size(int64_t width, int64_t height, const std::string& what = "the image");

// JPEG or PNG by content, not by name; the pixels of Pillow's Image.open(path).convert("RGB"), EXIF orientation not
// applied; 16-bit gray PNG, which Pillow whitens, is refused. Throws Error: EP_ERROR_IO (missing, unreadable, a
// directory), EP_ERROR_IMAGE (empty, truncated, no image, too large), EP_ERROR_UNSUPPORTED (the shared library that
// reads this format is not installed).
Rgb decode_image_file(const std::string& path);

// The resized and cropped picture before 1/255 and normalisation. Throws Error(EP_ERROR_IMAGE) for a picture so
// elongated that its resampling weights would not fit in memory.
Rgb preprocess_bytes(const FrameView& frame, const PreprocessSpec& spec);
Rgb preprocess_bytes(const Rgb& image, const PreprocessSpec& spec);

// (H,W,3) bytes -> chw (3,H,W) float32, bit for bit the numpy arithmetic of the Hugging Face processor.
void normalise(const Rgb& pixels, const PreprocessSpec& spec, float* chw);

}  // namespace edgeprune
