// Feature maps of whole heads: y = W x for 64 rows of a head at a time, then a warp a head for what
// needs all of it. Every row's sums are in one order, whatever its company.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear_maps.h"
#include "kernels/cuda/tile_product.cuh"
#include "kernels/mixer_math.h"

namespace sluice::cuda {
namespace {

constexpr int kWarps = 4;  // of a block of HeadsKernel

// products = x W^T of 64 rows and 64 columns of one matrix's.
__global__ void __launch_bounds__(kTileThreads)
    ProductsKernel(const __grid_constant__ MapArgs a, int matrices) {
  __shared__ __align__(1024) TileStages stages;
  WaitForPredecessor();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTileRows;
  const int rows = static_cast<int>(min(static_cast<int64_t>(kTileRows), a.meta->num_rows - first));
  const int head = blockIdx.y, tiles = (a.width + 63) / 64;
  const int matrix = blockIdx.z / tiles, column = blockIdx.z % tiles * 64;
  if (rows <= 0) return;
  float acc[8][4] = {};
  const TileRows x = {a.in + first * a.in_stride + a.column + head * a.width, a.in_stride, rows};
  const TileRows w = {(matrix == 0 ? a.matrix[0] : a.matrix[1]) + column * a.matrix_stride,
                      a.matrix_stride, a.width - column};
  MultiplyTiles<false>(x, w, a.width, &stages, acc);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + half * 8 + g;
    if (row >= rows) continue;
    float* to = a.products + (((first + row) * a.heads + head) * matrices + matrix) * a.width;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int c = column + j * 8 + 2 * t;
      if (c < a.width)
        *reinterpret_cast<float2*>(to + c) = make_float2(acc[j][2 * half], acc[j][2 * half + 1]);
    }
  }
}

__global__ void __launch_bounds__(kTileThreads)
    GateProductKernel(const __grid_constant__ GateProduct a) {
  __shared__ __align__(1024) TileStages stages;
  WaitForPredecessor();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTileRows;
  const int rows = static_cast<int>(min(static_cast<int64_t>(kTileRows), a.meta->num_rows - first));
  const int column = blockIdx.y * 64;
  if (rows <= 0) return;
  float acc[8][4] = {};
  const TileRows x = {a.in + first * a.in_stride + a.column, a.in_stride, rows};
  const TileRows w = {a.matrix + column * a.matrix_stride, a.matrix_stride, a.out_width - column};
  MultiplyTiles<false>(x, w, a.width, &stages, acc);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + half * 8 + g;
    if (row >= rows) continue;
    float* to = a.out + (first + row) * a.out_width;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int c = column + j * 8 + 2 * t;
      if (c >= a.out_width) continue;
      const float2 bias = a.bias == nullptr ? make_float2(0.0f, 0.0f)
                                            : *reinterpret_cast<const float2*>(a.bias + c);
      *reinterpret_cast<float2*>(to + c) =
          make_float2(acc[j][2 * half] + bias.x, acc[j][2 * half + 1] + bias.y);
    }
  }
}

// y = W x + bias of one row, an element a thread: widths that the products above do not divide. x
// and every row of W in bf16; `to` (count).
__device__ __forceinline__ void PlainProduct(const bf16* x, const bf16* matrix, int64_t stride,
                                             const float* bias, int width, int count, float* to) {
  for (int c = threadIdx.x; c < count; c += blockDim.x) {
    float sum = bias == nullptr ? 0.0f : bias[c];
    for (int i = 0; i < width; ++i)
      sum = fmaf(__bfloat162float(x[i]), __bfloat162float(matrix[c * stride + i]), sum);
    to[c] = sum;
  }
}
__global__ void __launch_bounds__(kTileThreads)
    PlainProductsKernel(const __grid_constant__ MapArgs a, int matrices) {
  WaitForPredecessor();
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y, matrix = blockIdx.z;
  if (row >= a.meta->num_rows) return;
  PlainProduct(a.in + row * a.in_stride + a.column + head * a.width,
               matrix == 0 ? a.matrix[0] : a.matrix[1], a.matrix_stride, nullptr, a.width, a.width,
               a.products + ((row * a.heads + head) * matrices + matrix) * a.width);
}
__global__ void __launch_bounds__(kTileThreads)
    PlainGateProductKernel(const __grid_constant__ GateProduct a) {
  WaitForPredecessor();
  const int64_t row = blockIdx.x;
  if (row >= a.meta->num_rows) return;
  PlainProduct(a.in + row * a.in_stride + a.column, a.matrix, a.matrix_stride, a.bias, a.width,
               a.out_width, a.out + row * a.out_width);
}

// A head's input: the projection's columns, or W x + b.
__device__ __forceinline__ float Input(const MapArgs& a, const bf16* columns, const float* products,
                                       int matrix, int c) {
  if (products == nullptr) return __bfloat162float(columns[c]);
  const float* bias = matrix == 0 ? a.bias[0] : a.bias[1];
  return products[matrix * a.width + c] + (bias == nullptr ? 0.0f : bias[c]);
}

// Element i of the mapped head; `x` is its input, `largest` hedgehog's.
__device__ __forceinline__ float Element(const MapArgs& a, const float* x, const float* y,
                                         float largest, int i) {
  switch (a.map) {
    case FeatureMap::kT2r:
    case FeatureMap::kRelu:
      return mixer_math::Relu(x[i]);
    case FeatureMap::kProduct:
      return x[i] * y[i];
    case FeatureMap::kHedgehog:
      return mixer_math::Exp(2 * ((i < a.width ? x[i] : -x[i - a.width]) - largest));
    case FeatureMap::kDpfp:
      return mixer_math::Dpfp(x, a.width, i);
    case FeatureMap::kEluPlusOne:
      return mixer_math::ShiftedElu(x[i], 1.0f);
    default:
      return x[i];
  }
}

__device__ __forceinline__ void Store(const MapArgs& a, int64_t row, int c, float x) {
  if (row < a.meta->num_decode) {
    a.decode_front[row * a.front_stride + c] = x;
  } else {
    a.prompt_front[row * a.front_stride + c] = __float2bfloat16_rn(x);
  }
}

__global__ void __launch_bounds__(kWarps * 32)
    HeadsKernel(const __grid_constant__ MapArgs a, int matrices) {
  __shared__ float inputs[kWarps][2][kMostMapWidth];
  WaitForPredecessor();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  const int64_t row = item / a.heads;
  const int head = static_cast<int>(item % a.heads);
  if (row >= a.meta->num_rows) return;
  const bf16* columns = a.in + row * a.in_stride + a.column + head * a.width;
  const float* products =
      matrices == 0 ? nullptr : a.products + (row * a.heads + head) * matrices * a.width;
  float *x = inputs[warp][0], *y = inputs[warp][1];
  float largest = 0.0f;
  for (int c = lane; c < a.width; c += 32) {
    x[c] = Input(a, columns, products, 0, c);
    if (matrices == 2) y[c] = Input(a, columns, products, 1, c);
    largest = fmaxf(largest, fabsf(x[c]));
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, d));
  __syncwarp();
  // Hedgehog is a softmax; the norm divides by the sum of what the map gives.
  float scale = a.scale;
  const bool softmax = a.map == FeatureMap::kHedgehog;
  if (softmax || a.norm == QkNorm::kSum) {
    float sum = 0.0f;
    for (int i = lane; i < a.to_width; i += 32) sum += Element(a, x, y, largest, i);
    sum = WarpSum(sum);
    if (softmax) scale /= sum;
    if (a.norm == QkNorm::kSum) scale /= (softmax ? 1.0f : sum) + 1e-4f;
  }
  for (int i = lane; i < a.to_width; i += 32)
    Store(a, row, a.to + head * a.to_width + i, Element(a, x, y, largest, i) * scale);
}

}  // namespace

cudaError_t LaunchLinearMaps(const MapArgs& args, int grid_rows, cudaStream_t stream) {
  if (grid_rows == 0) return cudaSuccess;
  const int matrices = MapMatrices(args.map);
  if (matrices > 0 && args.plain) {
    const cudaError_t error = Launch(PlainProductsKernel, dim3(grid_rows, args.heads, matrices),
                                     kTileThreads, 0, stream, 1, args, matrices);
    if (error != cudaSuccess) return error;
  } else if (matrices > 0) {
    const dim3 grid((grid_rows + kTileRows - 1) / kTileRows, args.heads,
                    matrices * ((args.width + 63) / 64));
    const cudaError_t error =
        Launch(ProductsKernel, grid, kTileThreads, 0, stream, 1, args, matrices);
    if (error != cudaSuccess) return error;
  }
  const int64_t items = static_cast<int64_t>(grid_rows) * args.heads;
  return Launch(HeadsKernel, static_cast<unsigned>((items + kWarps - 1) / kWarps), kWarps * 32, 0,
                stream, 1, args, matrices);
}

cudaError_t LaunchGateProduct(const GateProduct& args, int grid_rows, cudaStream_t stream) {
  if (args.plain)
    return Launch(PlainGateProductKernel, grid_rows, kTileThreads, 0, stream, 1, args);
  const dim3 grid((grid_rows + kTileRows - 1) / kTileRows, (args.out_width + 63) / 64);
  return Launch(GateProductKernel, grid, kTileThreads, 0, stream, 1, args);
}

}  // namespace sluice::cuda
