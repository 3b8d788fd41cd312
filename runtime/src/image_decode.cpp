// Image files: bounded reading, then the decoder that the first bytes ask for.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "error.h"
#include "image.h"
#include "image_codecs.h"

namespace edgeprune {
namespace {

struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

[[noreturn]] void cannot_read(const std::string& path, int error) {
    throw Error(EP_ERROR_IO, "cannot read image file " + path + ": " + std::strerror(error));
}

[[noreturn]] void too_large(const std::string& path) {
    throw Error(EP_ERROR_IMAGE, path + " is larger than " + std::to_string(kMaxImageFileBytes >> 20) +
                                    " MiB, the limit for an image file; shrink the image first");
}

std::vector<uint8_t> read_image_file(const std::string& path) {
    const File file(std::fopen(path.c_str(), "rb"));
    if (!file) cannot_read(path, errno);
    struct stat info{};
    if (fstat(fileno(file.get()), &info) != 0) cannot_read(path, errno);
    if (S_ISDIR(info.st_mode)) cannot_read(path, EISDIR);
    if (info.st_size > kMaxImageFileBytes) too_large(path);
    // One byte more than the size shows the end without a second buffer; pipes have no size and grow.
    std::vector<uint8_t> bytes(static_cast<size_t>(std::max<int64_t>(info.st_size, 4095)) + 1);
    size_t used = 0;
    while (true) {
        const size_t got = std::fread(bytes.data() + used, 1, bytes.size() - used, file.get());
        used += got;
        if (used < bytes.size()) break;
        if (static_cast<int64_t>(used) > kMaxImageFileBytes) too_large(path);
        bytes.resize(bytes.size() * 2);
    }
    if (std::ferror(file.get()) != 0) cannot_read(path, errno);
    bytes.resize(used);
    return bytes;
}

bool starts_with(const FileBytes& file, std::initializer_list<uint8_t> magic) {
    return file.size >= magic.size() && std::equal(magic.begin(), magic.end(), file.data);
}

}  // namespace

Rgb decode_image(const FileBytes& file) {
    if (file.size == 0) throw Error(EP_ERROR_IMAGE, file.path + " is empty; give a JPEG or PNG file");
    if (starts_with(file, {0xff, 0xd8, 0xff})) return decode_jpeg(file);
    if (starts_with(file, {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'})) return decode_png(file);
    throw Error(EP_ERROR_IMAGE, file.path + " is neither a JPEG nor a PNG image; convert it to one of them");
}

Rgb decode_image_file(const std::string& path) {
    const std::vector<uint8_t> bytes = read_image_file(path);
    return decode_image({bytes.data(), bytes.size(), path});
}

}  // namespace edgeprune
