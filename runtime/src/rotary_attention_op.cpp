#include "rotary_attention_op.h"

#include <array>
#include <vector>

#include "attention_cache.h"

namespace edgeprune {
namespace {

using attention::Stored;
using own_op::Call;
using own_op::Tensor;

enum Input : size_t { kQuery, kNewKey, kNewValue, kCosines, kSines, kPastKey, kPastValue, kPositions };
enum Output : size_t { kMixed, kPresentKey, kPresentValue };
constexpr std::array<size_t, 8> kRanks{3, 3, 3, 4, 4, 4, 4, 2};

template <Stored stored>
class RotaryAttention : public attention::CacheTypes<stored, kPastKey, kPastValue, kPositions> {
public:
    static constexpr const char* kName = "RotaryAttention";
    static constexpr size_t kInputs = 8, kOutputs = 3;

    RotaryAttention(const ort::OpApi& api, const ort::KernelInfo* info) {
        own_op::check(api.attribute_float(info, "scale", &scale_));
    }

    void compute(const Call& call) const {
        std::array<Tensor, kInputs> in;
        for (size_t i = 0; i < kInputs; ++i) {
            in[i] = call.input(i);
            if (in[i].rank != kRanks[i]) call.refuse("input " + std::to_string(i) + " has another rank");
        }
        require(call, in);
        const Tensor mixed = call.output(kMixed, in[kQuery]);
        const Tensor keys = attention::present_of<stored>(call, kPresentKey, in[kPastKey]);
        const Tensor values = attention::present_of<stored>(call, kPresentValue, in[kPastValue]);
        write(call, in, keys, values);
        const auto& query = in[kQuery].shape;
        const int64_t width = keys.shape[3];
        attention::Plan plan({query[0], query[2] / width, keys.shape[1], query[1], keys.shape[2], width, scale_,
                              in[kQuery].floats(), stored, keys.data, values.data,
                              static_cast<const int64_t*>(in[kPositions].data), static_cast<float*>(mixed.data), true,
                              in[kCosines].floats(), in[kSines].floats()});
        call.run(plan);
        plan.finish();
    }

private:
    static void require(const Call& call, const std::array<Tensor, kInputs>& in) {
        const auto& query = in[kQuery].shape;
        const auto& past = in[kPastKey].shape;
        const int64_t batch = query[0], fresh = query[1], width = past[3];
        const std::array<int64_t, 4> rows{batch, fresh, past[1] * width}, angles{batch, 1, fresh, width / 2};
        const std::array<int64_t, 4> cache{batch, past[1], past[2], width};
        if (in[kNewKey].shape != rows || in[kNewValue].shape != rows || past != cache || in[kPastValue].shape != cache)
            call.refuse("the shapes of query, new and cached keys and values do not fit");
        if (width == 0 || width % 2 != 0 || in[kCosines].shape != angles || in[kSines].shape != angles)
            call.refuse("there is not one cosine and one sine for each token and pair of a head");
        if (past[1] == 0 || query[2] % (past[1] * width) != 0)
            call.refuse("the query heads are no multiple of the key heads");
        if (past[2] > INT32_MAX) call.refuse("the cache has too many places");
        if (in[kPositions].shape[0] != batch || in[kPositions].shape[1] != fresh)
            call.refuse("there is not one position for each query");
        attention::require_positions(call, in[kPositions], past[2]);
    }

    // New keys, rotated, and new values at their positions.
    static void write(const Call& call, const std::array<Tensor, kInputs>& in, const Tensor& keys,
                      const Tensor& values) {
        const int64_t heads = keys.shape[1], places = keys.shape[2], width = keys.shape[3], half = width / 2;
        const int64_t tokens = in[kQuery].shape[0] * in[kQuery].shape[1];
        const auto* const position = static_cast<const int64_t*>(in[kPositions].data);
        std::vector<float> rotated(static_cast<size_t>(width));
        for (int64_t token = 0; token < tokens; ++token) {
            const int64_t batch = token / in[kQuery].shape[1];
            const float* const cosines = in[kCosines].floats() + token * half;
            const float* const sines = in[kSines].floats() + token * half;
            for (int64_t head = 0; head < heads; ++head) {
                const int64_t from = (token * heads + head) * width;
                const int64_t to = ((batch * heads + head) * places + position[token]) * width;
                attention::rotate(in[kNewKey].floats() + from, cosines, sines, half, rotated.data());
                attention::write_row<stored>(call, rotated.data(), width, keys.data, to);
                attention::write_row<stored>(call, in[kNewValue].floats() + from, width, values.data, to);
            }
        }
    }

    float scale_ = 1;
};

}  // namespace

ort::CustomOp rotary_attention() {
    return own_op::described<RotaryAttention<Stored::float32>>();
}

ort::CustomOp rotary_attention_float16() {
    return own_op::described<RotaryAttention<Stored::float16>>();
}

}  // namespace edgeprune
