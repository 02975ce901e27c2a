// Kernels: registered by the libraries at load time, launched by their host address, never run.
#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "runtime.h"

namespace fakecuda {
namespace {

std::unordered_map<const void*, std::string>& kernel_symbols() {
  static std::unordered_map<const void*, std::string> symbols;  // before the libraries register theirs
  return symbols;
}

struct Configuration {
  dim3 grid;
  dim3 block;
  size_t shared_memory;
  cudaStream_t stream;
};

thread_local std::vector<Configuration> configurations;

std::string demangle(const std::string& symbol) {
  static std::unordered_map<std::string, std::string> names;
  auto entry = names.find(symbol);
  if (entry != names.end()) return entry->second;
  int status = 0;
  char* text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : symbol;
  free(text);
  names[symbol] = name;
  return name;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, cudaStream_t stream) {
  Lock lock;
  auto entry = kernel_symbols().find(function);
  std::string name = "unknown kernel";
  if (entry != kernel_symbols().end()) name = demangle(entry->second);
  std::string size = std::to_string(grid.x) + "x" + std::to_string(grid.y) + "x" + std::to_string(grid.z);
  return enqueue(stream, "kernel", "aten " + name,
                 "grid=" + size + " block=" + std::to_string(block.x * block.y * block.z));
}

}  // namespace
}  // namespace fakecuda

using namespace fakecuda;

// --- Registration, called by code that nvcc generates ---------------------------------------------------------------------

EXPORT void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}

EXPORT void __cudaRegisterFatBinaryEnd(void**) {}

EXPORT void __cudaUnregisterFatBinary(void**) {}

EXPORT char __cudaInitModule(void**) { return 1; }

EXPORT void __cudaRegisterFunction(void**, const char* function, char*, const char* symbol, int, uint3*, uint3*, dim3*,
                                   dim3*, int*) {
  Lock lock;
  kernel_symbols()[function] = symbol;
}

EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

// --- Launches -------------------------------------------------------------------------------------------------------------

EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_memory, cudaStream_t stream) {
  configurations.push_back({grid, block, shared_memory, stream});
  return 0;
}

EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_memory, void* stream) {
  if (configurations.empty()) return fail(cudaErrorUnknown);
  Configuration configuration = configurations.back();
  configurations.pop_back();
  *grid = configuration.grid;
  *block = configuration.block;
  *shared_memory = configuration.shared_memory;
  *static_cast<cudaStream_t*>(stream) = configuration.stream;
  return cudaSuccess;
}

EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

EXPORT cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void**, size_t, cudaStream_t stream) {
  return launch(function, grid, block, stream);
}

EXPORT cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block, void**, size_t,
                                               cudaStream_t stream) {
  return launch(function, grid, block, stream);
}

EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, stream);
}

EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* configuration, const void* function, void**) {
  return launch(function, configuration->gridDim, configuration->blockDim, configuration->stream);
}

EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  Lock lock;
  cudaError_t error = enqueue(stream, "host function", "host function");
  if (error) return error;
  if (!capture_of(stream_of(stream))) function(data);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data, unsigned) {
  callback(stream, cudaSuccess, data);
  return cudaSuccess;
}

// The other libraries name themselves in front of the kernel.
EXPORT int fakecuda_launch(void* stream, const char* library, const char* name, const char* detail) {
  Lock lock;
  return enqueue(static_cast<cudaStream_t>(stream), "kernel", std::string(library) + " " + name, detail);
}

// --- Attributes of kernels ------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  memset(attributes, 0, sizeof(*attributes));
  attributes->binaryVersion = 90;
  attributes->ptxVersion = 90;
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->maxDynamicSharedSizeBytes = 232448;
  return cudaSuccess;
}

EXPORT cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

EXPORT cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t, cudaFuncAttribute, int, int) { return cudaSuccess; }

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads, size_t) {
  *blocks = threads >= 1024 ? 2 : 4;
  return cudaSuccess;
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int threads, size_t,
                                                                          unsigned) {
  *blocks = threads >= 1024 ? 2 : 4;
  return cudaSuccess;
}

// --- Libraries of kernels that are loaded at run time ---------------------------------------------------------------------

EXPORT cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void*, cudaJitOption*, void**, unsigned,
                                       cudaLibraryOption*, void**, unsigned) {
  *library = reinterpret_cast<cudaLibrary_t>(0x30);
  return cudaSuccess;
}

EXPORT cudaError_t cudaLibraryLoadFromFile(cudaLibrary_t*, const char*, cudaJitOption*, void**, unsigned,
                                           cudaLibraryOption*, void**, unsigned) {
  return fail(cudaErrorNotSupported);
}

EXPORT cudaError_t cudaLibraryUnload(cudaLibrary_t) { return cudaSuccess; }

EXPORT cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t, const char*) {
  *kernel = reinterpret_cast<cudaKernel_t>(0x20);
  return cudaSuccess;
}

EXPORT cudaError_t cudaLibraryGetKernelCount(unsigned* count, cudaLibrary_t) {
  *count = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaLibraryGetGlobal(void**, size_t*, cudaLibrary_t, const char*) {
  return fail(cudaErrorNotSupported);
}

EXPORT cudaError_t cudaLibraryGetManaged(void**, size_t*, cudaLibrary_t, const char*) {
  return fail(cudaErrorNotSupported);
}

EXPORT cudaError_t cudaLibraryGetUnifiedFunction(void**, cudaLibrary_t, const char*) {
  return fail(cudaErrorNotSupported);
}
