// Products for decode rows: right against fp64, and a row's bits the same in every number of rows.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"

namespace sluice {
namespace {

using cuda::RowStore;

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, count * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, 0, count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { (void)cudaFree(data_); }
  std::vector<T> Host() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }
  void* data() const { return data_; }

 private:
  size_t count_;
  void* data_ = nullptr;
};

float FromBits(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

std::vector<uint16_t> RandomBits(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(count);
  for (uint16_t& v : values) {
    const float x = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    v = static_cast<uint16_t>(bits >> 16);
  }
  return values;
}

// y (rows, n) of x (rows, k) and w (n, k).
cuda::GemmRowsArgs Product(const void* x, int64_t k, const void* w, void* y, int64_t y_stride,
                           int rows, int n, RowStore store) {
  cuda::GemmRowsArgs args;
  args.x = static_cast<const __nv_bfloat16*>(x);
  args.x_stride = k;
  args.w = static_cast<const __nv_bfloat16*>(w);
  args.y = y;
  args.y_stride = y_stride;
  args.rows = rows;
  args.n = args.n_valid = n;
  args.store = store;
  return args;
}

using LaunchProduct = cudaError_t(const cuda::GemmRowsArgs&, cudaStream_t);

void CheckProduct(int n, int64_t k, LaunchProduct* launch = cuda::LaunchGemmRows) {
  constexpr int kMaxRows = 1024;
  const std::vector<uint16_t> x = RandomBits(kMaxRows * k, 1), w = RandomBits(n * k, 2);
  const DeviceArray<uint16_t> dx(x), dw(w);
  std::vector<float> first;
  for (const int rows : {1, 7, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 200, 256, 512, 1000, 1024}) {
    const DeviceArray<float> dy(static_cast<size_t>(rows) * n);
    cuda::GemmRowsArgs args =
        Product(dx.data(), k, dw.data(), dy.data(), n, rows, n, RowStore::kFloat);
    ASSERT_EQ(launch(args, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<float> y = dy.Host();
    if (rows == 1) {
      first = y;
      for (int c = 0; c < n; c += 97) {
        double sum = 0.0;
        for (int64_t i = 0; i < k; ++i)
          sum += FromBits(x[i]) * static_cast<double>(FromBits(w[c * k + i]));
        EXPECT_NEAR(y[c], sum, 1e-4 * std::sqrt(static_cast<double>(k))) << c;
      }
    }
    EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + n), first) << rows << " rows";
    // The last row as if it were alone.
    args.x += (rows - 1) * k;
    args.rows = 1;
    const DeviceArray<float> alone(n);
    args.y = alone.data();
    ASSERT_EQ(launch(args, nullptr), cudaSuccess);
    EXPECT_EQ(std::vector<float>(y.end() - n, y.end()), alone.Host()) << rows << " rows";
  }
}

TEST(CudaGemmRowsTest, Narrow) { CheckProduct(2048, 5632); }
TEST(CudaGemmRowsTest, Middle) { CheckProduct(6160, 2048); }
TEST(CudaGemmRowsTest, Wide) { CheckProduct(17000, 2048); }
TEST(CudaGemmRowsTest, Uneven) { CheckProduct(1000, 192); }

// r += x W^T, then z = RMSNorm(r; weights) V^T, the norm carried from one product to the other:
// right against fp64, and a row's bits the same in every number of rows.
void CheckNormBetween(int width, int n) {
  if (!cuda::GemmRowsTakesNorms()) GTEST_SKIP() << "these products take no norms";
  constexpr int kMaxRows = 512, kInner = 192;
  const int64_t stride = cuda::Stride(width);
  const std::vector<uint16_t> x = RandomBits(kMaxRows * kInner, 1),
                              w = RandomBits(stride * kInner, 2), v = RandomBits(n * stride, 3);
  std::vector<float> norm(stride), residual(kMaxRows * stride);
  for (int c = 0; c < width; ++c) norm[c] = 0.5f + 0.001f * c;
  for (size_t i = 0; i < residual.size(); ++i) {
    if (static_cast<int64_t>(i % stride) < width)
      residual[i] = 3.0f * std::sin(static_cast<float>(i));
  }
  const DeviceArray<uint16_t> dx(x), dw(w), dv(v);
  const DeviceArray<float> dnorm(norm);
  std::vector<float> first;
  for (const int rows : {1, 8, 9, 17, 40, 100, 200, 512}) {
    const DeviceArray<float> dr(residual), squares(kMaxRows * stride / cuda::kSquaresColumns),
        dz(static_cast<size_t>(rows) * n);
    const DeviceArray<uint16_t> between(kMaxRows * stride);
    cuda::GemmRowsArgs a =
        Product(dx.data(), kInner, dw.data(), dr.data(), stride, rows, width, RowStore::kAdd);
    a.next_norm = static_cast<const float*>(dnorm.data());
    a.next_x = static_cast<__nv_bfloat16*>(between.data());
    a.next_squares = static_cast<float*>(squares.data());
    ASSERT_EQ(cuda::LaunchGemmRows(a, nullptr), cudaSuccess);
    cuda::GemmRowsArgs b =
        Product(a.next_x, stride, dv.data(), dz.data(), n, rows, n, RowStore::kFloat);
    b.squares = a.next_squares;
    b.norm_width = width;
    b.norm_eps = 1e-5f;
    ASSERT_EQ(cuda::LaunchGemmRows(b, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<float> z = dz.Host(), r = dr.Host();
    if (rows == 1) {
      first = z;
      double squares_of_row = 0.0;
      for (int c = 0; c < width; ++c) squares_of_row += static_cast<double>(r[c]) * r[c];
      const double scale = 1.0 / std::sqrt(squares_of_row / width + 1e-5);
      double error = 0.0, size = 0.0;
      for (int c = 0; c < n; ++c) {
        double sum = 0.0;
        for (int i = 0; i < width; ++i) sum += r[i] * scale * norm[i] * FromBits(v[c * stride + i]);
        error += (z[c] - sum) * (z[c] - sum);
        size += sum * sum;
      }
      EXPECT_LT(std::sqrt(error / size), 3e-3);  // bf16 rounds x once
    }
    EXPECT_EQ(std::vector<float>(z.begin(), z.begin() + n), first) << rows << " rows";
  }
}

TEST(CudaGemmRowsTest, NormBetween) { CheckNormBetween(2048, 1000); }
TEST(CudaGemmRowsTest, NormBetweenUneven) { CheckNormBetween(1000, 6160); }

// These kernels are for GPUs other than Hopper, and run on every one.
TEST(CudaPortableGemmRowsTest, Narrow) { CheckProduct(2048, 5632, cuda::LaunchPortableGemmRows); }
TEST(CudaPortableGemmRowsTest, Wide) { CheckProduct(6160, 2048, cuda::LaunchPortableGemmRows); }
TEST(CudaPortableGemmRowsTest, Uneven) { CheckProduct(1000, 192, cuda::LaunchPortableGemmRows); }

}  // namespace
}  // namespace sluice
