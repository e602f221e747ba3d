// Running moments of observations and the normalizer made of them. Twin of src/op/obs_moments.rs.
//
// `obs_tile` has a block of 256 lanes for a tile of rows and up to 256 columns: a lane keeps to one column and takes
// every so-manieth row, so that neighbours in memory are neighbours in the block. Sums and squares are taken about the
// column's first value in the tile, f64, one pass over the observations: 4 T N O bytes read, 4 operations a word, bound
// by memory. Then the lanes of a column are added up in halves. `obs_join` has a warp per column, whose lanes join the
// tiles one after another, then in a tree, then with the running moments. Where one block sees everything, `obs_tile`
// does both and is the only launch. Tiles are a function of rows and columns.

#include "lib/core.cuh"
#include "lib/sums.cuh"

struct ObsMomentsShape {
    // rows and columns
    u32 rows;
    u32 o;
    // columns of a block, rows of a tile, number of tiles
    u32 columns;
    u32 tile;
    u32 tiles;
};

struct ObsMomentsArgs {
    Read<float> obs;            // [T, N, O]
    Update<float> obs_moments;  // [1 + 2 * O]
    Write<float> normalizer;    // [2, O]
    Update<float> scratch;
};

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / WARP;

// Scratch: the count so far, then mean and squares of every tile and column.
struct ColumnMoments {
    double mean;
    double m2;
};
__device__ __forceinline__ ColumnMoments* tiles_in(float* scratch) {
    return reinterpret_cast<ColumnMoments*>(scratch) + 1;
}

// Joins the rollout's moments of a column to the running ones, whose count was `count`; the new count. One lane.
__device__ __forceinline__ float take_in(const ObsMomentsShape& d, const ObsMomentsArgs& a, u32 s, u32 column,
                                         float count, Moments3 now) {
    float* means = a.obs_moments.of(s) + 1;
    float* squares = means + d.o;
    float* normalizer = a.normalizer.of(s);
    Moments3 joined = merge({count, means[column], squares[column]}, now);
    means[column] = float(joined.mean);
    squares[column] = float(joined.m2);
    normalizer[column] = float(joined.mean);
    normalizer[d.o + column] = float(1.0 / sqrt(joined.m2 / joined.count + Normalizer::EPSILON));
    return float(joined.count);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    obs_tile(__grid_constant__ const ObsMomentsShape d, __grid_constant__ const Sessions sessions,
             __grid_constant__ const ObsMomentsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    __shared__ double sums[THREADS], squares[THREADS];
    const float* obs = a.obs.of(s);
    u32 first = blockIdx.z * d.columns, columns = d.o - first < d.columns ? d.o - first : d.columns;
    u32 begin = blockIdx.x * d.tile, rows = d.rows - begin < d.tile ? d.rows - begin : d.tile;
    u32 ways = THREADS / columns, way = threadIdx.x / columns, column = first + threadIdx.x % columns;

    // a lane's rows
    double sum = 0.0, square = 0.0, pivot = double(obs[begin * d.o + column]);
    if (way < ways) {
#pragma unroll 8
        for (u32 row = way; row < rows; row += ways) {
            double off = double(obs[(begin + row) * d.o + column]) - pivot;
            sum += off;
            square += off * off;
        }
    }
    sums[threadIdx.x] = sum;
    squares[threadIdx.x] = square;
    __syncthreads();
    // the upper half of the ways onto the lower one
    for (u32 left = ways; left > 1;) {
        u32 half = (left + 1) / 2;
        if (way + half < left) {
            sums[threadIdx.x] += sums[threadIdx.x + half * columns];
            squares[threadIdx.x] += squares[threadIdx.x + half * columns];
        }
        left = half;
        __syncthreads();
    }

    float count = a.obs_moments.of(s)[0];
    // the count is written below
    __syncthreads();
    if (way == 0) {
        Moments3 found = moments_about(pivot, double(rows), sums[threadIdx.x], squares[threadIdx.x]);
        if (gridDim.x * gridDim.z == 1) {
            float joined = take_in(d, a, s, column, count, found);
            if (column == 0) a.obs_moments.of(s)[0] = joined;
        } else {
            tiles_in(a.scratch.of(s))[blockIdx.x * d.o + column] = {found.mean, found.m2};
            // for the blocks of the next launch, of which one writes the new count
            if (blockIdx.x == 0 && column == 0) a.scratch.of(s)[0] = count;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    obs_join(__grid_constant__ const ObsMomentsShape d, __grid_constant__ const Sessions sessions,
             __grid_constant__ const ObsMomentsArgs a) {
    u32 s;
    if (!sessions.of(blockIdx.y, s)) return;
    const ColumnMoments* tiles = tiles_in(a.scratch.of(s));
    u32 lane = threadIdx.x % WARP, column = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (column >= d.o) return;
    Moments3 all = {0.0, 0.0, 0.0};
    for (u32 tile = lane; tile < d.tiles; tile += WARP) {
        u32 left = d.rows - tile * d.tile;
        const ColumnMoments& found = tiles[tile * d.o + column];
        all = merge(all, {double(left < d.tile ? left : d.tile), found.mean, found.m2});
    }
    all = warp_merge(all);
    if (lane == 0) {
        float joined = take_in(d, a, s, column, a.scratch.of(s)[0], all);
        if (column == 0) a.obs_moments.of(s)[0] = joined;
    }
}
