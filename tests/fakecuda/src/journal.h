// The journal of the stand-in: one line for each thing that a program asks of CUDA, in the order of the calls.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace fakecuda {

// One lock for all state. Recursive, because calls of the runtime are built on each other.
std::recursive_mutex& mutex();

struct Lock {
  Lock() : guard(mutex()) {}
  std::lock_guard<std::recursive_mutex> guard;
};

bool is_journal_open();

// Adds "KIND<tab>DEVICE<tab>STREAM<tab>CAPTURE<tab>NAME<tab>DETAIL". The capture is 0 outside of one, the stream -1 where none
// takes part. `_helpers` of the tests read these lines as records.
void write(const char* kind, int device, int stream, unsigned long long capture, const std::string& name,
           const std::string& detail = "");

// Tells a profiler, if there is one, of a kernel that was launched.
void trace_kernel(const std::string& name, int device, int stream);

}  // namespace fakecuda

// Interface between the libraries: cuDNN, cuBLAS, NCCL and the driver put their work on a stream of the runtime.
// Returns 0, or the error of the runtime.
EXPORT int fakecuda_launch(void* stream, const char* library, const char* name, const char* detail);
EXPORT int fakecuda_is_capturing(void* stream);
EXPORT int fakecuda_device();
EXPORT int fakecuda_device_count();
EXPORT void fakecuda_set_device(int device);
EXPORT int fakecuda_is_device_in_use(int device);
// Address and bytes of the allocation on a device that holds `pointer`; 0 if there is none.
EXPORT int fakecuda_find_allocation(const void* pointer, void** start, size_t* bytes, int* device);
