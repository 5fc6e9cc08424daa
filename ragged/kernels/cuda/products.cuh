// Products with weights that stay where they are from the first step to the last.
//
// The hidden units are shared out to the blocks of a cluster, and within a block to groups of LANES
// lanes, GROUP units each. A lane holds the weights of all units of its group, but only every LANES-th
// quad of them: in registers, the last IN_SHARED quads in shared memory. Once it has multiplied them, the
// lanes of the group add up, and each keeps the sums of one pair of a unit and a slot. Where there
// are more lanes than pairs, several do the same: replicas.
#pragma once

#include "slots.cuh"

namespace ragged {

constexpr int PAIRS = ROWS * GROUP;
constexpr int PER_BLOCK = PADDED / CLUSTER;  // hidden units; those beyond HIDDEN have weights of 0
static_assert(PER_BLOCK / GROUP * LANES == THREADS && THREADS % 32 == 0, "whole groups and warps");
static_assert(32 % LANES == 0 && LANES % PAIRS == 0, "a group within a warp, a lane or more for each pair");

struct alignas(16) Quad {
  float x, y, z, w;
};

// Who this thread is.
struct Lane {
  int rank, lane, group;  // its block in the cluster, its number in its group, its group in the block

  INLINE Lane() : rank(cluster_rank()), lane(thread_index() % LANES), group(thread_index() / LANES) {}

  INLINE int first_unit() const { return rank * PER_BLOCK + group * GROUP; }
  INLINE int unit() const { return first_unit() + lane % GROUP; }
  INLINE int slot() const { return lane % PAIRS / GROUP; }
  INLINE int replica() const { return lane / PAIRS; }
};

// The rows of a lane's slot: the slots of all clusters share out the rows of a call.
INLINE Slot slot_of(const DeviceRows& rows, const Lane& me) {
  const int cluster = block_index() / CLUSTER, clusters = block_count() / CLUSTER;
  return Slot(rows, cluster * ROWS + me.slot(), clusters * ROWS);
}

// A lane's quads of COUNT vectors of DEPTH weights.
template <int COUNT, int DEPTH>
class Weights {
 public:
  static constexpr int QUADS = DEPTH / 4 / LANES;  // of a vector, in a lane
  static_assert(QUADS * 4 * LANES == DEPTH && IN_SHARED < QUADS, "whole quads, one or more in registers");

  // weight(n, k): the k-th number of the n-th vector.
  template <class Weight>
  INLINE Weights(int lane, Quad* shared, const Weight& weight) : lane(lane), shared(shared) {
#pragma unroll
    for (int q = 0; q < QUADS; ++q)
#pragma unroll
      for (int n = 0; n < COUNT; ++n) {
        const int k = (q * LANES + lane) * 4;
        const Quad quad = {weight(n, k), weight(n, k + 1), weight(n, k + 2), weight(n, k + 3)};
        if (q < REGISTERS)
          registers[q][n] = quad;
        else
          shared[place(q, n)] = quad;
      }
  }

  // sums[r * COUNT + n] += this lane's share of vector n times a[r].
  INLINE void multiply(const float* a, float (&sums)[ROWS * COUNT]) const {
#pragma unroll
    for (int q = 0; q < QUADS; ++q)
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const Quad factor = reinterpret_cast<const Quad*>(a + r * DEPTH)[q * LANES + lane];
#pragma unroll
        for (int n = 0; n < COUNT; ++n) {
          const Quad w = q < REGISTERS ? registers[q][n] : shared[place(q, n)];
          sums[r * COUNT + n] += w.x * factor.x + w.y * factor.y + w.z * factor.z + w.w * factor.w;
        }
      }
  }

 private:
  static constexpr int REGISTERS = QUADS - IN_SHARED;
  int lane;
  Quad* shared;
  Quad registers[REGISTERS][COUNT];

  INLINE static int place(int q, int n) {
    return ((q - REGISTERS) * COUNT + n) * THREADS + thread_index();
  }
};

// Add up the sums of a group's lanes, EACH for every pair; at the end sums[0 .. EACH) are those of the
// lane's own pair. Lanes exchange halves: each gives away the pairs that it will not keep.
template <int EACH>
INLINE void collect(int lane, float (&sums)[PAIRS * EACH]) {
#pragma unroll
  for (int half = PAIRS / 2; half; half /= 2) {
    const bool upper = lane & half;
#pragma unroll
    for (int n = 0; n < half * EACH; ++n) {
      const float low = sums[n], high = sums[half * EACH + n];
      sums[n] = (upper ? high : low) + exchange(upper ? low : high, half);
    }
  }
#pragma unroll
  for (int mask = PAIRS; mask < LANES; mask *= 2)
#pragma unroll
    for (int n = 0; n < EACH; ++n) sums[n] += exchange(sums[n], mask);
}

// The greatest of a value over the slots of a cluster.
INLINE int greatest_of_slots(int value) {
#pragma unroll
  for (int mask = GROUP; mask < PAIRS; mask *= 2) {
    const int other = exchange(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// Store to the same place in all blocks of the cluster; each replica stores to some of them.
INLINE void share(const Lane& me, float* own, float value) {
#pragma unroll
  for (int rank = me.replica(); rank < CLUSTER; rank += LANES / PAIRS) store_in(rank, own, value);
}

}  // namespace ragged
