// Driven by tests/runtime/test_statuses.py: what becomes of exceptions that no call of the library should throw. Out:
// one line "STATUS text" each.
#include <cstdio>
#include <stdexcept>

#include "api_internal.h"

namespace {

template <class Body>
void report(Body body) {
    const ep_status status = edgeprune::guarded(body);
    std::printf("%d %s\n", status, ep_last_error());
}

// What a C++ program's own callback throws arrives at the same place.
int32_t throwing(const char*, size_t, int32_t, void*) {
    throw std::runtime_error("from the callback");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    report([] { throw std::logic_error("a bug"); });
    report([] { throw 1; });

    ep_model_options opening;
    ep_model_options_init(&opening);
    opening.onnxruntime_library = argv[2];
    ep_model* model = nullptr;
    ep_session* session = nullptr;
    if (ep_model_open(argv[1], &opening, &model) != EP_OK || ep_session_new(model, nullptr, &session) != EP_OK)
        return 1;
    ep_generate_options asking;
    ep_generate_options_init(&asking);
    asking.prompt = "Where is it?";
    asking.max_new_tokens = 3;
    asking.on_text = throwing;
    const ep_status status = ep_session_generate(session, &asking, nullptr);
    std::printf("%d %s\n", status, ep_last_error());
    asking.on_text = nullptr;
    std::printf("%d\n", ep_session_generate(session, &asking, nullptr));
    ep_session_free(session);
    ep_model_free(model);
}
