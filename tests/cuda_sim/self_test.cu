// Kernels for tests of the simulator itself: right ones whose result is known, and ones with a fault it must find.
//
// All take (n, x, out): a number, and pointers into memory of the host.

// Sum of x in the order of a tree; `BARRIER` stands where one is needed.
#define TREE_SUM(BARRIER)                                                  \
    DYN_SHARED(float, shared);                                             \
    shared[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];        \
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {            \
        BARRIER;                                                           \
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half]; \
    }                                                                      \
    if (threadIdx.x == 0) out[blockIdx.x] = shared[0];

extern "C" __global__ void __launch_bounds__(256) tree_sum(unsigned, const float* x, float* out) {
    TREE_SUM(__syncthreads())
}

extern "C" __global__ void __launch_bounds__(256) missing_barrier(unsigned, const float* x, float* out) { TREE_SUM() }

// Sum over all warps, through a static array with a barrier on either side.
template <unsigned WARPS>
__device__ __forceinline__ float over_warps(float mine) {
    __shared__ float sums[WARPS];
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = mine;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned warp = 0; warp < WARPS; warp++) sum += sums[warp];
    __syncthreads();
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) warp_sums(unsigned n, const float* x, float* out) {
    float sum = 0.0f;
    for (unsigned round = 0; round < n; round++) {
        float mine = x[blockIdx.x * blockDim.x + threadIdx.x] + sum;
        for (int lanes = 16; lanes > 0; lanes /= 2) mine += __shfl_xor_sync(0xFFFFFFFFu, mine, lanes);
        sum = over_warps<8>(mine);
    }
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// The second barrier of `over_warps` is missing: a fast warp overwrites what a slow one has not read.
extern "C" __global__ void __launch_bounds__(256) overtaken(unsigned n, const float* x, float* out) {
    __shared__ float sums[8];
    float sum = 0.0f;
    for (unsigned round = 0; round < n; round++) {
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x[threadIdx.x] + sum + float(round);
        __syncthreads();
        sum = 0.0f;
        for (unsigned warp = 0; warp < blockDim.x / 32; warp++) sum += sums[warp];
    }
    if (threadIdx.x == 33) out[blockIdx.x] = sum;
}

// Lanes of a warp that read what others of it write, without a `__syncwarp`.
extern "C" __global__ void __launch_bounds__(32) lanes_in_step(unsigned, const float* x, float* out) {
    __shared__ float turned[32];
    turned[threadIdx.x] = x[threadIdx.x];
    out[threadIdx.x] = turned[31 - threadIdx.x];
}

// Nothing has been written to what this sums up.
extern "C" __global__ void __launch_bounds__(32) unwritten_shared(unsigned, const float*, float* out) {
    DYN_SHARED(float, shared);
    out[threadIdx.x] = shared[threadIdx.x] + 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) divergent_barrier(unsigned, const float*, float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) left_before_the_barrier(unsigned n, const float*, float* out) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(32) lanes_are_missing(unsigned, const float* x, float* out) {
    float mine = x[threadIdx.x];
    if (threadIdx.x < 16) mine += __shfl_down_sync(0xFFFFFFFFu, mine, 8);
    out[threadIdx.x] = mine;
}

extern "C" __global__ void __launch_bounds__(32) past_dynamic_shared(unsigned n, const float*, float* out) {
    DYN_SHARED(float, shared);
    shared[threadIdx.x + n] = 1.0f;
    out[threadIdx.x] = shared[threadIdx.x + n];
}

extern "C" __global__ void __launch_bounds__(32) past_the_end(unsigned n, const float* x, float* out) {
    out[threadIdx.x] = x[threadIdx.x + n];
}

extern "C" __global__ void __launch_bounds__(32) misaligned(unsigned n, const float* x, float* out) {
    out[threadIdx.x] = reinterpret_cast<const float4*>(x + n)->w;
}

// Where a number has no place in the integers, CPU and GPU differ.
extern "C" __global__ void __launch_bounds__(32) out_of_range(unsigned, const float* x, float* out) {
    out[threadIdx.x] = float(unsigned(x[threadIdx.x] * -1e10f));
}

// `local[3]` has never been set.
extern "C" __global__ void __launch_bounds__(32) uninitialized_local(unsigned n, const float* x, float* out) {
    float local[4];
    for (unsigned i = 0; i < n; i++) local[i] = x[i];
    out[threadIdx.x] = local[3];
}

// Every block adds its sum to a list; the one that comes last sums the list up in its order.
extern "C" __global__ void __launch_bounds__(32) last_block(unsigned, const float* x, float* out) {
    __shared__ bool last;
    unsigned* arrived = reinterpret_cast<unsigned*>(out + 1 + gridDim.x);
    if (threadIdx.x == 0) {
        out[1 + blockIdx.x] = x[blockIdx.x];
        __threadfence();
        last = atomicAdd(arrived, 1) + 1 == gridDim.x;
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float sum = 0.0f;
    for (unsigned i = 0; i < gridDim.x; i++) sum = sum * 0.5f + out[1 + i];
    out[0] = sum;
}

// One word per lane and question; see the test for the answers.
extern "C" __global__ void __launch_bounds__(64) questions(unsigned, const float*, float* out) {
    unsigned lane = threadIdx.x % 32;
    int answers[16];
    int n = 0;
    answers[n++] = __shfl_sync(~0u, int(lane), 5);
    answers[n++] = __shfl_sync(~0u, int(lane), 9, 8);
    answers[n++] = __shfl_up_sync(~0u, int(lane), 3);
    answers[n++] = __shfl_up_sync(~0u, int(lane), 3, 16);
    answers[n++] = __shfl_down_sync(~0u, int(lane), 30);
    answers[n++] = __shfl_down_sync(~0u, int(lane), 3, 4);
    answers[n++] = __shfl_xor_sync(~0u, int(lane), 9);
    answers[n++] = __shfl_xor_sync(~0u, int(lane), 4, 4);
    answers[n++] = int(__ballot_sync(~0u, lane % 3 == 0));
    answers[n++] = __any_sync(~0u, lane == 31) + 2 * __any_sync(~0u, lane == 32);
    answers[n++] = __all_sync(~0u, lane < 32) + 2 * __all_sync(~0u, lane < 31);
    answers[n++] = __syncthreads_count(threadIdx.x % 5 == 0);
    answers[n++] = __syncthreads_or(threadIdx.x == 40) + 2 * __syncthreads_or(0);
    answers[n++] = __syncthreads_and(1) + 2 * __syncthreads_and(threadIdx.x != 40);
    // halves of a warp on their own
    unsigned half = lane < 16 ? 0x0000FFFFu : 0xFFFF0000u;
    answers[n++] = int(__ballot_sync(half, lane % 2 == 0));
    answers[n++] = __popc(__brev(lane)) + 8 * __ffs(int(lane)) + 256 * __clz(int(lane));
    for (int i = 0; i < n; i++) out[i * 64 + threadIdx.x] = float(answers[i]);
}

// out[16, 8] += x[16, 16] x[16, 8] of small whole numbers, which bfloat16 holds exactly; A by ldmatrix, B by its transpose.
extern "C" __global__ void __launch_bounds__(32) matrix_product(unsigned, const float* x, float* out) {
    __shared__ __align__(16) unsigned short a[16][16], b[16][8];
    auto bf16 = [](float number) { return (unsigned short)(__float_as_uint(number) >> 16); };
    for (unsigned i = threadIdx.x; i < 256; i += 32) a[i / 16][i % 16] = bf16(x[i]);
    for (unsigned i = threadIdx.x; i < 128; i += 32) b[i / 8][i % 8] = bf16(x[256 + i]);
    __syncwarp();
    unsigned lane = threadIdx.x, group = lane / 4, pair = lane % 4 * 2, words_a[4], words_b[2];
    ldmatrix<4>(words_a, &a[lane % 16][lane / 16 * 8]);
    ldmatrix<2, true>(words_b, &b[lane % 16][0]);
    float sum[4];
    for (unsigned i = 0; i < 4; i++) sum[i] = out[(group + i / 2 * 8) * 8 + pair + i % 2];
    mma_m16n8k16_bf16(sum, words_a, words_b);
    for (unsigned i = 0; i < 4; i++) out[(group + i / 2 * 8) * 8 + pair + i % 2] = sum[i];
}
