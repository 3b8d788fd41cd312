// Decoders of one file format each, over a whole file in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "image.h"

namespace edgeprune {

struct FileBytes {
    const uint8_t* data;
    size_t size;
    const std::string& path;  // for messages
};

// All throw Error as decode_image_file does. decode_image looks at the first bytes.
Rgb decode_image(const FileBytes& file);
Rgb decode_jpeg(const FileBytes& file);
Rgb decode_png(const FileBytes& file);

}  // namespace edgeprune
