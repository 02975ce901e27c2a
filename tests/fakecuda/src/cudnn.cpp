// cuDNN: PyTorch describes a convolution through the backend API and executes a plan; the plan is read for its name here.
#include <cudnn.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "journal.h"

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
};

struct Attribute {
  cudnnBackendAttributeType_t type;
  int64_t count;
  std::vector<char> bytes;
};

struct Descriptor {
  cudnnBackendDescriptorType_t type;
  std::map<int, Attribute> attributes;
};

Handle* handle_of(cudnnHandle_t handle) { return reinterpret_cast<Handle*>(handle); }

size_t bytes_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
      return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
      return 8;
    case CUDNN_TYPE_FRACTION:
      return 16;
    default:
      return 4;
  }
}

// A descriptor that is an attribute of another one.
Descriptor* child(Descriptor* parent, int attribute) {
  if (!parent) return nullptr;
  auto entry = parent->attributes.find(attribute);
  if (entry == parent->attributes.end() || entry->second.bytes.size() < sizeof(Descriptor*)) return nullptr;
  return reinterpret_cast<Descriptor**>(entry->second.bytes.data())[0];
}

std::string name_of_type(int type) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
      return "float32";
    case CUDNN_DATA_DOUBLE:
      return "float64";
    case CUDNN_DATA_HALF:
      return "float16";
    case CUDNN_DATA_BFLOAT16:
      return "bfloat16";
    default:
      return "type" + std::to_string(type);
  }
}

// Such as "bfloat16 nhwc [1,256,64,64]".
std::string describe(Descriptor* tensor) {
  if (!tensor) return "?";
  Attribute& sizes = tensor->attributes[CUDNN_ATTR_TENSOR_DIMENSIONS];
  Attribute& strides = tensor->attributes[CUDNN_ATTR_TENSOR_STRIDES];
  std::string shape;
  for (int64_t index = 0; index < sizes.count; index++) {
    if (index) shape += ",";
    shape += std::to_string(reinterpret_cast<int64_t*>(sizes.bytes.data())[index]);
  }
  bool is_channels_last = sizes.count == 4 && reinterpret_cast<int64_t*>(strides.bytes.data())[1] == 1;
  int type = *reinterpret_cast<int*>(tensor->attributes[CUDNN_ATTR_TENSOR_DATA_TYPE].bytes.data());
  return name_of_type(type) + (is_channels_last ? " nhwc [" : " nchw [") + shape + "]";
}

struct Operation {
  std::string name;
  std::string detail;
};

Operation read_plan(Descriptor* plan) {
  Descriptor* configuration = child(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  Descriptor* engine = child(configuration, CUDNN_ATTR_ENGINECFG_ENGINE);
  Descriptor* graph = child(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
  Descriptor* operation = child(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
  if (!operation) return {"unknown", ""};
  auto tensor = [&](int attribute) { return describe(child(operation, attribute)); };
  switch (operation->type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return {"convolution", "x=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X) +
                                 " w=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W) +
                                 " y=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y)};
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return {"convolution_data_gradient", "dx=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX) +
                                               " w=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W) +
                                               " dy=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY)};
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      return {"convolution_weight_gradient", "x=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X) +
                                                 " dw=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW) +
                                                 " dy=" + tensor(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY)};
    default:
      return {"operation " + std::to_string(operation->type), ""};
  }
}

cudnnStatus_t launch(cudnnHandle_t handle, const Operation& operation) {
  int error =
      fakecuda_launch(handle_of(handle)->stream, "cudnn", operation.name.c_str(), operation.detail.c_str());
  return error ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

// FAKECUDA_CUDNN_WORKSPACE: bytes that each plan asks for.
int64_t workspace() {
  const char* bytes = getenv("FAKECUDA_CUDNN_WORKSPACE");
  return bytes ? atoll(bytes) : 0;
}

// The heuristics offer one engine: that of the graph of operations that they are asked about.
void write_engine(Descriptor* heuristics, Descriptor* configuration) {
  auto* engine = new Descriptor{CUDNN_BACKEND_ENGINE_DESCRIPTOR, {}};
  engine->attributes[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] =
      heuristics->attributes[CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH];
  char* bytes = reinterpret_cast<char*>(&engine);
  configuration->attributes[CUDNN_ATTR_ENGINECFG_ENGINE] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                                            std::vector<char>(bytes, bytes + sizeof(engine))};
}

}  // namespace

using fakecuda::Lock;

// --- Handles --------------------------------------------------------------------------------------------------------------

EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = reinterpret_cast<cudnnHandle_t>(new Handle());
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle_of(handle);
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle_of(handle)->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  *stream = handle_of(handle)->stream;
  return CUDNN_STATUS_SUCCESS;
}

// --- Backend API ----------------------------------------------------------------------------------------------------------

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                  cudnnBackendDescriptor_t* descriptor) {
  *descriptor = new Descriptor{type, {}};
  return CUDNN_STATUS_SUCCESS;
}

// Descriptors stay: plans that are cached refer to them by address.
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t) { return CUDNN_STATUS_SUCCESS; }

EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t) { return CUDNN_STATUS_SUCCESS; }

EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  Lock lock;
  Attribute attribute{type, count, {}};
  if (values && count > 0) {
    const char* bytes = static_cast<const char*>(values);
    attribute.bytes.assign(bytes, bytes + count * bytes_of(type));
  }
  static_cast<Descriptor*>(descriptor)->attributes[name] = attribute;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t handle, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t capacity, int64_t* count,
                                              void* values) {
  Lock lock;
  auto* descriptor = static_cast<Descriptor*>(handle);
  int64_t unused = 0;
  if (!count) count = &unused;
  if (descriptor->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    *count = 1;
    if (values && capacity >= 1) write_engine(descriptor, static_cast<Descriptor**>(values)[0]);
    return CUDNN_STATUS_SUCCESS;
  }
  if (name == CUDNN_ATTR_ENGINECFG_ENGINE && values) {
    *count = 1;
    if (Descriptor* engine = child(descriptor, name)) *static_cast<Descriptor**>(values)[0] = *engine;
    return CUDNN_STATUS_SUCCESS;
  }
  if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    *count = 1;
    if (values) *static_cast<int64_t*>(values) = workspace();
    return CUDNN_STATUS_SUCCESS;
  }
  auto entry = descriptor->attributes.find(name);
  if (entry == descriptor->attributes.end()) {
    *count = 0;
    if (values && type == CUDNN_TYPE_INT64 && capacity >= 1) *static_cast<int64_t*>(values) = 0;
    return CUDNN_STATUS_SUCCESS;
  }
  const Attribute& attribute = entry->second;
  *count = attribute.count;
  if (values) {
    size_t space = capacity * bytes_of(type);
    memcpy(values, attribute.bytes.data(), std::min(space, attribute.bytes.size()));
  }
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t) {
  Lock lock;
  return launch(handle, read_plan(static_cast<Descriptor*>(plan)));
}

// --- Batch normalization --------------------------------------------------------------------------------------------------

EXPORT cudnnStatus_t cudnnBatchNormalizationForwardTrainingEx(
    cudnnHandle_t handle, cudnnBatchNormMode_t, cudnnBatchNormOps_t, const void*, const void*,
    const cudnnTensorDescriptor_t, const void*, const cudnnTensorDescriptor_t, const void*,
    const cudnnTensorDescriptor_t, void*, const cudnnTensorDescriptor_t, const void*, const void*, double, void*, void*,
    double, void*, void*, cudnnActivationDescriptor_t, void*, size_t, void*, size_t) {
  return launch(handle, {"batch_norm", ""});
}

EXPORT cudnnStatus_t cudnnBatchNormalizationBackwardEx(
    cudnnHandle_t handle, cudnnBatchNormMode_t, cudnnBatchNormOps_t, const void*, const void*, const void*, const void*,
    const cudnnTensorDescriptor_t, const void*, const cudnnTensorDescriptor_t, const void*,
    const cudnnTensorDescriptor_t, const void*, const cudnnTensorDescriptor_t, void*, const cudnnTensorDescriptor_t,
    void*, const cudnnTensorDescriptor_t, const void*, const void*, void*, void*, double, const void*, const void*,
    cudnnActivationDescriptor_t, void*, size_t, void*, size_t) {
  return launch(handle, {"batch_norm_gradient", ""});
}

EXPORT cudnnStatus_t cudnnBatchNormalizationForwardInference(cudnnHandle_t handle, cudnnBatchNormMode_t, const void*,
                                                             const void*, const cudnnTensorDescriptor_t, const void*,
                                                             const cudnnTensorDescriptor_t, void*,
                                                             const cudnnTensorDescriptor_t, const void*, const void*,
                                                             const void*, const void*, double) {
  return launch(handle, {"batch_norm_inference", ""});
}

EXPORT cudnnStatus_t cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    cudnnHandle_t, cudnnBatchNormMode_t, cudnnBatchNormOps_t, const cudnnTensorDescriptor_t,
    const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnActivationDescriptor_t, size_t* bytes) {
  *bytes = 0;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    cudnnHandle_t, cudnnBatchNormMode_t, cudnnBatchNormOps_t, const cudnnTensorDescriptor_t,
    const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnActivationDescriptor_t, size_t* bytes) {
  *bytes = 0;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetBatchNormalizationTrainingExReserveSpaceSize(cudnnHandle_t, cudnnBatchNormMode_t,
                                                                          cudnnBatchNormOps_t,
                                                                          const cudnnActivationDescriptor_t,
                                                                          const cudnnTensorDescriptor_t, size_t* bytes) {
  *bytes = 0;
  return CUDNN_STATUS_SUCCESS;
}
