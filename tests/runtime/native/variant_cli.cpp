// Driven by tests/runtime/test_engines.py: bundle, library of onnxruntime, variant, question, rounds. Opens the variant
// and asks about a grey picture, as often as it is told; prints the answers, or the status and the sentence.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "edgeprune.h"

namespace {

int fail(ep_status status) {
    std::printf("%d\n%s\n", static_cast<int>(status), ep_last_error());
    return 0;
}

ep_status ask(ep_model* model, const char* question) {
    ep_session* session = nullptr;
    ep_status status = ep_session_new(model, nullptr, &session);
    const std::unique_ptr<ep_session, void (*)(ep_session*)> owned(session, ep_session_free);
    if (status != EP_OK) return status;
    const std::vector<uint8_t> grey(30 * 20 * 3, 90);
    ep_frame frame{};
    ep_frame_init(&frame);
    frame.data = grey.data();
    frame.width_px = 30;
    frame.height_px = 20;
    frame.format = EP_PIXEL_RGB8;
    int32_t image = 0;
    status = ep_session_add_image(session, &frame, nullptr, &image);
    if (status != EP_OK) return status;
    ep_generate_options options{};
    ep_generate_options_init(&options);
    options.prompt = question;
    options.max_new_tokens = 70;
    ep_answer answer{};
    ep_answer_init(&answer);
    status = ep_session_generate(session, &options, &answer);
    if (status == EP_OK) std::printf("%s\n", answer.text);
    return status;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    ep_model_options options{};
    ep_model_options_init(&options);
    options.onnxruntime_library = argv[2];
    options.variant = argv[3];
    for (int round = 0; round < std::atoi(argv[5]); ++round) {
        ep_model* model = nullptr;
        ep_status status = ep_model_open(argv[1], &options, &model);
        const std::unique_ptr<ep_model, void (*)(ep_model*)> owned(model, ep_model_free);
        if (status == EP_OK) status = ask(model, argv[4]);
        if (status != EP_OK) return fail(status);
    }
    return 0;
}
