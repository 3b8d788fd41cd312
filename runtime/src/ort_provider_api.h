// The slots of onnxruntime's table (see ort_api.h) for execution providers, for tensors on a device, and for where
// nodes were placed.
#pragma once

#include "ort_api.h"

namespace edgeprune::ort {

// Opaque objects of onnxruntime.
struct IoBinding;
struct CudaOptions;
struct TensorRtOptions;
struct AssignedSubgraph;
struct AssignedNode;

constexpr uint32_t kPlacementApiVersion = 24;

enum AllocatorType : int32_t { kDeviceAllocator = 0 };
enum MemoryType : int32_t { kDefaultMemory = 0 };
enum DeviceType : int32_t { kCpuDevice = 0 };
enum OptimisationOff : int32_t { kOptimiseNothing = 0 };

// Since version 17 of the table at the latest.
class ProviderApi {
public:
    template <class... Args>
    using Call = Status* (*)(Args...);
    template <class Object>
    using Release = void (*)(Object*);
    template <class Options>
    using Update = Call<Options*, const char* const*, const char* const*, size_t>;  // options, keys, values, count

    explicit ProviderApi(const Slot* table)
        : create_session_from_array(
              entry<Call<const Env*, const void*, size_t, const SessionOptions*, Session**>>(table, 8)),
          create_memory_info(entry<Call<const char*, int32_t, int, int32_t, MemoryInfo**>>(table, 68)),
          release_memory_info(entry<Release<MemoryInfo>>(table, 94)),
          available_providers(entry<Call<char***, int*>>(table, 125)),
          release_available_providers(entry<Call<char**, int>>(table, 126)),
          run_with_binding(entry<Call<Session*, const RunOptions*, const IoBinding*>>(table, 133)),
          create_binding(entry<Call<Session*, IoBinding**>>(table, 134)),
          release_binding(entry<Release<IoBinding>>(table, 135)),
          bind_input(entry<Call<IoBinding*, const char*, const Value*>>(table, 136)),
          bind_output_to_device(entry<Call<IoBinding*, const char*, const MemoryInfo*>>(table, 138)),
          bound_outputs(entry<Call<const IoBinding*, Allocator*, Value***, size_t*>>(table, 140)),
          append_tensorrt(entry<Call<SessionOptions*, const TensorRtOptions*>>(table, 170)),
          create_tensorrt_options(entry<Call<TensorRtOptions**>>(table, 171)),
          update_tensorrt_options(entry<Update<TensorRtOptions>>(table, 172)),
          release_tensorrt_options(entry<Release<TensorRtOptions>>(table, 174)),
          tensor_memory(entry<Call<const Value*, const MemoryInfo**>>(table, 194)),
          append_cuda(entry<Call<SessionOptions*, const CudaOptions*>>(table, 204)),
          create_cuda_options(entry<Call<CudaOptions**>>(table, 205)),
          update_cuda_options(entry<Update<CudaOptions>>(table, 206)),
          release_cuda_options(entry<Release<CudaOptions>>(table, 208)),
          device_type(entry<void (*)(const MemoryInfo*, int32_t*)>(table, 225)) {}

    Call<const Env*, const void*, size_t, const SessionOptions*, Session**> create_session_from_array;
    Call<const char*, int32_t, int, int32_t, MemoryInfo**> create_memory_info;  // name, allocator, device, memory type
    Release<MemoryInfo> release_memory_info;
    Call<char***, int*> available_providers;
    Call<char**, int> release_available_providers;
    Call<Session*, const RunOptions*, const IoBinding*> run_with_binding;
    Call<Session*, IoBinding**> create_binding;
    Release<IoBinding> release_binding;
    Call<IoBinding*, const char*, const Value*> bind_input;
    Call<IoBinding*, const char*, const MemoryInfo*> bind_output_to_device;
    // Values and the array that holds them are the caller's; in the order in which they were bound.
    Call<const IoBinding*, Allocator*, Value***, size_t*> bound_outputs;
    Call<SessionOptions*, const TensorRtOptions*> append_tensorrt;
    Call<TensorRtOptions**> create_tensorrt_options;
    Update<TensorRtOptions> update_tensorrt_options;
    Release<TensorRtOptions> release_tensorrt_options;
    Call<const Value*, const MemoryInfo**> tensor_memory;
    Call<SessionOptions*, const CudaOptions*> append_cuda;
    Call<CudaOptions**> create_cuda_options;
    Update<CudaOptions> update_cuda_options;
    Release<CudaOptions> release_cuda_options;
    void (*device_type)(const MemoryInfo*, int32_t*);
};

// Since version 24 of the table. What it gives out belongs to the session.
class PlacementApi {
public:
    template <class... Args>
    using Call = Status* (*)(Args...);

    explicit PlacementApi(const Slot* table)
        : assigned_subgraphs(entry<Call<const Session*, const AssignedSubgraph* const**, size_t*>>(table, 407)),
          provider_of(entry<Call<const AssignedSubgraph*, const char**>>(table, 408)),
          nodes_of(entry<Call<const AssignedSubgraph*, const AssignedNode* const**, size_t*>>(table, 409)),
          operator_of(entry<Call<const AssignedNode*, const char**>>(table, 412)) {}

    Call<const Session*, const AssignedSubgraph* const**, size_t*> assigned_subgraphs;
    Call<const AssignedSubgraph*, const char**> provider_of;
    Call<const AssignedSubgraph*, const AssignedNode* const**, size_t*> nodes_of;
    Call<const AssignedNode*, const char**> operator_of;
};

}  // namespace edgeprune::ort
