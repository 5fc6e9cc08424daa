// What the kernels ask of a device: of a GPU here, of host threads in `threads.hpp`.
#pragma once

#ifdef __CUDACC_RTC__

#if CLUSTER > 1
#define KERNEL extern "C" __global__ __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
#else  // older GPUs have no clusters
#define KERNEL extern "C" __global__ __launch_bounds__(THREADS, 1)
#endif
#define ARGUMENT const __grid_constant__  // read where the launch has put it, never copied
#define INLINE __forceinline__

namespace ragged {

INLINE int thread_index() { return threadIdx.x; }
INLINE int block_index() { return blockIdx.x; }
INLINE int block_count() { return gridDim.x; }

// The shared memory of a block, as much as the launch asks for.
INLINE float* shared_memory() {
  extern __shared__ __align__(16) float memory[];
  return memory;
}

// The value of the lane of this warp whose number differs in the bits of `mask`.
INLINE float exchange(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
INLINE int exchange(int value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

#if CLUSTER > 1
INLINE int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Store to the same place in the shared memory of another block of the cluster.
INLINE void store_in(int rank, float* own, float value) {
  const unsigned here = unsigned(__cvta_generic_to_shared(own));
  unsigned there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
}

// Wait for all threads of the cluster; what they have stored can be read then. Lanes of a warp may come
// one by one, since their rows end at different steps: so it is not the aligned barrier.
INLINE void synchronize() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
#else
INLINE int cluster_rank() { return 0; }
INLINE void store_in(int, float* own, float value) { *own = value; }
INLINE void synchronize() { __syncthreads(); }
#endif

INLINE float float_of(unsigned bits) { return __uint_as_float(bits); }
INLINE unsigned bits_of(float value) { return __float_as_uint(value); }

INLINE float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
INLINE unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace ragged

#else
#include "threads.hpp"
#endif
