// Streams, events, captures and graphs, with CUDA's rules of what a capture permits.
//
// CUDA programming guide, "Creating a Graph Using Stream Capture", and the errors 900 to 908 of cudaError_t. Where the
// documentation is silent, the stand-in refuses: a program that passes here does not depend on an unwritten rule.
#include "runtime.h"

#include <cstdio>
#include <cstdlib>

namespace fakecuda {
namespace {

std::map<unsigned long long, std::unique_ptr<Capture>> captures;
unsigned long long next_capture = 1;
int next_stream = 1;

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

Stream* default_stream(int device) {
  static std::map<int, std::unique_ptr<Stream>> streams;
  std::unique_ptr<Stream>& stream = streams[device];
  if (!stream) stream.reset(new Stream{0, device, false});
  return stream.get();
}

bool is_default(const Stream* stream) { return stream == default_stream(stream->device); }

// Work on the legacy default stream waits for all blocking streams of its device, so none of them may be captured.
Capture* capture_that_default_stream_would_join(const Stream* stream) {
  if (!is_default(stream)) return nullptr;
  for (auto& [id, capture] : captures) {
    for (auto& [member, frontier] : capture->frontiers) {
      if (member->is_blocking && member->device == stream->device) return capture.get();
    }
  }
  return nullptr;
}

// Whether any captured work does not lead to the stream that ends the capture. A forked stream without work of its own
// leaves nothing behind, and needs no join.
bool has_unjoined_work(const Capture& capture) {
  std::set<const Node*> reached;
  std::vector<const Node*> next;
  auto reach = [&](const std::vector<Node*>& nodes) {
    for (Node* node : nodes) {
      if (reached.insert(node).second) next.push_back(node);
    }
  };
  reach(capture.frontiers.at(capture.origin));
  while (!next.empty()) {
    const Node* node = next.back();
    next.pop_back();
    reach(node->dependencies);
  }
  return reached.size() != capture.graph->nodes.size();
}

void add_dependencies(std::vector<Node*>& target, const std::vector<Node*>& nodes) {
  std::set<Node*> all(target.begin(), target.end());
  all.insert(nodes.begin(), nodes.end());
  target.assign(all.begin(), all.end());
}

// Work on one stream that must not happen while it is captured, or while its thread captures.
cudaError_t refuse_wait(Stream* stream, const char* call) {
  if (Capture* capture = capture_of(stream)) {
    invalidate(capture, std::string(call) + " of a captured stream");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  if (Capture* capture = capture_that_default_stream_would_join(stream)) {
    invalidate(capture, std::string(call) + " of the default stream, which waits for the captured one");
    return fail(cudaErrorStreamCaptureImplicit);
  }
  if (is_refused_during_capture(call)) return fail(cudaErrorStreamCaptureUnsupported);
  return cudaSuccess;
}

cudaError_t refuse_wait(Event* event, const char* call) {
  if (event->capture) {
    if (Capture* capture = active_capture(event->capture)) {
      invalidate(capture, std::string(call) + " of an event of the capture");
    }
    return fail(cudaErrorCapturedEvent);
  }
  if (is_refused_during_capture(call)) return fail(cudaErrorStreamCaptureUnsupported);
  return cudaSuccess;
}

cudaStreamCaptureStatus status_of(const Capture* capture) {
  if (!capture) return cudaStreamCaptureStatusNone;
  return capture->is_invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
}

}  // namespace

Stream* stream_of(cudaStream_t handle) {
  bool is_default = handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread;
  return is_default ? default_stream(fakecuda_device()) : reinterpret_cast<Stream*>(handle);
}

Capture* active_capture(unsigned long long id) {
  auto entry = captures.find(id);
  return entry == captures.end() ? nullptr : entry->second.get();
}

Capture* capture_of(Stream* stream) {
  Capture* capture = active_capture(stream->capture);
  if (!capture) stream->capture = 0;
  return capture;
}

void invalidate(Capture* capture, const std::string& reason) {
  if (capture->is_invalid) return;
  capture->is_invalid = true;
  write("invalid capture", capture->origin->device, capture->origin->id, capture->id, reason);
  if (getenv("FAKECUDA_VERBOSE")) fprintf(stderr, "[fakecuda] invalid capture: %s\n", reason.c_str());
}

bool is_refused_during_capture(const char* call) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return false;
  for (auto& [id, capture] : captures) {
    bool is_own = capture->thread == std::this_thread::get_id();
    bool is_global =
        thread_mode == cudaStreamCaptureModeGlobal && capture->mode == cudaStreamCaptureModeGlobal;
    if (is_own ? capture->mode != cudaStreamCaptureModeRelaxed : is_global) {
      invalidate(capture.get(), std::string(call) + (is_own ? " in the thread that captures" : " in another thread"));
      return true;
    }
  }
  return false;
}

cudaError_t enqueue(cudaStream_t handle, const char* kind, const std::string& name, const std::string& detail) {
  Stream* stream = stream_of(handle);
  // Kernels must be launched on the current device; copies need not.
  bool is_kernel = std::string(kind) == "kernel" || std::string(kind) == "graph";
  if (is_kernel && stream->device != fakecuda_device()) return fail(cudaErrorInvalidResourceHandle);
  if (Capture* other = capture_that_default_stream_would_join(stream)) {
    invalidate(other, name + " on the default stream, which waits for the captured one");
    return fail(cudaErrorStreamCaptureImplicit);
  }
  use_device(stream->device);
  Capture* capture = capture_of(stream);
  if (capture && capture->is_invalid) return fail(cudaErrorStreamCaptureInvalidated);
  write(kind, stream->device, stream->id, capture ? capture->id : 0, name, detail);
  if (capture) {
    std::vector<Node*>& frontier = capture->frontiers.at(stream);
    capture->graph->nodes.push_back(std::make_unique<Node>(Node{name, frontier}));
    frontier = {capture->graph->nodes.back().get()};
  } else if (std::string(kind) == "kernel") {
    trace_kernel(name, stream->device, stream->id);
  }
  return cudaSuccess;
}

void write_wait(Stream* stream, const std::string& name) { write("wait", stream->device, stream->id, 0, name); }

}  // namespace fakecuda

using namespace fakecuda;

EXPORT int fakecuda_is_capturing(void* stream) {
  Lock lock;
  return capture_of(stream_of(static_cast<cudaStream_t>(stream))) != nullptr;
}

// --- Streams --------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int) {
  Lock lock;
  int device = fakecuda_device();
  use_device(device);
  bool is_blocking = !(flags & cudaStreamNonBlocking);
  *handle = reinterpret_cast<cudaStream_t>(new Stream{next_stream++, device, is_blocking});
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return cudaStreamCreateWithPriority(handle, flags, 0);
}

EXPORT cudaError_t cudaStreamCreate(cudaStream_t* handle) { return cudaStreamCreateWithPriority(handle, 0, 0); }

// The stream stays: other threads may still hold its handle.
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Lock lock;
  return refuse_wait(stream_of(handle), "cudaStreamQuery");
}

EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Lock lock;
  Stream* stream = stream_of(handle);
  write_wait(stream, "cudaStreamSynchronize");
  return refuse_wait(stream, "cudaStreamSynchronize");
}

EXPORT cudaError_t cudaDeviceSynchronize() {
  Lock lock;
  int device = fakecuda_device();
  write_wait(default_stream(device), "cudaDeviceSynchronize");
  for (auto& [id, capture] : captures) {
    if (capture->origin->device == device) {
      invalidate(capture.get(), "cudaDeviceSynchronize");
      return fail(cudaErrorStreamCaptureUnsupported);
    }
  }
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t event_handle, unsigned) {
  Lock lock;
  Stream* stream = stream_of(stream_handle);
  Event* event = reinterpret_cast<Event*>(event_handle);
  Capture* capture = capture_of(stream);
  Capture* source = active_capture(event->capture);
  if (capture && capture->is_invalid) return fail(cudaErrorStreamCaptureInvalidated);
  if (!event->is_recorded) return cudaSuccess;
  if (event->capture && !source) return fail(cudaErrorCapturedEvent);
  if (source && source->is_invalid) return fail(cudaErrorStreamCaptureInvalidated);
  if (capture && !source) {
    invalidate(capture, "wait for an event that was recorded outside of the capture");
    return fail(cudaErrorStreamCaptureIsolation);
  }
  if (capture && capture != source) {
    invalidate(capture, "wait for an event of another capture");
    invalidate(source, "wait of another capture for its event");
    return fail(cudaErrorStreamCaptureMerge);
  }
  if (source && is_default(stream)) {
    invalidate(source, "the default stream waits for its event");
    return fail(cudaErrorStreamCaptureImplicit);
  }
  if (source) {  // from now on the stream is captured too
    stream->capture = source->id;
    add_dependencies(source->frontiers[stream], event->dependencies);
  }
  write("event wait", stream->device, stream->id, source ? source->id : 0, "cudaStreamWaitEvent");
  return cudaSuccess;
}

// --- Events ---------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
  *handle = reinterpret_cast<cudaEvent_t>(new Event{fakecuda_device(), false, 0, {}});
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreate(cudaEvent_t* handle) { return cudaEventCreateWithFlags(handle, 0); }

EXPORT cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  Lock lock;
  delete reinterpret_cast<Event*>(handle);
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event_handle, cudaStream_t stream_handle, unsigned) {
  Lock lock;
  Stream* stream = stream_of(stream_handle);
  Event* event = reinterpret_cast<Event*>(event_handle);
  if (event->device != stream->device) return fail(cudaErrorInvalidResourceHandle);
  Capture* capture = capture_of(stream);
  if (capture && capture->is_invalid) return fail(cudaErrorStreamCaptureInvalidated);
  event->is_recorded = true;
  event->capture = capture ? capture->id : 0;
  event->dependencies = capture ? capture->frontiers.at(stream) : std::vector<Node*>();
  write("event record", stream->device, stream->id, event->capture, "cudaEventRecord");
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}

EXPORT cudaError_t cudaEventQuery(cudaEvent_t handle) {
  Lock lock;
  return refuse_wait(reinterpret_cast<Event*>(handle), "cudaEventQuery");
}

EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  Lock lock;
  Event* event = reinterpret_cast<Event*>(handle);
  write("wait", event->device, -1, 0, "cudaEventSynchronize");
  return refuse_wait(event, "cudaEventSynchronize");
}

// Always a millisecond: no time passes on a device that does nothing.
EXPORT cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t first, cudaEvent_t second) {
  int first_device = reinterpret_cast<Event*>(first)->device;
  int second_device = reinterpret_cast<Event*>(second)->device;
  if (first_device != second_device) return fail(cudaErrorInvalidResourceHandle);
  *milliseconds = 1.0f;
  return cudaSuccess;
}

// --- Capture --------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(thread_mode, *mode);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  Lock lock;
  Stream* stream = stream_of(handle);
  if (is_default(stream)) return fail(cudaErrorStreamCaptureUnsupported);
  if (capture_of(stream)) return fail(cudaErrorIllegalState);
  auto capture = std::make_unique<Capture>();
  capture->id = next_capture++;
  capture->mode = mode;
  capture->origin = stream;
  capture->thread = std::this_thread::get_id();
  capture->graph = std::make_unique<Graph>();
  capture->frontiers[stream] = {};
  stream->capture = capture->id;
  write("begin capture", stream->device, stream->id, capture->id, "cudaStreamBeginCapture");
  captures[capture->id] = std::move(capture);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  Lock lock;
  Stream* stream = stream_of(handle);
  Capture* capture = capture_of(stream);
  *graph = nullptr;
  if (!capture) return fail(cudaErrorIllegalState);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    invalidate(capture, "another thread ends it");
    return fail(cudaErrorStreamCaptureWrongThread);
  }
  if (stream != capture->origin) {
    invalidate(capture, "it ends on another stream");
    return fail(cudaErrorStreamCaptureUnmatched);
  }
  cudaError_t error = cudaSuccess;
  if (capture->is_invalid) {
    error = cudaErrorStreamCaptureInvalidated;
  } else if (has_unjoined_work(*capture)) {
    error = cudaErrorStreamCaptureUnjoined;
  }
  write("end capture", stream->device, stream->id, capture->id, error ? cudaGetErrorName(error) : "",
        std::to_string(capture->graph->nodes.size()));
  for (auto& [member, frontier] : capture->frontiers) member->capture = 0;
  if (!error) *graph = reinterpret_cast<cudaGraph_t>(capture->graph.release());
  captures.erase(capture->id);
  return error ? fail(error) : cudaSuccess;
}

EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  Lock lock;
  *status = status_of(capture_of(stream_of(handle)));
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                            cudaGraph_t* graph, const cudaGraphNode_t** dependencies,
                                            const cudaGraphEdgeData** edges, size_t* count) {
  Lock lock;
  Stream* stream = stream_of(handle);
  Capture* capture = capture_of(stream);
  const std::vector<Node*>* frontier = capture ? &capture->frontiers.at(stream) : nullptr;
  *status = status_of(capture);
  if (id) *id = capture ? capture->id : 0;
  if (graph) *graph = capture ? reinterpret_cast<cudaGraph_t>(capture->graph.get()) : nullptr;
  if (dependencies) {
    *dependencies = frontier ? reinterpret_cast<const cudaGraphNode_t*>(frontier->data()) : nullptr;
  }
  if (edges) *edges = nullptr;
  if (count) *count = frontier ? frontier->size() : 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t, cudaGraph_t, const cudaGraphNode_t*,
                                                 const cudaGraphEdgeData*, size_t, cudaStreamCaptureMode) {
  return fail(cudaErrorNotSupported);
}

EXPORT cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t, cudaGraphNode_t*, const cudaGraphEdgeData*, size_t,
                                                       unsigned) {
  return fail(cudaErrorNotSupported);
}

// --- Graphs ---------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  Lock lock;
  auto& all = reinterpret_cast<Graph*>(handle)->nodes;
  if (nodes) {
    for (size_t index = 0; index < *count && index < all.size(); index++) {
      nodes[index] = reinterpret_cast<cudaGraphNode_t>(all[index].get());
    }
  }
  *count = all.size();
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t handle, cudaGraphNode_t* nodes, cudaGraphEdgeData*,
                                                size_t* count) {
  Lock lock;
  auto& all = reinterpret_cast<Node*>(handle)->dependencies;
  if (nodes) {
    for (size_t index = 0; index < *count && index < all.size(); index++) {
      nodes[index] = reinterpret_cast<cudaGraphNode_t>(all[index]);
    }
  }
  *count = all.size();
  return cudaSuccess;
}

// An executable graph is the names of its nodes.
using Executable = std::vector<std::string>;

EXPORT cudaError_t cudaGraphInstantiate(cudaGraphExec_t* handle, cudaGraph_t graph, unsigned long long) {
  Lock lock;
  auto* executable = new Executable();
  for (auto& node : reinterpret_cast<Graph*>(graph)->nodes) executable->push_back(node->name);
  *handle = reinterpret_cast<cudaGraphExec_t>(executable);
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                                 unsigned long long flags) {
  return cudaGraphInstantiate(executable, graph, flags);
}

EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  Lock lock;
  auto* executable = reinterpret_cast<Executable*>(handle);
  cudaError_t error = enqueue(stream_handle, "graph", "cudaGraphLaunch", std::to_string(executable->size()));
  if (error) return error;
  Stream* stream = stream_of(stream_handle);
  for (const std::string& name : *executable) trace_kernel(name, stream->device, stream->id);
  return cudaSuccess;
}

// Events of a capture that ended point to nodes, so graphs stay.
EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }

EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Executable*>(executable);
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) { return cudaSuccess; }

EXPORT cudaError_t cudaGraphAddNode(cudaGraphNode_t*, cudaGraph_t, const cudaGraphNode_t*, const cudaGraphEdgeData*,
                                    size_t, cudaGraphNodeParams*) {
  return fail(cudaErrorNotSupported);
}

EXPORT cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle*, cudaGraph_t, unsigned, unsigned) {
  return fail(cudaErrorNotSupported);
}

EXPORT cudaError_t cudaGraphRetainUserObject(cudaGraph_t, cudaUserObject_t, unsigned, unsigned) { return cudaSuccess; }

EXPORT cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void*, cudaHostFn_t, unsigned, unsigned) {
  *object = reinterpret_cast<cudaUserObject_t>(0x40);
  return cudaSuccess;
}

EXPORT cudaError_t cudaUserObjectRelease(cudaUserObject_t, unsigned) { return cudaSuccess; }
