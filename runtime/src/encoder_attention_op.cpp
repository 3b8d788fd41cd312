#include "encoder_attention_op.h"

#include "encoder_attention.h"
#include "own_op.h"

namespace edgeprune {
namespace {

class EncoderAttention {
public:
    static constexpr const char* kName = "EncoderAttention";
    static constexpr size_t kInputs = 3, kOutputs = 1;
    static int32_t input_type(size_t) { return ort::kFloat32; }
    static int32_t output_type(size_t) { return ort::kFloat32; }

    EncoderAttention(const ort::OpApi& api, const ort::KernelInfo* info) {
        int64_t rounded = 0;
        own_op::check(api.attribute_int(info, "heads", &heads_));
        own_op::check(api.attribute_float(info, "scale", &scale_));
        own_op::check(api.attribute_int(info, "bfloat16", &rounded));
        operands_ = rounded != 0 ? encoder::Operands::bfloat16 : encoder::Operands::float32;
    }

    void compute(const own_op::Call& call) const {
        const own_op::Tensor query = call.input(0), key = call.input(1), value = call.input(2);
        if (query.rank != 3 || key.rank != 3 || key.shape != value.shape || key.shape[0] != query.shape[0] ||
            key.shape[2] != query.shape[2])
            call.refuse("queries, keys and values do not fit each other");
        if (heads_ <= 0 || query.shape[2] % heads_ != 0)
            call.refuse("rows of " + std::to_string(query.shape[2]) + " are no " + std::to_string(heads_) + " heads");
        if (key.shape[1] == 0) call.refuse("there is no key");
        const own_op::Tensor mixed = call.output(0, query);
        const encoder::Problem problem{
            query.shape[0], heads_,         query.shape[1], key.shape[1],   query.shape[2] / heads_,        scale_,
            operands_,      query.floats(), key.floats(),   value.floats(), static_cast<float*>(mixed.data)};
        const encoder::Form& form = *encoder::form(operands_);
        encoder::Packed packed(problem, form);
        call.run(packed);
        encoder::Plan plan(problem, form, packed);
        call.run(plan);
    }

private:
    int64_t heads_ = 0;
    float scale_ = 0;
    encoder::Operands operands_ = encoder::Operands::float32;
};

}  // namespace

ort::CustomOp encoder_attention() {
    return own_op::described<EncoderAttention>();
}

}  // namespace edgeprune
