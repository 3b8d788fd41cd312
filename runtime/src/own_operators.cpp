#include "own_operators.h"

#include <array>
#include <map>
#include <mutex>

#include "attention_op.h"
#include "encoder_attention_op.h"
#include "int8_product_op.h"
#include "own_op.h"
#include "product_op.h"
#include "rotary_attention_op.h"

namespace edgeprune {

ort::Status* own_operators(const ort::Slot* table, ort::CustomOpDomain** domain) {
    static const std::array<ort::CustomOp, 7> ops{
        cached_attention(), cached_attention_float16(), rotary_attention(), rotary_attention_float16(), matmul_int4(),
        matmul_int8(),      encoder_attention()};
    static std::mutex mutex;
    static auto* const domains = new std::map<const ort::Slot*, ort::CustomOpDomain*>;
    const ort::OpApi api(table);
    const std::lock_guard<std::mutex> lock(mutex);
    ort::CustomOpDomain*& known = (*domains)[table];
    if (known == nullptr) {
        ort::CustomOpDomain* made = nullptr;
        ort::Status* status = api.create_domain("edgeprune", &made);
        for (const ort::CustomOp& op : ops) {
            if (status == nullptr) status = api.add_op(made, &op);
        }
        if (status != nullptr) return status;
        known = made;
    }
    *domain = known;
    return nullptr;
}

}  // namespace edgeprune

// What onnxruntime calls in a library of operators: SessionOptions.register_custom_ops_library(libedgeprune).
extern "C" __attribute__((visibility("default"))) edgeprune::ort::Status* RegisterCustomOps(
    edgeprune::ort::SessionOptions* options, const edgeprune::ort::ApiBase* base) {
    const edgeprune::ort::Slot* const table = base->get_api(edgeprune::ort::kApiVersion);
    const edgeprune::ort::OpApi api(table);
    return edgeprune::own_op::guarded(api, [&] {
        edgeprune::ort::CustomOpDomain* domain = nullptr;
        edgeprune::own_op::check(edgeprune::own_operators(table, &domain));
        edgeprune::own_op::check(api.add_domain(options, domain));
    });
}
