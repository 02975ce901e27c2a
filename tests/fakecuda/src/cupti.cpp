// CUPTI: PyTorch's profiler is told of every kernel, each of a microsecond. The library itself would look for its own interface
// of the driver, and recurse without end when it is missing.
#include <cupti.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "journal.h"

namespace {

using Kernel = CUpti_ActivityKernel9;
using Link = CUpti_ActivityExternalCorrelation;

constexpr uint64_t kDuration = 1000;  // nanoseconds

bool records_kernels = false;
uint32_t next_correlation = 1;
std::vector<Kernel> kernels;
std::vector<Link> links;

CUpti_BuffersCallbackRequestFunc request_buffer = nullptr;
CUpti_BuffersCallbackCompleteFunc complete_buffer = nullptr;
CUpti_TimestampCallbackFunc clock_of_profiler = nullptr;

// The profiler flushes only if it was asked for a buffer.
struct Buffer {
  uint8_t* start = nullptr;
  size_t size = 0;
};

Buffer current_buffer;

void prepare_buffer() {
  size_t most_records = 0;
  if (!current_buffer.start && request_buffer) request_buffer(&current_buffer.start, &current_buffer.size, &most_records);
}

// The operators in which this thread is now, innermost last, by the kind of their numbers.
thread_local std::map<int, std::vector<uint64_t>> operators;

uint64_t now() {
  if (clock_of_profiler) return clock_of_profiler();
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * 1'000'000'000ull + time.tv_nsec;
}

// The profiler reads names later.
const char* permanent(const std::string& name) {
  static std::set<std::string> names;
  return names.insert(name).first->c_str();
}

size_t bytes_of(const CUpti_Activity* record) {
  return record->kind == CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION ? sizeof(Link) : sizeof(Kernel);
}

// Writes what fits into one buffer, and removes it from the records.
template <typename Record>
size_t write_records(std::vector<Record>& records, uint8_t* buffer, size_t space) {
  size_t count = std::min(records.size(), space / sizeof(Record));
  memcpy(buffer, records.data(), count * sizeof(Record));
  records.erase(records.begin(), records.begin() + count);
  return count * sizeof(Record);
}

}  // namespace

namespace fakecuda {

void trace_kernel(const std::string& name, int device, int stream) {
  if (!records_kernels) return;
  Kernel kernel;
  memset(&kernel, 0, sizeof(kernel));
  kernel.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
  kernel.start = now();
  kernel.end = kernel.start + kDuration;
  kernel.deviceId = device;
  kernel.contextId = device + 1;
  kernel.streamId = stream;
  kernel.correlationId = next_correlation++;
  kernel.name = permanent(name);
  kernels.push_back(kernel);
  prepare_buffer();
  for (auto& [kind, numbers] : operators) {
    if (numbers.empty()) continue;
    Link link;
    memset(&link, 0, sizeof(link));
    link.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
    link.externalKind = static_cast<CUpti_ExternalCorrelationKind>(kind);
    link.externalId = numbers.back();
    link.correlationId = kernel.correlationId;
    links.push_back(link);
  }
}

}  // namespace fakecuda

using fakecuda::Lock;

// --- What is recorded -----------------------------------------------------------------------------------------------------

EXPORT CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  Lock lock;
  if (kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) records_kernels = true;
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityDisable(CUpti_ActivityKind kind) {
  Lock lock;
  if (kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) records_kernels = false;
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t number) {
  operators[kind].push_back(number);
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t* last) {
  std::vector<uint64_t>& numbers = operators[kind];
  if (numbers.empty()) return CUPTI_ERROR_QUEUE_EMPTY;
  if (last) *last = numbers.back();
  numbers.pop_back();
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityRegisterTimestampCallback(CUpti_TimestampCallbackFunc clock) {
  clock_of_profiler = clock;
  return CUPTI_SUCCESS;
}

// --- Buffers of records ---------------------------------------------------------------------------------------------------

EXPORT CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc request,
                                                  CUpti_BuffersCallbackCompleteFunc complete) {
  request_buffer = request;
  complete_buffer = complete;
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityFlushAll(uint32_t) {
  Lock lock;
  while (request_buffer && !(links.empty() && kernels.empty())) {
    prepare_buffer();
    Buffer buffer = current_buffer;
    size_t bytes = write_records(links, buffer.start, buffer.size);  // first: kernels refer to them
    bytes += write_records(kernels, buffer.start + bytes, buffer.size - bytes);
    current_buffer = Buffer();
    complete_buffer(nullptr, 0, buffer.start, buffer.size, bytes);
  }
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityGetNextRecord(uint8_t* buffer, size_t bytes, CUpti_Activity** record) {
  uint8_t* next = *record ? reinterpret_cast<uint8_t*>(*record) + bytes_of(*record) : buffer;
  if (next >= buffer + bytes) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = reinterpret_cast<CUpti_Activity*>(next);
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext, uint32_t, size_t* count) {
  *count = 0;
  return CUPTI_SUCCESS;
}

// --- Versions and errors --------------------------------------------------------------------------------------------------

EXPORT CUptiResult cuptiGetVersion(uint32_t* version) {
  *version = CUPTI_API_VERSION;
  return CUPTI_SUCCESS;
}

EXPORT CUptiResult cuptiGetResultString(CUptiResult, const char** text) {
  *text = "error of the stand-in for CUPTI";
  return CUPTI_SUCCESS;
}
