// Input: a JPEG or PNG file. What decodes is also preprocessed, in a way that the file's size picks.
#include <algorithm>

#include "error.h"
#include "fuzz_target.h"
#include "image.h"
#include "image_codecs.h"

namespace {

using edgeprune::PreprocessSpec;

constexpr double kMostPixels = 1 << 18;  // larger pictures are allowed, and slow under a sanitizer

uint32_t big_endian(const uint8_t* bytes, int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) value = value << 8 | bytes[i];
    return value;
}

// Whether a header of the file announces more than kMostPixels.
bool announces_many_pixels(const std::vector<uint8_t>& file) {
    const auto many = [&](size_t at, int bytes) {
        return double{1} * big_endian(&file[at], bytes) * big_endian(&file[at + bytes], bytes) > kMostPixels;
    };
    if (file.size() >= 24 && file[0] == 0x89 && many(16, 4)) return true;
    for (size_t i = 0; i + 9 <= file.size(); ++i) {
        const bool frame = file[i] == 0xff && file[i + 1] >= 0xc0 && file[i + 1] <= 0xcf;
        if (frame && many(i + 5, 2)) return true;
    }
    return false;
}

uint32_t crc32(const uint8_t* bytes, size_t count) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < count; ++i) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

// Right check sums in a PNG, so that changed chunks get past libpng's first look.
void repair_png(std::vector<uint8_t>& file) {
    for (size_t at = 8; at + 12 <= file.size();) {
        const size_t length = big_endian(&file[at], 4);
        if (length > file.size() - at - 12) return;
        const uint32_t crc = crc32(&file[at + 4], length + 4);
        for (size_t i = 0; i < 4; ++i) file[at + 8 + length + i] = static_cast<uint8_t>(crc >> (24 - 8 * i));
        at += length + 12;
    }
}

PreprocessSpec pick_spec(size_t seed) {
    PreprocessSpec spec;
    spec.pad_square = seed % 2 != 0;
    spec.exact = seed % 3 == 0;
    spec.resize_height = spec.resize_width = 24;
    spec.resample = static_cast<edgeprune::Resample>(seed % 3);
    if (seed % 5 != 0) spec.crop_height = spec.crop_width = 16;
    spec.std = {1, 1, 1};
    return spec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::string path = "the picture";
    std::vector<uint8_t> file(data, data + size);
    if (announces_many_pixels(file)) return 0;
    if (size % 8 != 0 && size > 0 && data[0] == 0x89) repair_png(file);
    try {
        const edgeprune::Rgb image = edgeprune::decode_image({file.data(), size, path});
        require(image.data.size() == size_t{3} * image.width * image.height, "a picture has its size in pixels");
        const PreprocessSpec spec = pick_spec(size);
        const edgeprune::Rgb pixels = edgeprune::preprocess_bytes(image, spec);
        std::vector<float> floats(pixels.data.size());
        edgeprune::normalise(pixels, spec, floats.data());
    } catch (const edgeprune::Error&) {
    }
    return 0;
}
