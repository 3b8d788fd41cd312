// Input: a tokenizer.json. What loads also encodes and decodes.
#include "error.h"
#include "fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::string_view texts[] = {"",
                                             "a",
                                             " What's  in\tthis picture? 12345\r\n\n",
                                             "<s>e\u0301 \u4f60\U0001f600</s>",
                                             "\xff\xe2\x82",
                                             "ab ab\u2581ab.."};
    try {
        const auto tokenizer = edgeprune::Tokenizer::from_json({reinterpret_cast<const char*>(data), size});
        std::vector<int32_t> ids{-1, 0, 1, 2, 3, 1 << 24, INT32_MAX};
        for (const std::string_view text : texts) {
            for (const int32_t id : tokenizer->encode(text, {{0, text.size() / 2}})) ids.push_back(id);
            for (const int32_t id : tokenizer->encode(text)) ids.push_back(id);
        }
        tokenizer->decode(ids, false);
        check_streaming(*tokenizer, ids);
    } catch (const edgeprune::Error&) {
    }
    return 0;
}
