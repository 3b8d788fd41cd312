// JPEG through libjpeg (libjpeg-turbo), opened at run time.
#include "error.h"
#include "image_codecs.h"

#ifdef EDGEPRUNE_HAVE_JPEG

#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE
#include <cstring>

#include "dynamic_library.h"

namespace edgeprune {
namespace {

#if JPEG_LIB_VERSION >= 90
constexpr const char* kLibrary = "libjpeg.so.9";
#elif JPEG_LIB_VERSION >= 80
constexpr const char* kLibrary = "libjpeg.so.8";
#else
constexpr const char* kLibrary = "libjpeg.so.62";
#endif

struct LibJpeg {
    LibJpeg() : library({kLibrary}) {
        library.bind(std_error, "jpeg_std_error");
        library.bind(create, "jpeg_CreateDecompress");
        library.bind(destroy, "jpeg_destroy_decompress");
        library.bind(read_header, "jpeg_read_header");
        library.bind(start, "jpeg_start_decompress");
        library.bind(read_scanlines, "jpeg_read_scanlines");
        library.bind(finish, "jpeg_finish_decompress");
        library.bind(resync, "jpeg_resync_to_restart");
    }

    DynamicLibrary library;
    decltype(jpeg_std_error)* std_error;
    decltype(jpeg_CreateDecompress)* create;
    decltype(jpeg_destroy_decompress)* destroy;
    decltype(jpeg_read_header)* read_header;
    decltype(jpeg_start_decompress)* start;
    decltype(jpeg_read_scanlines)* read_scanlines;
    decltype(jpeg_finish_decompress)* finish;
    decltype(jpeg_resync_to_restart)* resync;
};

const LibJpeg& libjpeg(const std::string& path) {
    try {
        static const LibJpeg library;
        return library;
    } catch (const std::runtime_error& error) {
        throw Error(EP_ERROR_UNSUPPORTED, "reading " + path + " needs " + kLibrary + " (" + error.what() +
                                              "); install libjpeg-turbo, or pass pixels instead of a file");
    }
}

// A failure inside libjpeg jumps back to `jump`, so functions that call setjmp hold no C++ objects.
struct Reader {
    jpeg_decompress_struct info{};
    jpeg_error_mgr errors{};
    jpeg_source_mgr source{};
    std::jmp_buf jump;
    bool truncated = false;
    char message[JMSG_LENGTH_MAX] = "";
};

Reader& reader_of(j_common_ptr info) {
    return *static_cast<Reader*>(info->client_data);
}

[[noreturn]] void fail(j_common_ptr info) {
    Reader& reader = reader_of(info);
    reader.errors.format_message(info, reader.message);
    std::longjmp(reader.jump, 1);
}

[[noreturn]] void fail_truncated(j_decompress_ptr info) {
    Reader& reader = reader_of(reinterpret_cast<j_common_ptr>(info));
    reader.truncated = true;
    std::longjmp(reader.jump, 1);
}

void ignore_message(j_common_ptr) {}
void ignore_call(j_decompress_ptr) {}

boolean fill_input(j_decompress_ptr info) {
    fail_truncated(info);
}

void skip_input(j_decompress_ptr info, long count) {
    if (count <= 0) return;
    if (static_cast<size_t>(count) > info->src->bytes_in_buffer) fail_truncated(info);
    info->src->next_input_byte += count;
    info->src->bytes_in_buffer -= static_cast<size_t>(count);
}

bool open_header(const LibJpeg& lib, Reader& reader) {
    if (setjmp(reader.jump) != 0) return false;
    lib.create(&reader.info, JPEG_LIB_VERSION, sizeof(reader.info));
    reader.info.src = &reader.source;
    lib.read_header(&reader.info, TRUE);
    return true;
}

// Pillow's CMYK -> RGB for the inverted values of Adobe files: white minus ink, times black.
uint8_t ink_to_light(int inverted_ink, int inverted_black) {
    const int product = (255 - inverted_ink) * inverted_black + 128;
    return static_cast<uint8_t>(inverted_black - ((product + (product >> 8)) >> 8));
}

void expand_line(const uint8_t* line, int components, size_t width, uint8_t* rgb) {
    for (size_t x = 0; x < width; ++x, rgb += 3) {
        for (size_t c = 0; c < 3; ++c) {
            rgb[c] = components == 1 ? line[x] : ink_to_light(line[x * 4 + c], line[x * 4 + 3]);
        }
    }
}

// `line` has room for one row of the file's components and is unused for RGB.
bool read_pixels(const LibJpeg& lib, Reader& reader, uint8_t* rgb, uint8_t* line) {
    if (setjmp(reader.jump) != 0) return false;
    jpeg_decompress_struct& info = reader.info;
    lib.start(&info);
    const bool direct = info.output_components == 3;
    while (info.output_scanline < info.output_height) {
        uint8_t* to = rgb + size_t{info.output_scanline} * info.output_width * 3;
        JSAMPROW row = direct ? to : line;
        lib.read_scanlines(&info, &row, 1);
        if (!direct) expand_line(line, info.output_components, info.output_width, to);
    }
    lib.finish(&info);
    return true;
}

class Decoder {
public:
    explicit Decoder(const FileBytes& file) : lib_(libjpeg(file.path)), path_(file.path) {
        reader_.info.err = lib_.std_error(&reader_.errors);
        reader_.errors.error_exit = fail;
        reader_.errors.output_message = ignore_message;
        reader_.info.client_data = &reader_;
        reader_.source.next_input_byte = file.data;
        reader_.source.bytes_in_buffer = file.size;
        reader_.source.init_source = ignore_call;
        reader_.source.fill_input_buffer = fill_input;
        reader_.source.skip_input_data = skip_input;
        reader_.source.resync_to_restart = lib_.resync;
        reader_.source.term_source = ignore_call;
    }
    ~Decoder() { lib_.destroy(&reader_.info); }
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    Rgb decode() {
        if (!open_header(lib_, reader_)) failed();
        jpeg_decompress_struct& info = reader_.info;
        check_image_size(info.image_width, info.image_height, path_);
        choose_colors();
        Rgb image{static_cast<int>(info.image_width), static_cast<int>(info.image_height), {}};
        image.data.resize(size_t{info.image_width} * info.image_height * 3);
        std::vector<uint8_t> line(size_t{info.image_width} * 4);
        if (!read_pixels(lib_, reader_, image.data.data(), line.data())) failed();
        return image;
    }

private:
    void choose_colors() {
        jpeg_decompress_struct& info = reader_.info;
        if (info.data_precision != 8 ||
            (info.num_components != 1 && info.num_components != 3 && info.num_components != 4)) {
            throw Error(EP_ERROR_IMAGE, path_ + " is a JPEG of " + std::to_string(info.num_components) +
                                            " components with " + std::to_string(info.data_precision) +
                                            " bits; convert it to 8-bit RGB first");
        }
        info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : info.num_components == 3 ? JCS_RGB : JCS_CMYK;
    }

    [[noreturn]] void failed() const {
        if (reader_.truncated) throw Error(EP_ERROR_IMAGE, path_ + " is a truncated JPEG; copy the whole file again");
        throw Error(EP_ERROR_IMAGE, path_ + " cannot be decoded as JPEG (" + reader_.message + "); save it again");
    }

    const LibJpeg& lib_;
    const std::string& path_;
    Reader reader_;
};

}  // namespace

Rgb decode_jpeg(const FileBytes& file) {
    return Decoder(file).decode();
}

}  // namespace edgeprune

#else

namespace edgeprune {

Rgb decode_jpeg(const FileBytes& file) {
    throw Error(EP_ERROR_UNSUPPORTED, file.path +
                                          " is a JPEG, but this library was built without libjpeg; build it where "
                                          "libjpeg-dev is installed, or pass pixels instead of a file");
}

}  // namespace edgeprune

#endif
