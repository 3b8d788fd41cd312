#include "product_op.h"

#include "own_op.h"
#include "product_kernel.h"

namespace edgeprune {
namespace {

class MatMulInt4 {
public:
    static constexpr const char* kName = "MatMulInt4";
    static constexpr size_t kInputs = 2, kOutputs = 1;
    static int32_t input_type(size_t index) { return index == 0 ? ort::kFloat32 : ort::kUint8; }
    static int32_t output_type(size_t) { return ort::kFloat32; }

    MatMulInt4(const ort::OpApi& api, const ort::KernelInfo* info) {
        own_op::check(api.attribute_int(info, "columns", &columns_));
    }

    void compute(const own_op::Call& call) const {
        const own_op::Tensor x = call.input(0), weights = call.input(1);
        if (x.rank == 0) call.refuse("the input has no dimension");
        const int64_t depth = x.shape[x.rank - 1];
        const std::array<int64_t, 4> wanted{product::tiles_of(columns_), product::tile_bytes(depth)};
        if (columns_ <= 0 || weights.rank != 2 || weights.shape != wanted)
            call.refuse("the weights have another shape than an input of " + std::to_string(depth) + " and " +
                        std::to_string(columns_) + " columns need");
        own_op::Tensor y = x;
        y.shape[x.rank - 1] = columns_;
        y = call.output(0, y);
        const auto rows = static_cast<int64_t>(y.elements()) / columns_;
        product::Plan plan({rows, depth, columns_, x.floats(), static_cast<const uint8_t*>(weights.data),
                            static_cast<float*>(y.data)});
        call.run(plan);
    }

private:
    int64_t columns_ = 0;
};

}  // namespace

ort::CustomOp matmul_int4() {
    return own_op::described<MatMulInt4>();
}

}  // namespace edgeprune
