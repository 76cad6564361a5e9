// Tiles copied by the tensor memory accelerator, whole boxes at a time, and the barriers that count
// their bytes. Addresses are of shared memory; a barrier at the same place in every block of a
// cluster hears of the boxes that reach its own block.
#ifndef SLUICE_KERNELS_CUDA_TMA_CUH_
#define SLUICE_KERNELS_CUDA_TMA_CUH_

#include <cuda.h>

#include "kernels/cuda/device.cuh"

namespace sluice::cuda {

__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Makes initialised barriers known to the cluster and to the copies; a barrier must follow.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void ArriveExpecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void ArriveAt(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the barrier in block `rank` of the cluster.
__device__ __forceinline__ void ArriveAtRank(uint32_t barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 at;\nmapa.shared::cluster.u32 at, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [at];\n}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
__device__ __forceinline__ void WaitBarrier(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "AGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra AGAIN;\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// The box whose first element is (column, row), into shared memory; its bytes count at `barrier`.
__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap* map, int column, int row,
                                        uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
// The same of a map of three dimensions: the box whose first element is (column, head, row).
__device__ __forceinline__ void CopyHeadBox(uint32_t to, const CUtensorMap* map, int column,
                                            int head, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(map), "r"(column), "r"(head), "r"(row), "r"(barrier)
      : "memory");
}
// `bytes`, a multiple of 16, from a boundary of 16.
__device__ __forceinline__ void CopyBytes(uint32_t to, const void* from, int bytes,
                                          uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// Into the blocks of the cluster whose bits `ranks` has.
__device__ __forceinline__ void CopyBoxToRanks(uint32_t to, const CUtensorMap* map, int column,
                                               int row, uint32_t barrier, int ranks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(static_cast<uint16_t>(ranks))
      : "memory");
}
// Starts fetching a descriptor.
__device__ __forceinline__ void PrefetchMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_TMA_CUH_
