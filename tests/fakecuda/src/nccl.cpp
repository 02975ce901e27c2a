// NCCL: communicators that exist, and collectives that do nothing. They can be captured like any other work.
#include <nccl.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "journal.h"

struct ncclComm {
  int ranks;
  int rank;
  int device;
};

namespace {

ncclResult_t create(ncclComm_t* communicator, int ranks, int rank) {
  *communicator = new ncclComm{ranks, rank, fakecuda_device()};
  return ncclSuccess;
}

ncclResult_t launch(const char* name, size_t count, ncclDataType_t type, cudaStream_t stream) {
  char detail[64];
  snprintf(detail, sizeof(detail), "count=%zu type=%d", count, static_cast<int>(type));
  return fakecuda_launch(stream, "nccl", name, detail) ? ncclUnhandledCudaError : ncclSuccess;
}

}  // namespace

// --- Communicators --------------------------------------------------------------------------------------------------------

EXPORT ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  memset(id, 7, sizeof(*id));
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int ranks, ncclUniqueId, int rank) {
  return create(communicator, ranks, rank);
}

EXPORT ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId, int rank, ncclConfig_t*) {
  return create(communicator, ranks, rank);
}

EXPORT ncclResult_t ncclCommInitRankScalable(ncclComm_t* communicator, int ranks, int rank, int, ncclUniqueId*,
                                             ncclConfig_t*) {
  return create(communicator, ranks, rank);
}

EXPORT ncclResult_t ncclCommSplit(ncclComm_t parent, int, int, ncclComm_t* communicator, ncclConfig_t*) {
  return create(communicator, parent->ranks, parent->rank);
}

EXPORT ncclResult_t ncclCommCount(const ncclComm_t communicator, int* count) {
  *count = communicator->ranks;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommCuDevice(const ncclComm_t communicator, int* device) {
  *device = communicator->device;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommUserRank(const ncclComm_t communicator, int* rank) {
  *rank = communicator->rank;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  *error = ncclSuccess;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }

// Communicators stay: PyTorch's watchdog may still ask for errors.
EXPORT ncclResult_t ncclCommDestroy(ncclComm_t) { return ncclSuccess; }

EXPORT ncclResult_t ncclCommAbort(ncclComm_t) { return ncclSuccess; }

EXPORT ncclResult_t ncclCommRegister(const ncclComm_t, void*, size_t, void** handle) {
  *handle = nullptr;
  return ncclSuccess;
}

EXPORT ncclResult_t ncclCommDeregister(const ncclComm_t, void*) { return ncclSuccess; }

EXPORT ncclResult_t ncclGroupStart() { return ncclSuccess; }

EXPORT ncclResult_t ncclGroupEnd() { return ncclSuccess; }

EXPORT const char* ncclGetErrorString(ncclResult_t) { return "error of the stand-in for NCCL"; }

EXPORT const char* ncclGetLastError(ncclComm_t) { return "error of the stand-in for NCCL"; }

// --- Collectives ----------------------------------------------------------------------------------------------------------

EXPORT ncclResult_t ncclAllReduce(const void*, void*, size_t count, ncclDataType_t type, ncclRedOp_t, ncclComm_t,
                                  cudaStream_t stream) {
  return launch("all_reduce", count, type, stream);
}

EXPORT ncclResult_t ncclReduce(const void*, void*, size_t count, ncclDataType_t type, ncclRedOp_t, int, ncclComm_t,
                               cudaStream_t stream) {
  return launch("reduce", count, type, stream);
}

EXPORT ncclResult_t ncclReduceScatter(const void*, void*, size_t count, ncclDataType_t type, ncclRedOp_t, ncclComm_t,
                                      cudaStream_t stream) {
  return launch("reduce_scatter", count, type, stream);
}

EXPORT ncclResult_t ncclBroadcast(const void*, void*, size_t count, ncclDataType_t type, int, ncclComm_t,
                                  cudaStream_t stream) {
  return launch("broadcast", count, type, stream);
}

EXPORT ncclResult_t ncclBcast(void*, size_t count, ncclDataType_t type, int, ncclComm_t, cudaStream_t stream) {
  return launch("broadcast", count, type, stream);
}

EXPORT ncclResult_t ncclAllGather(const void*, void*, size_t count, ncclDataType_t type, ncclComm_t,
                                  cudaStream_t stream) {
  return launch("all_gather", count, type, stream);
}

EXPORT ncclResult_t ncclSend(const void*, size_t count, ncclDataType_t type, int, ncclComm_t, cudaStream_t stream) {
  return launch("send", count, type, stream);
}

EXPORT ncclResult_t ncclRecv(void*, size_t count, ncclDataType_t type, int, ncclComm_t, cudaStream_t stream) {
  return launch("receive", count, type, stream);
}
