// Caller's frames: check them, then read their rows as RGB.
#include "image_frame.h"

#include <cstring>
#include <limits>

#include "error.h"

namespace edgeprune {
namespace {

void read_rgb(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* to) {
    std::memcpy(to, frame.luma(y) + first * 3, static_cast<size_t>(count) * 3);
}

void read_bgr(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* to) {
    const uint8_t* from = frame.luma(y) + first * 3;
    for (int64_t x = 0; x < count; ++x, from += 3, to += 3) {
        to[0] = from[2];
        to[1] = from[1];
        to[2] = from[0];
    }
}

void read_rgba(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* to) {
    const uint8_t* from = frame.luma(y) + first * 4;
    for (int64_t x = 0; x < count; ++x, from += 4, to += 3) {
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
    }
}

void read_gray(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* to) {
    const uint8_t* from = frame.luma(y) + first;
    for (int64_t x = 0; x < count; ++x, ++from, to += 3) to[0] = to[1] = to[2] = *from;
}

void read_nv12(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* to) {
    nv12_row(frame.luma(y), frame.chroma_row(y), first, count, frame.yuv, to);
}

void read_yuyv(const FrameView& frame, int64_t y, int64_t first, int64_t count, uint8_t* to) {
    yuyv_row(frame.luma(y), first, count, frame.yuv, to);
}

struct Layout {
    size_t row_bytes;  // of packed pixels in the first plane
    FrameView::Reader read;
};

Layout layout_of(const ep_frame& frame) {
    const auto width = static_cast<size_t>(frame.width_px);
    switch (frame.format) {
        case EP_PIXEL_RGB8:
            return {width * 3, read_rgb};
        case EP_PIXEL_BGR8:
            return {width * 3, read_bgr};
        case EP_PIXEL_RGBA8:
            return {width * 4, read_rgba};
        case EP_PIXEL_GRAY8:
            return {width, read_gray};
        case EP_PIXEL_NV12:
            return {width, read_nv12};
        case EP_PIXEL_YUYV:
            return {(width + 1) / 2 * 4, read_yuyv};
        default:
            throw Error(EP_ERROR_INVALID_ARGUMENT,
                        "pixel format " + std::to_string(frame.format) + " is unknown; use an ep_pixel_format value");
    }
}

void check_stride(const char* name, size_t stride, size_t row_bytes, int32_t rows) {
    const std::string text = std::string("frame.") + name + " is " + std::to_string(stride);
    if (stride < row_bytes) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, text + " bytes but a row of pixels takes " + std::to_string(row_bytes));
    }
    if (stride > std::numeric_limits<size_t>::max() / static_cast<size_t>(rows)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, text + ", which is beyond any memory");
    }
}

// NV12: half as many rows of Cb Cr pairs, by default right behind the last row of luma and with its stride.
void add_chroma(const ep_frame& frame, FrameView& view) {
    const size_t row_bytes = (static_cast<size_t>(frame.width_px) + 1) / 2 * 2;
    view.chroma_stride = frame.chroma_stride;
    if (view.chroma_stride == 0) view.chroma_stride = frame.stride == 0 ? row_bytes : frame.stride;
    check_stride("chroma_stride", view.chroma_stride, row_bytes, frame.height_px);
    view.chroma = frame.chroma != nullptr ? frame.chroma : view.data + view.stride * static_cast<size_t>(view.height);
}

// What only other formats have must hold its default: a wrong format would otherwise pass for a right one.
void check_unused(const ep_frame& frame) {
    const bool planes = frame.format == EP_PIXEL_NV12;
    const bool colors = planes || frame.format == EP_PIXEL_YUYV;
    if (!planes && (frame.chroma != nullptr || frame.chroma_stride != 0)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT, "frame.chroma and chroma_stride belong to EP_PIXEL_NV12; leave them 0");
    }
    if (!colors && (frame.color_matrix != 0 || frame.color_range != 0)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "frame.color_matrix and color_range belong to EP_PIXEL_NV12 and EP_PIXEL_YUYV; leave them 0");
    }
}

}  // namespace

FrameView::FrameView(const Rgb& image)
    : width(image.width),
      height(image.height),
      data(image.data.data()),
      stride(static_cast<size_t>(image.width) * 3),
      read(read_rgb) {}

FrameView::FrameView(const ep_frame& frame) {
    if (frame.data == nullptr) throw Error(EP_ERROR_INVALID_ARGUMENT, "frame.data is null; point it at the first row");
    check_image_size(frame.width_px, frame.height_px);
    const Layout layout = layout_of(frame);
    check_unused(frame);
    width = frame.width_px;
    height = frame.height_px;
    data = frame.data;
    stride = frame.stride == 0 ? layout.row_bytes : frame.stride;
    read = layout.read;
    check_stride("stride", stride, layout.row_bytes, frame.height_px);
    if (frame.format == EP_PIXEL_NV12) add_chroma(frame, *this);
    if (frame.format == EP_PIXEL_NV12 || frame.format == EP_PIXEL_YUYV) {
        yuv = yuv_weights(frame.color_matrix, frame.color_range);
    }
}

bool FrameView::is_rgb() const {
    return read == read_rgb;
}

void check_image_size(int64_t width, int64_t height, const std::string& what) {
    const std::string text = what + " has " + std::to_string(width) + " x " + std::to_string(height) + " pixels; ";
    if (width < 1 || height < 1) throw Error(EP_ERROR_IMAGE, text + "give one of at least 1 x 1");
    constexpr int64_t kMaxEdge = std::numeric_limits<int32_t>::max();
    if (width > kMaxEdge || height > kMaxEdge || width > kMaxImagePixels / height) {
        throw Error(EP_ERROR_IMAGE, text + "the limit is " + std::to_string(kMaxImagePixels) + ", so shrink it first");
    }
}

}  // namespace edgeprune
