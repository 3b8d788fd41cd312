// Driven by tests/runtime/test_image.py. Standard input carries requests, one JSON object per line, each followed by
// its "bytes" raw bytes; every answer is a JSON line followed by its "bytes" raw bytes.
//
//   {"op": "frame", "width", "height", "stride", "format", "bytes"}     -> RGB pixels; also "chroma" (offset in the
//       bytes), "chroma_stride", "matrix", "range"; with "spec": preprocessed
//   {"op": "file", "path"}                                              -> RGB pixels
//   {"op": "mask", "spec", "width", "height", "rows", "cols"}           -> float32 padding mask
//   {"op": "preprocess", "spec", "width", "height", "bytes", "repeat"}  -> RGB pixels, then float32 (3,H,W); "ms"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "error.h"
#include "image.h"
#include "image_frame.h"
#include "image_placement.h"

namespace {

using nlohmann::json;
using namespace edgeprune;

struct Reply {
    json head;
    std::string body;
};

std::string bytes_of(const Rgb& image) {
    return {image.data.begin(), image.data.end()};
}

Reply pixels_reply(const Rgb& image) {
    return {{{"width", image.width}, {"height", image.height}}, bytes_of(image)};
}

Rgb whole(const FrameView& frame) {
    Rgb image{frame.width, frame.height, {}};
    const size_t row = static_cast<size_t>(image.width) * 3;
    image.data.resize(row * static_cast<size_t>(image.height));
    for (int y = 0; y < image.height; ++y) frame.read(frame, y, 0, image.width, image.data.data() + y * row);
    return image;
}

Reply frame(const json& request, const std::string& body) {
    ep_frame frame{};
    frame.struct_size = sizeof(frame);
    frame.data = body.empty() ? nullptr : reinterpret_cast<const uint8_t*>(body.data());
    frame.width_px = request["width"];
    frame.height_px = request["height"];
    frame.stride = request["stride"];
    frame.format = request["format"];
    if (request.contains("chroma")) frame.chroma = frame.data + request["chroma"].get<size_t>();
    frame.chroma_stride = request.value("chroma_stride", size_t{0});
    frame.color_matrix = request.value("matrix", 0);
    frame.color_range = request.value("range", 0);
    const FrameView view(frame);
    if (request.contains("spec")) return pixels_reply(preprocess_bytes(view, parse_preprocess(request["spec"])));
    return pixels_reply(whole(view));
}

Reply preprocess(const json& request, const std::string& body) {
    const PreprocessSpec spec = parse_preprocess(request["spec"]);
    const Rgb image{request["width"], request["height"], {body.begin(), body.end()}};
    Rgb pixels;
    double best_ms = 1e30;
    for (int i = 0; i < request.value("repeat", 1); ++i) {
        const auto start = std::chrono::steady_clock::now();
        pixels = preprocess_bytes(image, spec);
        const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
        best_ms = std::min(best_ms, ms.count());
    }
    std::vector<float> floats(pixels.data.size());
    normalise(pixels, spec, floats.data());
    Reply reply = pixels_reply(pixels);
    reply.head["ms"] = best_ms;
    reply.body.append(reinterpret_cast<const char*>(floats.data()), floats.size() * sizeof(float));
    return reply;
}

Reply mask(const json& request) {
    const std::vector<float> mask = padding_mask(request["width"], request["height"], parse_preprocess(request["spec"]),
                                                 request["rows"], request["cols"]);
    return {json::object(), {reinterpret_cast<const char*>(mask.data()), mask.size() * sizeof(float)}};
}

Reply answer(const json& request, const std::string& body) {
    try {
        const std::string op = request["op"];
        if (op == "frame") return frame(request, body);
        if (op == "file") return pixels_reply(decode_image_file(request["path"]));
        if (op == "mask") return mask(request);
        if (op == "preprocess") return preprocess(request, body);
        return {{{"error", "unknown op " + op}, {"status", EP_ERROR_INTERNAL}}, ""};
    } catch (const Error& error) {
        return {{{"error", error.what()}, {"status", error.status()}}, ""};
    }
}

}  // namespace

int main() {
    std::ios::sync_with_stdio(false);
    for (std::string line; std::getline(std::cin, line);) {
        const json request = json::parse(line);
        std::string body(request.value("bytes", size_t{0}), '\0');
        std::cin.read(body.data(), static_cast<std::streamsize>(body.size()));
        Reply reply = answer(request, body);
        reply.head["bytes"] = reply.body.size();
        std::cout << reply.head.dump() << '\n' << reply.body << std::flush;
    }
    return 0;
}
