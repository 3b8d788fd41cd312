// The manifest's "preprocess" object and what it does to a picture: the steps of the Hugging Face processors of the
// Pillow back end (transformers 5: CLIPImageProcessorPil, BitImageProcessorPil, LlavaImageProcessorPil).
#include <cmath>
#include <nlohmann/json.hpp>

#include "error.h"
#include "image.h"
#include "image_frame.h"
#include "image_placement.h"
#include "image_resize.h"

namespace edgeprune {
namespace {

using Json = nlohmann::json;

[[noreturn]] void malformed(const std::string& what) {
    throw Error(EP_ERROR_BUNDLE, "manifest preprocess." + what + "; export the bundle again");
}

const Json& member(const Json& object, const char* name) {
    if (!object.is_object() || !object.contains(name)) malformed(std::string(name) + " is missing");
    return object[name];
}

int parse_length(const Json& value, const std::string& name) {
    // An edge beyond this could not be a graph input; the product of two must fit in memory.
    constexpr int64_t kMaxEdge = 16384;
    if (!value.is_number_integer() || value < 1 || value > kMaxEdge) {
        malformed(name + " holds " + value.dump() + ", not an integer between 1 and " + std::to_string(kMaxEdge));
    }
    return value.get<int>();
}

std::array<double, 3> parse_triple(const Json& value, const std::string& name) {
    if (!value.is_array() || value.size() != 3) malformed(name + " is not a list of three numbers");
    std::array<double, 3> triple{};
    for (size_t i = 0; i < 3; ++i) {
        if (!value[i].is_number()) malformed(name + " is not a list of three numbers");
        triple[i] = value[i].get<double>();
        if (!std::isfinite(triple[i])) malformed(name + " is not finite");
    }
    return triple;
}

void parse_pad(const Json& pad, PreprocessSpec& spec) {
    spec.pad_square = !pad.is_null();
    if (!spec.pad_square) return;
    const std::array<double, 3> color = parse_triple(member(pad, "color"), "pad_square.color");
    for (size_t i = 0; i < 3; ++i) {
        if (color[i] < 0 || color[i] > 255 || color[i] != std::floor(color[i])) {
            malformed("pad_square.color is not three integers between 0 and 255");
        }
        spec.pad_color[i] = static_cast<uint8_t>(color[i]);
    }
}

// Not by ==: it makes a JSON value of the word in a noexcept function, where a failed allocation ends the process.
bool is_text(const Json& value, const char* word) {
    return value.is_string() && value.get_ref<const std::string&>() == word;
}

Resample parse_resample(const Json& value) {
    if (is_text(value, "bicubic")) return Resample::bicubic;
    if (is_text(value, "bilinear")) return Resample::bilinear;
    if (is_text(value, "lanczos")) return Resample::lanczos;
    throw Error(EP_ERROR_UNSUPPORTED, "manifest preprocess.resize.resample is " + value.dump() +
                                          "; this library has bicubic, bilinear and lanczos");
}

void parse_resize(const Json& resize, PreprocessSpec& spec) {
    const Json& mode = member(resize, "mode");
    if (!is_text(mode, "exact") && !is_text(mode, "shortest_edge")) {
        throw Error(EP_ERROR_UNSUPPORTED,
                    "manifest preprocess.resize.mode is " + mode.dump() + "; this library has exact and shortest_edge");
    }
    spec.exact = is_text(mode, "exact");
    const Json& size = member(resize, "size_px");
    if (!size.is_array() || size.size() != (spec.exact ? 2U : 1U)) {
        malformed("resize.size_px is not [height, width] for exact or [edge] for shortest_edge");
    }
    spec.resize_height = parse_length(size.front(), "resize.size_px");
    spec.resize_width = parse_length(size.back(), "resize.size_px");
    spec.resample = parse_resample(member(resize, "resample"));
}

void parse_crop(const Json& crop, PreprocessSpec& spec) {
    if (crop.is_null()) return;
    if (!crop.is_array() || crop.size() != 2) malformed("center_crop_px is not null or [height, width]");
    spec.crop_height = parse_length(crop[0], "center_crop_px");
    spec.crop_width = parse_length(crop[1], "center_crop_px");
}

void parse_normalisation(const Json& preprocess, PreprocessSpec& spec) {
    const Json& rescale = member(preprocess, "rescale");
    if (!rescale.is_number()) malformed("rescale is not a number");
    spec.rescale = rescale.get<double>();
    spec.mean = parse_triple(member(preprocess, "mean"), "mean");
    spec.std = parse_triple(member(preprocess, "std"), "std");
    for (const double deviation : spec.std) {
        if (!(deviation > 0)) malformed("std is not positive");
    }
    const Json& folded = member(preprocess, "folded");
    if (!folded.is_boolean()) malformed("folded is not true or false");
    spec.folded = folded.get<bool>();
}

void parse_pad_mask(const Json& mask, PreprocessSpec& spec) {
    if (!spec.pad_square) malformed("pad_mask needs pad_square");
    spec.mask_patch_px = parse_length(member(mask, "patch_px"), "pad_mask.patch_px");
}

}  // namespace

PreprocessSpec parse_preprocess(const Json& preprocess) {
    const Json& kind = member(preprocess, "kind");
    if (!is_text(kind, "square")) {
        throw Error(EP_ERROR_UNSUPPORTED,
                    "manifest preprocess.kind is " + kind.dump() + "; this library has square; use a newer library");
    }
    PreprocessSpec spec;
    parse_pad(member(preprocess, "pad_square"), spec);
    parse_resize(member(preprocess, "resize"), spec);
    parse_crop(member(preprocess, "center_crop_px"), spec);
    parse_normalisation(preprocess, spec);
    if (preprocess.contains("pad_mask") && !preprocess["pad_mask"].is_null()) {
        parse_pad_mask(preprocess["pad_mask"], spec);
    }
    if (!spec.exact && !spec.pad_square && spec.crop_height == 0) {
        malformed(
            "resize.mode is shortest_edge without pad_square or center_crop_px, so the size of the result is open");
    }
    return spec;
}

Rgb preprocess_bytes(const FrameView& frame, const PreprocessSpec& spec) {
    check_image_size(frame.width, frame.height);
    const auto [rows, columns] = place_picture(frame.width, frame.height, spec);
    Rgb result{static_cast<int>(columns.length), static_cast<int>(rows.length), {}};
    const size_t stride = static_cast<size_t>(result.width) * 3;
    result.data.resize(stride * static_cast<size_t>(result.height));
    uint8_t* corner = result.data.data() + static_cast<size_t>(rows.offset) * stride + columns.offset * 3;
    resize(frame, columns.axis, rows.axis, spec.resample, spec.pad_color, corner, stride);
    return result;
}

Rgb preprocess_bytes(const Rgb& image, const PreprocessSpec& spec) {
    return preprocess_bytes(FrameView(image), spec);
}

void normalise(const Rgb& pixels, const PreprocessSpec& spec, float* chw) {
    const size_t count = static_cast<size_t>(pixels.width) * static_cast<size_t>(pixels.height);
    for (size_t c = 0; c < 3; ++c) {
        // A byte has 256 values. numpy multiplies in double, rounds to float, then subtracts and divides in float.
        float table[256];
        const float mean = static_cast<float>(spec.mean[c]);
        const float deviation = static_cast<float>(spec.std[c]);
        for (int value = 0; value < 256; ++value) {
            const float rescaled = static_cast<float>(value * spec.rescale);
            table[value] = spec.folded ? static_cast<float>(value) : (rescaled - mean) / deviation;
        }
        float* plane = chw + c * count;
        for (size_t i = 0; i < count; ++i) plane[i] = table[pixels.data[i * 3 + c]];
    }
}

}  // namespace edgeprune
