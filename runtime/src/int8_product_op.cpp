#include "int8_product_op.h"

#include "int8_product.h"
#include "log.h"
#include "own_op.h"
#include "processor.h"

namespace edgeprune {
namespace {

// Says once how this processor computes, and what it has that could not be used.
void announce(const int8::Form& form) {
    static const bool said = [&form] {
        log(EP_LOG_INFO, std::string("int8 products: ") + form.name);
        if (has_amx_int8() && &form != int8::form(int8::Instructions::amx))
            log(EP_LOG_WARNING, "AMX gave other sums than AVX-512 VNNI: it is not used; please report this processor");
        return true;
    }();
    static_cast<void>(said);
}

class MatMulInt8 {
public:
    static constexpr const char* kName = "MatMulInt8";
    static constexpr size_t kInputs = 3, kOutputs = 1;
    static int32_t input_type(size_t index) { return index == 1 ? ort::kUint8 : ort::kFloat32; }
    static int32_t output_type(size_t) { return ort::kFloat32; }

    MatMulInt8(const ort::OpApi& api, const ort::KernelInfo* info) {
        own_op::check(api.attribute_int(info, "columns", &columns_));
        own_op::check(api.attribute_float(info, "swish", &swish_));
        announce(form_);
    }

    void compute(const own_op::Call& call) const {
        const own_op::Tensor x = call.input(0), weights = call.input(1), bias = call.input(2);
        if (x.rank == 0) call.refuse("the input has no dimension");
        const int64_t depth = x.shape[x.rank - 1];
        const std::array<int64_t, 4> wanted{int8::panels_of(columns_), int8::panel_bytes(depth)};
        if (columns_ <= 0 || weights.rank != 2 || weights.shape != wanted)
            call.refuse("the weights have another shape than an input of " + std::to_string(depth) + " and " +
                        std::to_string(columns_) + " columns need");
        const auto biases = static_cast<int64_t>(bias.elements());
        if (bias.rank != 1 || (biases != 0 && biases != columns_))
            call.refuse("the bias has " + std::to_string(biases) + " numbers, not " + std::to_string(columns_));
        own_op::Tensor y = x;
        y.shape[x.rank - 1] = columns_;
        y = call.output(0, y);
        const int8::Problem problem{static_cast<int64_t>(y.elements()) / columns_,
                                    depth,
                                    columns_,
                                    x.floats(),
                                    static_cast<const uint8_t*>(weights.data),
                                    biases == 0 ? nullptr : bias.floats(),
                                    static_cast<float*>(y.data),
                                    swish_};
        int8::Inputs inputs(problem, form_);
        call.run(inputs);
        int8::Plan plan(problem, form_, inputs);
        call.run(plan);
    }

private:
    const int8::Form& form_ = *int8::form();
    int64_t columns_ = 0;
    float swish_ = 0;
};

}  // namespace

ort::CustomOp matmul_int8() {
    return own_op::described<MatMulInt8>();
}

}  // namespace edgeprune
