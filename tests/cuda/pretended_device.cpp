// A pretended "cuda:0" for a torch built without CUDA: its memory is the CPU's.
//
// Every operator on its tensors runs on the CPU over the same memory, after the checks that CUDA
// would make, and is reported to a listener as what it would cost there: a launch, a copy between
// host and device, or a wait of the host for the device. Loaded before torch is imported.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

using namespace c10;
using at::Tensor;

namespace {

const Device CUDA(DeviceType::CUDA, 0), CPU(DeviceType::CPU);

// ---------------------------------------------------------------- what is reported

using Listener = void (*)(const char* kind, const char* name);
Listener listener = nullptr;

void report(const char* kind, const std::string& name) {
  if (listener) listener(kind, name.c_str());
}

// ---------------------------------------------------------------- memory

struct Memory final : Allocator {
  explicit Memory(Device device) : device(device) {}
  DataPtr allocate(size_t bytes) override {
    DataPtr memory = GetCPUAllocator()->allocate(bytes);
    void* data = memory.get();
    return {data, memory.release_context(), GetCPUAllocator()->raw_deleter(), device};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  Device device;
};

Memory device_memory(CUDA);

struct PinnedMemory final : Allocator {
  DataPtr allocate(size_t bytes) override {
    DataPtr memory = GetCPUAllocator()->allocate(bytes);
    std::lock_guard<std::mutex> lock(mutex);
    blocks.insert(memory.get());
    return {memory.get(), memory.release_context(), &release, CPU};
  }
  static void release(void* data);
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  std::set<const void*> blocks;
  std::mutex mutex;
};

PinnedMemory& pinned() {
  static auto* memory = new PinnedMemory;
  return *memory;
}

void PinnedMemory::release(void* data) {
  {
    std::lock_guard<std::mutex> lock(pinned().mutex);
    pinned().blocks.erase(data);
  }
  GetCPUAllocator()->raw_deleter()(data);
}

bool is_pinned(const Tensor& tensor) {
  std::lock_guard<std::mutex> lock(pinned().mutex);
  return pinned().blocks.count(tensor.storage().data()) > 0;
}

// ---------------------------------------------------------------- the device itself

struct Guard final : impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  static Stream stream() { return Stream(Stream::DEFAULT, CUDA); }
  Device exchangeDevice(Device) const override { return CUDA; }
  Device getDevice() const override { return CUDA; }
  Stream getStream(Device) const noexcept override { return stream(); }
  Stream getDefaultStream(Device) const override { return stream(); }
  Stream getNewStream(Device, int) const override { return stream(); }
  Stream exchangeStream(Stream) const noexcept override { return stream(); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { report("wait for event", "synchronize"); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

// ---------------------------------------------------------------- the same memory on the CPU

Tensor on_same_memory(const Tensor& tensor, const Storage& storage, DispatchKey key) {
  auto meta = tensor.dtype();
  Tensor out = at::detail::make_tensor<TensorImpl>(Storage(storage), DispatchKeySet(key), meta);
  auto* self = out.unsafeGetTensorImpl();
  self->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return out;
}

struct Call {
  // CPU storages by those of the device, so that what shares memory still does.
  std::unordered_map<StorageImpl*, Storage> host;
  std::unordered_map<StorageImpl*, Storage> device;

  Tensor to_host(const Tensor& tensor) {
    if (!tensor.defined() || tensor.device() == CPU) return tensor;
    auto* key = tensor.storage().unsafeGetStorageImpl();
    auto found = host.find(key);
    if (found == host.end()) {
      void* data = tensor.storage().mutable_data();
      Storage made(Storage::use_byte_size_t(), tensor.storage().nbytes(), DataPtr(data, CPU));
      found = host.emplace(key, made).first;
      device.emplace(made.unsafeGetStorageImpl(), tensor.storage());
    }
    return on_same_memory(tensor, found->second, DispatchKey::CPU);
  }

  Tensor to_device(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    auto* key = tensor.storage().unsafeGetStorageImpl();
    auto found = device.find(key);
    if (found == device.end()) {
      auto* kept = new Storage(tensor.storage());
      DataPtr data(kept->mutable_data(), kept, [](void* p) { delete static_cast<Storage*>(p); }, CUDA);
      Storage made(Storage::use_byte_size_t(), kept->nbytes(), std::move(data), &device_memory, true);
      found = device.emplace(key, made).first;
    }
    return on_same_memory(tensor, found->second, DispatchKey::CUDA);
  }
};

void move_to(const Tensor& tensor, const Tensor& result) {  // what out= was given becomes
  auto* self = tensor.unsafeGetTensorImpl();
  self->set_storage_keep_dtype(result.storage());
  self->set_sizes_and_strides(result.sizes(), result.strides(), result.storage_offset());
}

// ---------------------------------------------------------------- operators

const std::set<std::string> WAITING = {
    "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave"};
const std::set<std::string> INDEXED = {"aten::index", "aten::index_put_", "aten::index_put",
                                       "aten::_index_put_impl_", "aten::_unsafe_index"};

// Registered here one by one, or by who plays cuDNN.
const std::set<std::string> PLAYED = {
    "aten::empty", "aten::empty_strided", "aten::copy_", "aten::_local_scalar_dense",
    "aten::resize_", "aten::set_", "aten::_cudnn_rnn", "aten::_cudnn_rnn_backward",
    "aten::_cudnn_rnn_flatten_weight"};

bool takes_host_tensors(const std::string& name) { return INDEXED.count(name) > 0; }

void refuse_host(const Tensor& tensor, const std::string& name) {
  if (tensor.defined() && tensor.device() == CPU && tensor.dim() > 0 && !takes_host_tensors(name)) {
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two "
                       "devices, cuda:0 and cpu! (in ", name, ")");
  }
}

IValue given(Call& call, const IValue& value, const std::string& name) {
  if (value.isTensor()) {
    refuse_host(value.toTensor(), name);
    return call.to_host(value.toTensor());
  }
  if (value.isTensorList()) {
    std::vector<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      refuse_host(tensor, name);
      list.push_back(call.to_host(tensor));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& item : value.toOptionalTensorVector()) {
      if (!item || !item->defined()) {
        list.push_back(std::nullopt);
        continue;
      }
      bool is_mask = item->scalar_type() == at::kBool || item->scalar_type() == at::kByte;
      if (is_mask) report("synchronisation", name + " by a mask");
      if (item->device() == CPU && item->dim() > 0) report("copy to device", name + " by an index");
      list.push_back(call.to_host(*item));
    }
    return list;
  }
  return value.isDevice() ? IValue(CPU) : value;
}

IValue taken(Call& call, const IValue& value) {
  if (value.isTensor()) return call.to_device(value.toTensor());
  if (!value.isTensorList()) return value;
  std::vector<Tensor> list;
  for (const Tensor& tensor : value.toTensorVector()) list.push_back(call.to_device(tensor));
  return list;
}

bool is_empty_out(const Argument& argument, const IValue& given) {  // to be made as large as needed
  return argument.is_out() && given.isTensor() && given.toTensor().numel() == 0;
}

void run_on_host(const OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  TORCH_CHECK(name != "aten::_thnn_fused_lstm_cell" && name != "aten::_thnn_fused_gru_cell",
              name, ": this is what a GPU runs without cuDNN");
  const size_t count = schema.arguments().size();
  auto originals = torch::jit::pop(*stack, count);
  bool last_is_none = !originals.empty() && originals.back().isNone();
  Call call;
  for (size_t k = 0; k < count; k++) {
    const IValue& original = originals[k];
    IValue value = is_empty_out(schema.arguments()[k], original)
                       ? IValue(at::empty({0}, original.toTensor().options().device(CPU)))
                       : given(call, original, name);
    torch::jit::push(*stack, std::move(value));
  }
  bool is_view = false;
  for (const auto& argument : schema.arguments())
    is_view |= argument.alias_info() && !argument.alias_info()->isWrite();
  if (!is_view) report("launch", name);
  bool has_size = count && schema.arguments().back().name() == "output_size" && !last_is_none;
  if (WAITING.count(name) && !has_size) report("synchronisation", name);
  op.callBoxed(stack);
  auto results = torch::jit::pop(*stack, schema.returns().size());
  for (size_t r = 0; r < results.size(); r++) {
    const auto& returned = schema.returns()[r];
    bool is_argument = returned.alias_info() && returned.alias_info()->isWrite();
    if (!is_argument) {
      torch::jit::push(*stack, taken(call, results[r]));
      continue;
    }
    for (size_t k = 0; k < count; k++) {
      const auto& argument = schema.arguments()[k];
      const auto* alias = argument.alias_info();
      if (!alias || !alias->isWrite() || alias->beforeSets() != returned.alias_info()->beforeSets())
        continue;
      if (is_empty_out(argument, originals[k]))
        move_to(originals[k].toTensor(), call.to_device(results[r].toTensor()));
      torch::jit::push(*stack, originals[k]);
      break;
    }
  }
}

Tensor empty(IntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>,
             std::optional<Device>, std::optional<bool>, std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(size, &device_memory, DispatchKeySet(DispatchKey::CUDA),
                                   dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> dtype,
                     std::optional<Layout>, std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &device_memory,
                                           DispatchKeySet(DispatchKey::CUDA),
                                           dtype_or_default(dtype));
}

Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  Call call;
  Tensor to = call.to_host(self), from = call.to_host(source);
  const Tensor& on_host = self.device() == CPU ? self : source;
  bool waits = !non_blocking || !is_pinned(on_host);
  // From memory that is not pinned, CUDA copies to a buffer of its own and returns.
  if (self.device() == source.device()) {
    report("launch", "aten::copy_");
  } else if (self.device() == CPU) {
    report("copy to host", "aten::copy_");
    if (waits) report("synchronisation", "aten::copy_ to the host");
  } else {
    report("copy to device", "aten::copy_");
    if (!non_blocking) report("synchronisation", "aten::copy_ to the device, blocking");
    if (!is_pinned(source)) report("unpinned", "aten::copy_");
  }
  to.copy_(from);
  return self;
}

Scalar local_scalar(const Tensor& self) {
  report("synchronisation", "aten::_local_scalar_dense");
  return Call().to_host(self).item();
}

const Tensor& resize_(const Tensor& self, IntArrayRef size, std::optional<MemoryFormat>) {
  move_to(self, empty(size, self.scalar_type(), {}, {}, {}, {}));
  return self;
}

Tensor& set_storage(Tensor& self, Storage source, int64_t offset, IntArrayRef size,
                    IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_sizes_and_strides(size, stride, offset);
  return self;
}

Tensor& set_whole(Tensor& self, Storage source) {
  int64_t count = source.nbytes() / self.itemsize();
  return set_storage(self, std::move(source), 0, {count}, {1});
}

Tensor host_view(const Tensor& self) {  // of the same memory, for those who play a library
  Tensor made = Call().to_host(self);
  return made;
}

}  // namespace

TORCH_LIBRARY(pretended, m) {
  m.def("host_view(Tensor self) -> Tensor", TORCH_FN(host_view));
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("copy_", TORCH_FN(copy_));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
  m.impl("resize_", TORCH_FN(resize_));
  m.impl("set_.source_Storage", TORCH_FN(set_whole));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  // One launch for what has a kernel of its own, also for a list of tensors, not one for each part.
  for (const auto& op : Dispatcher::singleton().getAllOpNames()) {
    auto handle = Dispatcher::singleton().findSchema(op);
    if (!handle || op.name.rfind("aten::", 0) != 0) continue;
    bool is_own = handle->hasKernelForDispatchKey(DispatchKey::CPU);
    bool is_special = handle->hasKernelForDispatchKey(DispatchKey::CUDA) || PLAYED.count(op.name);
    if (is_special || !(is_own || op.name.rfind("aten::_foreach_", 0) == 0)) continue;
    std::string name = op.name.substr(6) + (op.overload_name.empty() ? "" : "." + op.overload_name);
    m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  }
}

namespace at {
struct CUDAHooks : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> lock(pinned().mutex);
    return pinned().blocks.count(data) > 0;
  }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned(); }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  int getNumGPUs() const override { return 1; }
  const Generator& getDefaultGenerator(DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

extern "C" void listen(Listener heard) { listener = heard; }
