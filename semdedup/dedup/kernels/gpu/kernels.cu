// The kernels of the comparison. They need no header, so that NVRTC compiles them wherever CuPy is installed.
//
// `fixed_order_sums` computes scores in float64, in the one order of additions that every backend has.
//
// `propose` multiplies rows in half precision on the tensor cores, a tile of 128 queries and 128 candidates a block:
//
//                  candidates of one cluster                  a block has 8 warps, a warp 32 x 64 products
//                +------+------+------+
//       queries  | tile |      :      :      ranked: a query     | warp 0 | warp 4 |
//       of the   +------+------+      :      is compared with    | warp 1 | warp 5 |
//       same     | tile | tile |      :      those before it     | warp 2 | warp 6 |
//                +------+------+------+                          | warp 3 | warp 7 |
//                | tile | tile | tile |
//                +------+------+------+
//
// No product is written. A block raises the highest product of each of its queries, which all blocks share, and notes
// the candidates that may still be the nearest: the highest product only grows, so that none is missed.

#ifndef SEMDEDUP_HOST  // the tests build this file for the processor, with primitives of their own

typedef long long int64;
typedef unsigned long long uint64;

#define EVERY_LANE 0xffffffffu

__device__ __forceinline__ unsigned char *shared_memory() {
    extern __shared__ __align__(128) unsigned char memory[];
    return memory;
}

__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double subtract(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double multiply(double a, double b) { return __dmul_rn(a, b); }

// Copies 16 bytes to shared memory while the program goes on.
__device__ __forceinline__ void copy_16(void *shared, const void *global) {
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

__device__ __forceinline__ void end_of_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all stages but the last `pending` are there.
template <int pending>
__device__ __forceinline__ void wait_for_stage() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four matrices of 8 x 8 halves; lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(unsigned matrices[4], const void *row) {
    unsigned address = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(address)
                 : "memory");
}

// Adds the product of 16 x 16 and 16 x 8 halves to 16 x 8 floats.
__device__ __forceinline__ void multiply_add(float sums[4], const unsigned left[4], const unsigned right[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

#endif

// --- scores -----------------------------------------------------------------------------------------------------

#define MOST_LEAVES_OPEN 40

// Eight lanes for each pair of rows, so that 32 bytes of a row are read at a time.
//
// leaves: of each part of at most 128 columns, how many these are, and how many sums are added up once it is summed.
// squared: sums of squared differences instead of products.
// equal: whether the rows are equal in each bit of their values (0 and -0 are equal).
extern "C" __global__ void fixed_order_sums(const LEFT *left, const RIGHT *right, const int64 *left_rows,
                                            const int64 *right_rows, int64 n_pairs, int dim, const int *leaves,
                                            int n_leaves, int squared, double *sums, unsigned char *equal) {
    const int lane = threadIdx.x % 8;
    const int64 pair = (int64)blockIdx.x * (blockDim.x / 8) + threadIdx.x / 8;
    const int64 here = pair < n_pairs ? pair : n_pairs - 1;  // all lanes of a warp go on together
    const LEFT *x = left + (left_rows ? left_rows[here] : here) * dim;
    const RIGHT *y = right + (right_rows ? right_rows[here] : here) * dim;
    int same = 1;
    double open[MOST_LEAVES_OPEN];
    int n_open = 0;
    auto term = [&](int column) {
        const double a = (double)x[column], b = (double)y[column];
        same &= a == b;
        const double difference = subtract(a, b);
        return squared ? multiply(difference, difference) : multiply(a, b);
    };
    for (int leaf = 0, column = 0; leaf < n_leaves; ++leaf) {
        const int width = leaves[2 * leaf], whole = width - width % 8;
        double sum;
        int next = whole;
        if (whole) {
            sum = term(column + lane);
            for (int i = 8; i < whole; i += 8) sum = add(sum, term(column + i + lane));
            for (int apart = 1; apart < 8; apart *= 2) sum = add(sum, __shfl_xor_sync(EVERY_LANE, sum, apart));
        } else {
            sum = term(column);
            next = 1;
        }
        for (int i = next; i < width; ++i) sum = add(sum, term(column + i));
        for (int i = 0; i < leaves[2 * leaf + 1]; ++i) sum = add(open[--n_open], sum);
        open[n_open++] = sum;
        column += width;
    }
    for (int apart = 1; apart < 8; apart *= 2) same &= __shfl_xor_sync(EVERY_LANE, same, apart);
    if (pair < n_pairs && lane == 0) {
        sums[pair] = open[0];
        equal[pair] = (unsigned char)same;
    }
}

// --- proposals --------------------------------------------------------------------------------------------------

#define SIDE 128                       // queries and candidates of a tile
#define STEP 32                        // columns of a stage
#define STAGES 3                       // one is multiplied while two are on their way
#define STAGE_BYTES (2 * SIDE * STEP * 2)
#define WARP_QUERIES 32
#define WARP_CANDIDATES 64

// Where a row's chunk of 8 halves lies in a stage: mixed, so that eight rows are read without a bank conflict.
__device__ __forceinline__ int place(int row, int chunk) { return row * STEP * 2 + ((chunk ^ ((row >> 1) & 3)) * 16); }

// The product from which on a candidate may be the nearest, or a match; scores end at 0 and 1.
__device__ __forceinline__ float least_of(float highest, float error, float match) {
    return fminf(fmaxf(fminf(highest - error, 1.0f), 0.0f), match) - error;
}

__device__ __forceinline__ void load(unsigned char *stage, const unsigned short *rows, int64 depth, int first, int end,
                                     int column) {
    for (int i = threadIdx.x; i < SIDE * STEP / 8; i += blockDim.x) {
        const int row = i / (STEP / 8), chunk = i % (STEP / 8);
        const int from = min(first + row, end - 1);  // beyond the end the last row once more: it is ruled out below
        copy_16(stage + place(row, chunk), rows + from * depth + column + chunk * 8);
    }
}

// queries, candidates: rows of halves, `depth` columns, a multiple of STEP; products are scaled by `scale`.
// tiles: first query and end, first candidate and end, of each block.
// eligible: of query i the candidates [0, eligible[i]) rank better.
// error: bound of the error of a product, a number on the device. match: the least score of a match.
// highest: of each query the bits of the highest product so far, 0 at the beginning: bits of floats from 0 on are in
//     their order.
// n_found: how many candidates were noted, those beyond `capacity` too, which are counted only.
extern "C" __global__ void __launch_bounds__(256, 2)
    propose(const unsigned short *queries, const unsigned short *candidates, int64 depth, float scale, const int *tiles,
            const int *eligible, const float *error, float match, unsigned *highest, uint64 capacity, uint64 *n_found,
            int *found_queries, int *found_candidates, float *found_products) {
    const int *tile = tiles + 4 * (int64)blockIdx.x;
    const int first_query = tile[0], end_query = tile[1], first_candidate = tile[2], end_candidate = tile[3];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_query = warp % 4 * WARP_QUERIES, warp_candidate = warp / 4 * WARP_CANDIDATES;
    const int n_steps = (int)(depth / STEP);
    unsigned char *memory = shared_memory();
    float sums[2][8][4] = {};

    auto load_step = [&](int step) {
        if (step < n_steps) {
            unsigned char *stage = memory + step % STAGES * STAGE_BYTES;
            load(stage, queries, depth, first_query, end_query, step * STEP);
            load(stage + STAGE_BYTES / 2, candidates, depth, first_candidate, end_candidate, step * STEP);
        }
        end_of_stage();  // of none too, so that they can be counted
    };
    for (int step = 0; step < STAGES - 1; ++step) load_step(step);
    for (int step = 0; step < n_steps; ++step) {
        wait_for_stage<STAGES - 2>();
        __syncthreads();
        load_step(step + STAGES - 1);
        const unsigned char *left = memory + step % STAGES * STAGE_BYTES, *right = left + STAGE_BYTES / 2;
#pragma unroll
        for (int half = 0; half < STEP / 16; ++half) {
            unsigned of_queries[2][4], of_candidates[4];
#pragma unroll
            for (int m = 0; m < 2; ++m)
                load_matrices(of_queries[m], left + place(warp_query + m * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                const int row = warp_candidate + n * 8 + lane / 16 * 8 + lane % 8;
                load_matrices(of_candidates, right + place(row, half * 2 + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    multiply_add(sums[m][n], of_queries[m], of_candidates);
                    multiply_add(sums[m][n + 1], of_queries[m], of_candidates + 2);
                }
            }
        }
    }

    // A lane holds of each 16 x 8 products those of rows lane / 4 and lane / 4 + 8, columns lane % 4 * 2 and the next.
    const float infinity = __int_as_float(0x7f800000), off = *error;
    float least[2][2];
    int n_mine = 0;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const int query = first_query + warp_query + m * 16 + lower * 8 + lane / 4;
            const bool is_query = query < end_query;
            const int end = is_query ? min(eligible[query], end_candidate) : 0;
            float best = -infinity;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int candidate = first_candidate + warp_candidate + i / 2 * 8 + lane % 4 * 2 + i % 2;
                float &product = sums[m][i / 2][lower * 2 + i % 2];
                product = candidate < end ? product * scale : -infinity;
                best = fmaxf(best, product);
            }
            best = fmaxf(best, __shfl_xor_sync(EVERY_LANE, best, 1));
            best = fmaxf(best, __shfl_xor_sync(EVERY_LANE, best, 2));
            unsigned now = 0;
            if (is_query && lane % 4 == 0) {
                now = *(volatile unsigned *)(highest + query);
                const unsigned mine = __float_as_int(fmaxf(best, 0.0f));
                if (mine > now) now = max(atomicMax(highest + query, mine), mine);
            }
            now = __shfl_sync(EVERY_LANE, now, lane - lane % 4);
            least[m][lower] = least_of(__int_as_float(now), off, match);
#pragma unroll
            for (int i = 0; i < 16; ++i) n_mine += sums[m][i / 2][lower * 2 + i % 2] >= least[m][lower];
        }
    }
    int through = n_mine;  // those of the lanes up to this one
    for (int apart = 1; apart < 32; apart *= 2) {
        const int before = __shfl_up_sync(EVERY_LANE, through, apart);
        if (lane >= apart) through += before;
    }
    uint64 at = 0;
    if (lane == 31 && through) at = atomicAdd(n_found, (uint64)through);
    at = __shfl_sync(EVERY_LANE, at, 31) + through - n_mine;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
        const int m = i / 32, lower = i / 16 % 2, j = i % 16;
        const float product = sums[m][j / 2][lower * 2 + j % 2];
        if (product >= least[m][lower]) {
            if (at < capacity) {
                found_queries[at] = first_query + warp_query + m * 16 + lower * 8 + lane / 4;
                found_candidates[at] = first_candidate + warp_candidate + j / 2 * 8 + lane % 4 * 2 + j % 2;
                found_products[at] = product;
            }
            ++at;
        }
    }
}
