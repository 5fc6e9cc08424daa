// Both passes of a CUDA kernel as functions of the host, whose threads play the GPU.
#include "recurrent.cu"

extern "C" void launch_Forward(const ForwardCall* call, int clusters, long long bytes) {
  played::launch([&] { Forward<CELL<float>>(*call).run(); }, clusters, bytes / sizeof(float));
}

extern "C" void launch_Backward(const BackwardCall* call, int clusters, long long bytes) {
  played::launch([&] { Backward<CELL<float>>(*call).run(); }, clusters, bytes / sizeof(float));
}
