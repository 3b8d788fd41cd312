// The _init functions: they must not write beyond the struct of the program that calls them, which may have been
// compiled with an older header, whose structs were smaller, or with a newer one.
#include <cstddef>
#include <cstring>

#include "api_structs.h"
#include "edgeprune.h"

namespace edgeprune {
namespace {

void init_sized(void* value, size_t size) noexcept {
    if (value == nullptr || size < sizeof size) return;
    std::memset(value, 0, size);
    std::memcpy(value, &size, sizeof size);
}

// What sizeof was in the first header, whose programs call the functions without a size: up to its last field, and
// the padding behind it.
template <class Struct, class Field>
constexpr size_t first_size(size_t offset_of_last) {
    const size_t end = offset_of_last + sizeof(Field);
    return (end + alignof(Struct) - 1) / alignof(Struct) * alignof(Struct);
}

}  // namespace
}  // namespace edgeprune

// Parentheses keep the header's macro of the same name away.
#define EP_DEFINE_INIT(type, last)                                                                             \
    void type##_init_sized(type* value, size_t size) {                                                         \
        edgeprune::init_sized(value, size);                                                                    \
    }                                                                                                          \
    void(type##_init)(type * value) {                                                                          \
        edgeprune::init_sized(value, edgeprune::first_size<type, decltype(type::last)>(offsetof(type, last))); \
    }

EP_DEFINE_INIT(ep_model_options, verify)
EP_DEFINE_INIT(ep_session_options, struct_size)
EP_DEFINE_INIT(ep_frame, format)
EP_DEFINE_INIT(ep_image_options, method)
EP_DEFINE_INIT(ep_kept_tokens, keep)
EP_DEFINE_INIT(ep_generate_options, user_data)
EP_DEFINE_INIT(ep_answer, kv_tokens)
EP_DEFINE_INIT(ep_score_options, deadline_ms)
EP_DEFINE_INIT(ep_scores, kv_tokens)
EP_DEFINE_INIT(ep_stats, kv_bytes)
