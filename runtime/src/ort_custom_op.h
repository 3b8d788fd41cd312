// The part of onnxruntime's C interface by which a library brings an operator of its own: the table an operator is
// described by, and the slots that its kernel calls (ort_api.h). Version 17 of both.
#pragma once

#include "ort_api.h"

namespace edgeprune::ort {

struct KernelInfo;
struct KernelContext;
struct ShapeContext;

enum ErrorCode : int32_t { kFail = 1, kInvalidArgument = 2 };
enum Characteristic : int32_t { kRequired = 0 };
enum OperandMemory : int32_t { kOperandDefault = 0 };

// OrtCustomOp as version 17 has it. Entries that stay null are optional there.
struct CustomOp {
    uint32_t version;
    void* (*create_kernel)(const CustomOp*, const Slot* api, const KernelInfo*);
    const char* (*name)(const CustomOp*);
    const char* (*provider)(const CustomOp*);
    int32_t (*input_type)(const CustomOp*, size_t);
    size_t (*input_count)(const CustomOp*);
    int32_t (*output_type)(const CustomOp*, size_t);
    size_t (*output_count)(const CustomOp*);
    void (*compute)(void* kernel, KernelContext*);
    void (*destroy)(void* kernel);
    int32_t (*input_characteristic)(const CustomOp*, size_t);
    int32_t (*output_characteristic)(const CustomOp*, size_t);
    int32_t (*input_memory)(const CustomOp*, size_t);
    int (*variadic_input_min)(const CustomOp*);
    int (*variadic_input_same)(const CustomOp*);
    int (*variadic_output_min)(const CustomOp*);
    int (*variadic_output_same)(const CustomOp*);
    Status* (*create_kernel_v2)(const CustomOp*, const Slot* api, const KernelInfo*, void** kernel);
    Status* (*compute_v2)(void* kernel, KernelContext*);
    Status* (*infer_shapes)(const CustomOp*, ShapeContext*);
    int (*start_version)(const CustomOp*);
    int (*end_version)(const CustomOp*);
};

// What registering and computing call, beside Api.
class OpApi {
public:
    template <class... Args>
    using Call = Status* (*)(Args...);

    explicit OpApi(const Slot* table)
        : create_status(entry<Status* (*)(int32_t, const char*)>(table, 0)),
          create_domain(entry<Call<const char*, CustomOpDomain**>>(table, 26)),
          add_op(entry<Call<CustomOpDomain*, const CustomOp*>>(table, 27)),
          add_domain(entry<Call<SessionOptions*, CustomOpDomain*>>(table, 28)),
          tensor_data(entry<Call<Value*, void**>>(table, 51)),
          dimension_count(entry<Call<const TensorInfo*, size_t*>>(table, 61)),
          dimensions(entry<Call<const TensorInfo*, int64_t*, size_t>>(table, 62)),
          tensor_info(entry<Call<const Value*, TensorInfo**>>(table, 65)),
          attribute_float(entry<Call<const KernelInfo*, const char*, float*>>(table, 85)),
          attribute_int(entry<Call<const KernelInfo*, const char*, int64_t*>>(table, 86)),
          input(entry<Call<const KernelContext*, size_t, const Value**>>(table, 90)),
          output(entry<Call<KernelContext*, size_t, const int64_t*, size_t, Value**>>(table, 91)),
          release_tensor_info(entry<void (*)(TensorInfo*)>(table, 99)),
          parallel_for(entry<Call<const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*>>(table, 274)) {}

    Status* (*create_status)(int32_t code, const char* text);
    Call<const char*, CustomOpDomain**> create_domain;
    Call<CustomOpDomain*, const CustomOp*> add_op;
    Call<SessionOptions*, CustomOpDomain*> add_domain;
    Call<Value*, void**> tensor_data;
    Call<const TensorInfo*, size_t*> dimension_count;
    Call<const TensorInfo*, int64_t*, size_t> dimensions;
    Call<const Value*, TensorInfo**> tensor_info;
    Call<const KernelInfo*, const char*, float*> attribute_float;
    Call<const KernelInfo*, const char*, int64_t*> attribute_int;
    Call<const KernelContext*, size_t, const Value**> input;
    // context, index, shape, rank -> value
    Call<KernelContext*, size_t, const int64_t*, size_t, Value**> output;
    void (*release_tensor_info)(TensorInfo*);
    // context, task, how many, batches (0: as many as threads), the task's user pointer
    Call<const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*> parallel_for;
};

}  // namespace edgeprune::ort
