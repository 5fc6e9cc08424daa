// A GPU played by threads of the host: every thread of a block is one, and barriers are barriers. It
// proves what the kernels compute, and by a sanitizer that they do not race; nothing of their speed. Lanes
// that exchange values meet here, which on a GPU orders no memory: a race within a warp may hide.
#pragma once

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#define KERNEL [[maybe_unused]] static
#define ARGUMENT const
#define INLINE inline

namespace ragged {
namespace played {

// Lanes hand values over in two rounds of memory: who writes the next has seen all read the last but one.
struct Warp {
  std::barrier<> barrier{32};
  unsigned lanes[2][32];
};

struct Cluster {
  std::barrier<> barrier{CLUSTER * THREADS};
  Warp warps[CLUSTER * THREADS / 32];
  std::size_t floats;
  std::unique_ptr<float[]> memory;  // (CLUSTER, floats): every block's shared memory

  explicit Cluster(std::size_t count)
      : floats((count + 15) / 16 * 16), memory(std::make_unique<float[]>(CLUSTER * floats)) {
    std::fill_n(memory.get(), CLUSTER * floats, std::numeric_limits<float>::quiet_NaN());
  }
};

struct Thread {
  Cluster* cluster;
  int rank, index, block, blocks, exchanges;
};
inline thread_local Thread self;

// Run a kernel; clusters never meet, so they run one after the other.
template <class Kernel>
void launch(const Kernel& kernel, int clusters, std::size_t floats) {
  for (int c = 0; c < clusters; ++c) {
    Cluster cluster(floats);
    std::vector<std::thread> threads;
    for (int t = 0; t < CLUSTER * THREADS; ++t)
      threads.emplace_back([&, t] {
        const int rank = t / THREADS;
        self = {&cluster, rank, t % THREADS, c * CLUSTER + rank, clusters * CLUSTER, 0};
        kernel();
      });
    for (auto& thread : threads) thread.join();
  }
}

}  // namespace played

inline int thread_index() { return played::self.index; }
inline int block_index() { return played::self.block; }
inline int block_count() { return played::self.blocks; }
inline int cluster_rank() { return played::self.rank; }

inline float* shared_memory() {
  const auto& self = played::self;
  return &self.cluster->memory[self.rank * self.cluster->floats];
}

inline void store_in(int rank, float* own, float value) {
  const auto& cluster = *played::self.cluster;
  cluster.memory[rank * cluster.floats + (own - shared_memory())] = value;
}

inline void synchronize() { played::self.cluster->barrier.arrive_and_wait(); }

template <class T>
T exchange(T value, int mask) {
  auto& self = played::self;
  auto& warp = self.cluster->warps[(self.rank * THREADS + self.index) / 32];
  auto& lanes = warp.lanes[self.exchanges++ % 2];
  std::memcpy(&lanes[self.index % 32], &value, sizeof(T));
  warp.barrier.arrive_and_wait();
  std::memcpy(&value, &lanes[self.index % 32 ^ mask], sizeof(T));
  return value;
}

inline float float_of(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}
inline unsigned bits_of(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float half_to_float(unsigned short bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof(bits));
  return float(value);
}
inline unsigned short float_to_half(float value) {
  const _Float16 half = _Float16(value);
  unsigned short bits;
  std::memcpy(&bits, &half, sizeof(bits));
  return bits;
}

}  // namespace ragged
