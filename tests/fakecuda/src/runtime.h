// State of the runtime that its parts share: devices, streams, events, captures and graphs.
#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "journal.h"

namespace fakecuda {

// A node of a graph. Those that must run before it are its dependencies.
struct Node {
  std::string name;
  std::vector<Node*> dependencies;
};

struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;
};

struct Stream {
  int id;
  int device;
  bool is_blocking;  // whether it waits for the legacy default stream
  unsigned long long capture = 0;
};

struct Capture {
  unsigned long long id;
  cudaStreamCaptureMode mode;
  Stream* origin;
  std::thread::id thread;
  std::unique_ptr<Graph> graph;
  // What the next node of each stream depends on. A stream is in the capture if it has an entry.
  std::map<Stream*, std::vector<Node*>> frontiers;
  bool is_invalid = false;
};

struct Event {
  int device;
  bool is_recorded = false;
  unsigned long long capture = 0;    // in which it was recorded last
  std::vector<Node*> dependencies;  // what was on the stream then, in that capture
};

constexpr size_t kAllMemory = 80'000'000'000;

// Errors are also kept for cudaGetLastError, per thread.
cudaError_t fail(cudaError_t error);

Stream* stream_of(cudaStream_t handle);
Capture* capture_of(Stream* stream);
Capture* active_capture(unsigned long long id);
void invalidate(Capture* capture, const std::string& reason);

// Refuses what may have effects that a graph cannot repeat, while a thread captures: cudaMalloc, waits, queries.
// Returns whether it was refused; the capture is invalid then.
bool is_refused_during_capture(const char* call);

// Adds work to a stream: a node of a graph if the stream is captured.
cudaError_t enqueue(cudaStream_t handle, const char* kind, const std::string& name, const std::string& detail = "");

// A wait of the host for the device.
void write_wait(Stream* stream, const std::string& name);

void use_device(int device);

}  // namespace fakecuda
