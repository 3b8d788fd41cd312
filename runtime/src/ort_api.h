// The part of onnxruntime's C interface that this library calls, by slot number.
// onnxruntime hands out a table of function pointers that only ever grows at its end, so a slot keeps its number and
// its signature in every later release; version 17 of the table has every slot used here. Nothing is linked: the table
// comes from OrtGetApiBase() of a library opened at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeprune::ort {

// Opaque objects of onnxruntime.
struct Status;
struct Env;
struct SessionOptions;
struct Session;
struct RunOptions;
struct Value;
struct TypeInfo;
struct TensorInfo;
struct Allocator;
struct MemoryInfo;
struct CustomOpDomain;

constexpr uint32_t kApiVersion = 17;

// Values of onnxruntime's enums that this library uses.
enum ElementType : int32_t { kFloat32 = 1, kUint8 = 2, kInt32 = 6, kInt64 = 7, kFloat16 = 10 };
enum LogSeverity : int32_t { kLogVerbose = 0, kLogInfo = 1, kLogWarning = 2, kLogError = 3, kLogFatal = 4 };
enum Optimisation : int32_t { kOptimiseAll = 99 };

using Slot = void (*)();
using LogFunction = void (*)(void* user, int32_t severity, const char* category, const char* id, const char* location,
                             const char* message);

// What OrtGetApiBase() returns.
struct ApiBase {
    const Slot* (*get_api)(uint32_t version);
    const char* (*version_string)();
};

template <class Function>
Function entry(const Slot* table, size_t slot) {
    return reinterpret_cast<Function>(table[slot]);
}

// Typed view of the table. A function that returns Status* returns null when it succeeded.
class Api {
public:
    template <class... Args>
    using Call = Status* (*)(Args...);
    template <class Object>
    using Release = void (*)(Object*);

    explicit Api(const Slot* table)
        : error_message(entry<const char* (*)(const Status*)>(table, 2)),
          create_env_with_logger(entry<Call<LogFunction, void*, int32_t, const char*, Env**>>(table, 4)),
          disable_telemetry(entry<Call<const Env*>>(table, 6)),
          create_session(entry<Call<const Env*, const char*, const SessionOptions*, Session**>>(table, 7)),
          run(entry<Call<Session*, const RunOptions*, const char* const*, const Value* const*, size_t,
                         const char* const*, size_t, Value**>>(table, 9)),
          create_session_options(entry<Call<SessionOptions**>>(table, 10)),
          enable_profiling(entry<Call<SessionOptions*, const char*>>(table, 14)),
          set_log_severity(entry<Call<SessionOptions*, int32_t>>(table, 22)),
          set_optimisation(entry<Call<SessionOptions*, int32_t>>(table, 23)),
          set_intra_op_threads(entry<Call<SessionOptions*, int32_t>>(table, 24)),
          add_custom_domain(entry<Call<SessionOptions*, CustomOpDomain*>>(table, 28)),
          input_count(entry<Call<const Session*, size_t*>>(table, 30)),
          output_count(entry<Call<const Session*, size_t*>>(table, 31)),
          input_type(entry<Call<const Session*, size_t, TypeInfo**>>(table, 33)),
          output_type(entry<Call<const Session*, size_t, TypeInfo**>>(table, 34)),
          input_name(entry<Call<const Session*, size_t, Allocator*, char**>>(table, 36)),
          output_name(entry<Call<const Session*, size_t, Allocator*, char**>>(table, 37)),
          create_run_options(entry<Call<RunOptions**>>(table, 39)),
          set_terminate(entry<Call<RunOptions*>>(table, 46)),
          create_tensor(entry<Call<Allocator*, const int64_t*, size_t, int32_t, Value**>>(table, 48)),
          create_tensor_over(
              entry<Call<const MemoryInfo*, void*, size_t, const int64_t*, size_t, int32_t, Value**>>(table, 49)),
          tensor_data(entry<Call<Value*, void**>>(table, 51)),
          as_tensor_info(entry<Call<const TypeInfo*, const TensorInfo**>>(table, 55)),
          element_type(entry<Call<const TensorInfo*, int32_t*>>(table, 60)),
          dimension_count(entry<Call<const TensorInfo*, size_t*>>(table, 61)),
          dimensions(entry<Call<const TensorInfo*, int64_t*, size_t>>(table, 62)),
          tensor_info(entry<Call<const Value*, TensorInfo**>>(table, 65)),
          allocator_free(entry<Call<Allocator*, void*>>(table, 76)),
          allocator_memory(entry<Call<const Allocator*, const MemoryInfo**>>(table, 77)),
          default_allocator(entry<Call<Allocator**>>(table, 78)),
          release_status(entry<Release<Status>>(table, 93)),
          release_session(entry<Release<Session>>(table, 95)),
          release_value(entry<Release<Value>>(table, 96)),
          release_run_options(entry<Release<RunOptions>>(table, 97)),
          release_type_info(entry<Release<TypeInfo>>(table, 98)),
          release_tensor_info(entry<Release<TensorInfo>>(table, 99)),
          release_session_options(entry<Release<SessionOptions>>(table, 100)),
          add_session_config(entry<Call<SessionOptions*, const char*, const char*>>(table, 130)) {}

    const char* (*error_message)(const Status*);
    // env: logger, its user pointer, least severity, name -> env
    Call<LogFunction, void*, int32_t, const char*, Env**> create_env_with_logger;
    Call<const Env*> disable_telemetry;
    Call<const Env*, const char*, const SessionOptions*, Session**> create_session;
    // session, options, input names, inputs, their count, output names, their count -> outputs
    Call<Session*, const RunOptions*, const char* const*, const Value* const*, size_t, const char* const*, size_t,
         Value**>
        run;
    Call<SessionOptions**> create_session_options;
    Call<SessionOptions*, const char*> enable_profiling;  // options, prefix of the file
    Call<SessionOptions*, int32_t> set_log_severity;
    Call<SessionOptions*, int32_t> set_optimisation;
    Call<SessionOptions*, int32_t> set_intra_op_threads;
    Call<SessionOptions*, CustomOpDomain*> add_custom_domain;
    Call<const Session*, size_t*> input_count;
    Call<const Session*, size_t*> output_count;
    Call<const Session*, size_t, TypeInfo**> input_type;
    Call<const Session*, size_t, TypeInfo**> output_type;
    Call<const Session*, size_t, Allocator*, char**> input_name;
    Call<const Session*, size_t, Allocator*, char**> output_name;
    Call<RunOptions**> create_run_options;
    Call<RunOptions*> set_terminate;
    // allocator, shape, rank, element type -> value
    Call<Allocator*, const int64_t*, size_t, int32_t, Value**> create_tensor;
    // memory's kind, memory, its bytes, shape, rank, element type -> value that does not own the memory
    Call<const MemoryInfo*, void*, size_t, const int64_t*, size_t, int32_t, Value**> create_tensor_over;
    Call<Value*, void**> tensor_data;
    Call<const TypeInfo*, const TensorInfo**> as_tensor_info;
    Call<const TensorInfo*, int32_t*> element_type;
    Call<const TensorInfo*, size_t*> dimension_count;
    Call<const TensorInfo*, int64_t*, size_t> dimensions;
    Call<const Value*, TensorInfo**> tensor_info;
    Call<Allocator*, void*> allocator_free;
    Call<const Allocator*, const MemoryInfo**> allocator_memory;
    Call<Allocator**> default_allocator;
    Release<Status> release_status;
    Release<Session> release_session;
    Release<Value> release_value;
    Release<RunOptions> release_run_options;
    Release<TypeInfo> release_type_info;
    Release<TensorInfo> release_tensor_info;
    Release<SessionOptions> release_session_options;
    Call<SessionOptions*, const char*, const char*> add_session_config;  // options, key, value
};

}  // namespace edgeprune::ort
