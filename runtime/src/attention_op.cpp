#include "attention_op.h"

#include <array>
#include <string>

#include "attention_cache.h"
#include "own_op.h"

namespace edgeprune {
namespace {

using attention::Stored;
using own_op::Call;
using own_op::Tensor;

enum Input : size_t { kQuery, kNewKey, kNewValue, kPastKey, kPastValue, kPositions };
enum Output : size_t { kMixed, kPresentKey, kPresentValue };

template <Stored stored>
class CachedAttention : public attention::CacheTypes<stored, kPastKey, kPastValue, kPositions> {
public:
    static constexpr const char* kName = "CachedAttention";
    static constexpr size_t kInputs = 6, kOutputs = 3;

    CachedAttention(const ort::OpApi& api, const ort::KernelInfo* info) {
        own_op::check(api.attribute_float(info, "scale", &scale_));
    }

    void compute(const Call& call) const {
        std::array<Tensor, kInputs> in;
        for (size_t i = 0; i < kInputs; ++i) {
            in[i] = call.input(i);
            if (in[i].rank != (i == kPositions ? 2 : 4))
                call.refuse("input " + std::to_string(i) + " has another rank");
        }
        require(call, in);
        const Tensor mixed = call.output(kMixed, in[kQuery]);
        const Tensor keys = written(call, in[kPastKey], in[kNewKey], in[kPositions], kPresentKey);
        const Tensor values = written(call, in[kPastValue], in[kNewValue], in[kPositions], kPresentValue);
        const auto& query = in[kQuery].shape;
        attention::Plan plan({query[0], query[1], keys.shape[1], query[2], keys.shape[2], query[3], scale_,
                              in[kQuery].floats(), stored, keys.data, values.data,
                              static_cast<const int64_t*>(in[kPositions].data), static_cast<float*>(mixed.data)});
        call.run(plan);
        plan.finish();
    }

private:
    static void require(const Call& call, const std::array<Tensor, kInputs>& in) {
        const auto& query = in[kQuery].shape;
        const auto& past = in[kPastKey].shape;
        const std::array<int64_t, 4> fresh{query[0], past[1], query[2], query[3]};
        const std::array<int64_t, 4> cache{query[0], past[1], past[2], query[3]};
        if (in[kNewKey].shape != fresh || in[kNewValue].shape != fresh || past != cache ||
            in[kPastValue].shape != cache)
            call.refuse("the shapes of query, new and cached keys and values do not fit");
        if (past[1] == 0 || query[1] % past[1] != 0) call.refuse("the query heads are no multiple of the key heads");
        if (past[2] > INT32_MAX) call.refuse("the cache has too many places");
        if (in[kPositions].shape[0] != query[0] || in[kPositions].shape[1] != query[2])
            call.refuse("there is not one position for each query");
        attention::require_positions(call, in[kPositions], past[2]);
    }

    // `present` with the tokens of `past`, and the new ones at their positions.
    static Tensor written(const Call& call, const Tensor& past, const Tensor& fresh, const Tensor& positions,
                          size_t output) {
        const Tensor present = attention::present_of<stored>(call, output, past);
        const int64_t heads = past.shape[1], places = past.shape[2], width = past.shape[3], count = fresh.shape[2];
        const auto* position = static_cast<const int64_t*>(positions.data);
        const float* from = fresh.floats();
        for (int64_t head = 0; head < past.shape[0] * heads; ++head) {
            for (int64_t t = 0; t < count; ++t, from += width) {
                const int64_t place = head * places + position[head / heads * count + t];
                attention::write_row<stored>(call, from, width, present.data, place * width);
            }
        }
        return present;
    }

    float scale_ = 1;
};

}  // namespace

ort::CustomOp cached_attention() {
    return own_op::described<CachedAttention<Stored::float32>>();
}

ort::CustomOp cached_attention_float16() {
    return own_op::described<CachedAttention<Stored::float16>>();
}

}  // namespace edgeprune
