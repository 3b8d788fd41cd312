// PNG through libpng 1.6, opened at run time.
#include "error.h"
#include "image_codecs.h"

#ifdef EDGEPRUNE_HAVE_PNG

#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "dynamic_library.h"

namespace edgeprune {
namespace {

constexpr const char* kLibrary = "libpng16.so.16";

struct LibPng {
    LibPng() : library({kLibrary}) {
        library.bind(create, "png_create_read_struct");
        library.bind(create_info, "png_create_info_struct");
        library.bind(destroy, "png_destroy_read_struct");
        library.bind(error_pointer, "png_get_error_ptr");
        library.bind(io_pointer, "png_get_io_ptr");
        library.bind(set_read, "png_set_read_fn");
        library.bind(set_limits, "png_set_user_limits");
        library.bind(read_info, "png_read_info");
        library.bind(header, "png_get_IHDR");
        library.bind(palette, "png_get_PLTE");
        library.bind(set_packing, "png_set_packing");
        library.bind(set_expand_gray, "png_set_expand_gray_1_2_4_to_8");
        library.bind(set_strip_16, "png_set_strip_16");
        library.bind(set_strip_alpha, "png_set_strip_alpha");
        library.bind(set_interlace, "png_set_interlace_handling");
        library.bind(update_info, "png_read_update_info");
        library.bind(read_row, "png_read_row");
    }

    DynamicLibrary library;
    decltype(png_create_read_struct)* create;
    decltype(png_create_info_struct)* create_info;
    decltype(png_destroy_read_struct)* destroy;
    decltype(png_get_error_ptr)* error_pointer;
    decltype(png_get_io_ptr)* io_pointer;
    decltype(png_set_read_fn)* set_read;
    decltype(png_set_user_limits)* set_limits;
    decltype(png_read_info)* read_info;
    decltype(png_get_IHDR)* header;
    decltype(png_get_PLTE)* palette;
    decltype(png_set_packing)* set_packing;
    decltype(png_set_expand_gray_1_2_4_to_8)* set_expand_gray;
    decltype(png_set_strip_16)* set_strip_16;
    decltype(png_set_strip_alpha)* set_strip_alpha;
    decltype(png_set_interlace_handling)* set_interlace;
    decltype(png_read_update_info)* update_info;
    decltype(png_read_row)* read_row;
};

const LibPng& loaded() {
    static const LibPng library;
    return library;
}

const LibPng& libpng(const std::string& path) {
    try {
        return loaded();
    } catch (const std::runtime_error& error) {
        throw Error(EP_ERROR_UNSUPPORTED, "reading " + path + " needs " + kLibrary + " (" + error.what() +
                                              "); install libpng16-16, or pass pixels instead of a file");
    }
}

// A failure inside libpng jumps back to `jump`, so functions that call setjmp hold no C++ objects.
struct Reader {
    png_structp png = nullptr;
    png_infop info = nullptr;
    const uint8_t* next = nullptr;
    size_t left = 0;
    png_uint_32 width = 0, height = 0;
    int depth = 0, color = 0;
    std::jmp_buf jump;
    bool truncated = false;
    char message[128] = "";
};

[[noreturn]] void fail(png_structp png, png_const_charp message) {
    Reader& reader = *static_cast<Reader*>(loaded().error_pointer(png));
    std::snprintf(reader.message, sizeof(reader.message), "%s", message);
    std::longjmp(reader.jump, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep to, size_t count) {
    Reader& reader = *static_cast<Reader*>(loaded().io_pointer(png));
    if (count > reader.left) {
        reader.truncated = true;
        std::longjmp(reader.jump, 1);
    }
    std::memcpy(to, reader.next, count);
    reader.next += count;
    reader.left -= count;
}

bool open_header(const LibPng& lib, Reader& reader) {
    if (setjmp(reader.jump) != 0) return false;
    reader.png = lib.create(PNG_LIBPNG_VER_STRING, &reader, fail, ignore_warning);
    if (reader.png != nullptr) reader.info = lib.create_info(reader.png);
    if (reader.info == nullptr) {
        std::snprintf(reader.message, sizeof(reader.message), "libpng could not start");
        return false;
    }
    lib.set_read(reader.png, &reader, read_bytes);
    lib.set_limits(reader.png, 0x7fffffff, 0x7fffffff);  // check_image_size knows better
    lib.read_info(reader.png, reader.info);
    lib.header(reader.png, reader.info, &reader.width, &reader.height, &reader.depth, &reader.color, nullptr, nullptr,
               nullptr);
    return true;
}

// Asks for one byte per pixel (gray or palette index) or for RGB.
bool choose_layout(const LibPng& lib, Reader& reader, int& passes) {
    if (setjmp(reader.jump) != 0) return false;
    if (reader.color == PNG_COLOR_TYPE_PALETTE) {
        lib.set_packing(reader.png);
    } else if (reader.depth < 8) {
        lib.set_expand_gray(reader.png);
    }
    if (reader.depth == 16) lib.set_strip_16(reader.png);
    if ((reader.color & PNG_COLOR_MASK_ALPHA) != 0) lib.set_strip_alpha(reader.png);
    passes = lib.set_interlace(reader.png);
    lib.update_info(reader.png, reader.info);
    return true;
}

bool read_pixels(const LibPng& lib, Reader& reader, int passes, uint8_t* pixels, size_t stride) {
    if (setjmp(reader.jump) != 0) return false;
    for (int pass = 0; pass < passes; ++pass) {
        for (size_t y = 0; y < reader.height; ++y) lib.read_row(reader.png, pixels + y * stride, nullptr);
    }
    return true;
}

class Decoder {
public:
    explicit Decoder(const FileBytes& file) : lib_(libpng(file.path)), path_(file.path) {
        reader_.next = file.data;
        reader_.left = file.size;
    }
    ~Decoder() { lib_.destroy(&reader_.png, &reader_.info, nullptr); }
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    Rgb decode() {
        if (!open_header(lib_, reader_)) failed();
        check_image_size(reader_.width, reader_.height, path_);
        refuse_gray16();
        int passes = 1;
        if (!choose_layout(lib_, reader_, passes)) failed();

        Rgb image{static_cast<int>(reader_.width), static_cast<int>(reader_.height), {}};
        const size_t count = size_t{reader_.width} * reader_.height;
        image.data.resize(count * 3);
        const bool direct = reader_.color != PNG_COLOR_TYPE_PALETTE && (reader_.color & PNG_COLOR_MASK_COLOR) != 0;
        std::vector<uint8_t> single(direct ? 0 : count);
        uint8_t* pixels = direct ? image.data.data() : single.data();
        if (!read_pixels(lib_, reader_, passes, pixels, size_t{reader_.width} * (direct ? 3 : 1))) failed();
        if (!direct) expand(single, image.data.data());
        return image;
    }

private:
    // Pillow's convert("RGB") turns every such value above 255 to white, which no one means; a depth or a medical
    // picture has to be brought to 8 bits by someone who knows its range.
    void refuse_gray16() const {
        if (reader_.color == PNG_COLOR_TYPE_GRAY && reader_.depth == 16) {
            throw Error(EP_ERROR_IMAGE, path_ + " is a 16-bit grayscale PNG; convert it to 8 bits per pixel first");
        }
    }

    void expand(const std::vector<uint8_t>& single, uint8_t* rgb) const {
        const std::array<std::array<uint8_t, 3>, 256> colors = color_table();
        for (const uint8_t value : single) {
            std::copy_n(colors[value].data(), 3, rgb);
            rgb += 3;
        }
    }

    // RGB of each byte; palette indices beyond the palette's end are black, as in Pillow.
    std::array<std::array<uint8_t, 3>, 256> color_table() const {
        std::array<std::array<uint8_t, 3>, 256> colors{};
        if (reader_.color != PNG_COLOR_TYPE_PALETTE) {
            for (size_t i = 0; i < colors.size(); ++i) colors[i].fill(static_cast<uint8_t>(i));
            return colors;
        }
        png_colorp palette = nullptr;
        int count = 0;
        lib_.palette(reader_.png, reader_.info, &palette, &count);
        for (int i = 0; i < count; ++i) colors[i] = {palette[i].red, palette[i].green, palette[i].blue};
        return colors;
    }

    [[noreturn]] void failed() const {
        if (reader_.truncated) throw Error(EP_ERROR_IMAGE, path_ + " is a truncated PNG; copy the whole file again");
        throw Error(EP_ERROR_IMAGE, path_ + " cannot be decoded as PNG (" + reader_.message + "); save it again");
    }

    const LibPng& lib_;
    const std::string& path_;
    Reader reader_;
};

}  // namespace

Rgb decode_png(const FileBytes& file) {
    return Decoder(file).decode();
}

}  // namespace edgeprune

#else

namespace edgeprune {

Rgb decode_png(const FileBytes& file) {
    throw Error(EP_ERROR_UNSUPPORTED, file.path +
                                          " is a PNG, but this library was built without libpng; build it where "
                                          "libpng-dev is installed, or pass pixels instead of a file");
}

}  // namespace edgeprune

#endif
