// The kernels of the comparison. They need no header, so that NVRTC compiles them wherever CuPy is installed.
//
//     rows ──halve──▶ halves ──propose──▶ candidates ──decide──▶ best of each query ──place_best──▶ score, position
//
// `propose` multiplies rows in half precision on the tensor cores; a block has a tile of 128 queries and 128 candidates:
//
//                  candidates of one cluster                  a block has 4 warps, a warp 64 x 64 products
//                +------+------+------+
//       queries  | tile |      :      :      ranked: a query     +--------+--------+
//       of the   +------+------+      :      is compared with    | warp 0 | warp 2 |
//       same     | tile | tile |      :      those before it     +--------+--------+
//                +------+------+------+                          | warp 1 | warp 3 |
//                | tile | tile | tile |                          +--------+--------+
//                +------+------+------+
//
// No product is written. A block raises the highest product of each of its queries, which all blocks share, and notes
// the candidates that may still be the nearest: the highest product only grows, so that none is missed. `decide` leaves
// out those that came too early, and computes the scores of the others in float64, in the one order of additions that
// every backend has. Whatever the order in which blocks run, the answer is the same.

typedef long long int64;
typedef unsigned long long uint64;

#define EVERY_LANE 0xffffffffu

#ifndef SEMDEDUP_HOST  // the tests build this file for the processor, with primitives of their own

__device__ __forceinline__ unsigned char *shared_memory() {
    extern __shared__ __align__(128) unsigned char memory[];
    return memory;
}

// Never a fused multiply-add.
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double subtract(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double multiply(double a, double b) { return __dmul_rn(a, b); }

// Between float and double as on the processor: CuPy compiles with -ftz=true, by which subnormal floats would become 0.
__device__ __forceinline__ double to_double(double value) { return value; }

__device__ __forceinline__ double to_double(float value) {
    double same;
    asm("cvt.f64.f32 %0, %1;" : "=d"(same) : "f"(value));
    return same;
}

__device__ __forceinline__ float to_float(double value) {
    float rounded;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(rounded) : "d"(value));
    return rounded;
}

__device__ __forceinline__ unsigned short to_half(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

__device__ __forceinline__ float of_half(unsigned short half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

#if __CUDA_ARCH__ >= 800

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
#endif

// --- sums in the fixed order ------------------------------------------------------------------------------------

#define MOST_LEAVES_OPEN 32

struct PairSum {
    double value;
    bool equal;  // whether the rows are equal in each element (0 and -0 are equal)
};

// x.y, or |x - y|^2 where `squared`, of a pair of rows; eight lanes, so that 32 bytes of a row are read at a time.
// All lanes of a warp call it together; each of the eight gets the sum.
//
// leaves: of each part of at most 128 columns, how many these are, and how many sums are added up once it is summed.
template <typename Left, typename Right>
__device__ __forceinline__ PairSum sum_of_pair(const Left *x, const Right *y, const int *leaves, int n_leaves,
                                               bool squared) {
    const int lane = threadIdx.x % 8;
    int same = 1, n_open = 0;
    double open[MOST_LEAVES_OPEN];
    auto term = [&](int column) {
        const double a = to_double(x[column]), b = to_double(y[column]);
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
    return {open[0], same != 0};
}

// For n_pairs pairs of rows of `dim` columns; without left_rows or right_rows the i-th pair has the i-th row.
template <typename Left, typename Right>
__device__ __forceinline__ void sums_of_pairs(const Left *left, const Right *right, const int64 *left_rows,
                                              const int64 *right_rows, int64 n_pairs, int dim, const int *leaves,
                                              int n_leaves, int squared, double *sums, unsigned char *equal) {
    const int64 pair = (int64)blockIdx.x * (blockDim.x / 8) + threadIdx.x / 8;
    const int64 here = pair < n_pairs ? pair : n_pairs - 1;  // all lanes of a warp go on together
    const Left *x = left + (left_rows ? left_rows[here] : here) * dim;
    const Right *y = right + (right_rows ? right_rows[here] : here) * dim;
    const PairSum found = sum_of_pair(x, y, leaves, n_leaves, squared != 0);
    if (pair < n_pairs && threadIdx.x % 8 == 0) {
        sums[pair] = found.value;
        equal[pair] = found.equal;
    }
}

#define FIXED_ORDER_SUMS(NAME, LEFT, RIGHT)                                                                          \
    extern "C" __global__ void NAME(const LEFT *left, const RIGHT *right, const int64 *left_rows,                    \
                                    const int64 *right_rows, int64 n_pairs, int dim, const int *leaves, int n_leaves, \
                                    int squared, double *sums, unsigned char *equal) {                               \
        sums_of_pairs(left, right, left_rows, right_rows, n_pairs, dim, leaves, n_leaves, squared, sums, equal);     \
    }

FIXED_ORDER_SUMS(fixed_order_sums_ff, float, float)
FIXED_ORDER_SUMS(fixed_order_sums_fd, float, double)
FIXED_ORDER_SUMS(fixed_order_sums_df, double, float)
FIXED_ORDER_SUMS(fixed_order_sums_dd, double, double)

// --- halves -----------------------------------------------------------------------------------------------------

// Rounds rows, times `scale`, a power of two, to halves, and fills them up with zeros to `depth` columns; a warp a row.
// largest_square: the bits of the largest square of the length by which a row differs from its halves, 0 before.
extern "C" __global__ void halve(const float *rows, int64 n, int dim, int depth, float scale, unsigned short *halves,
                                 unsigned *largest_square) {
    const int64 row = (int64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= n) return;
    float square = 0;
    for (int column = lane; column < depth; column += 32) {
        const float value = column < dim ? rows[row * dim + column] : 0.0f;
        const unsigned short half = to_half(value * scale);
        halves[row * depth + column] = half;
        const float difference = of_half(half) / scale - value;  // exact
        square += difference * difference;
    }
    for (int apart = 1; apart < 32; apart *= 2) square += __shfl_xor_sync(EVERY_LANE, square, apart);
    if (lane == 0 && square > 0) atomicMax(largest_square, (unsigned)__float_as_int(square));
}

#define LONGEST (1.0f + 1.0f / (1 << 20))

// The bound of the error of a product of halves: `halves.half_error`, which is the same in Python and says why.
// left_square, right_square: as of `halve`. vanished: of squares that are too small for float32.
// accumulation: of the tensor cores.
__device__ __forceinline__ float error_of(const unsigned *left_square, const unsigned *right_square, float vanished,
                                          float accumulation) {
    const float left = 1.01f * sqrtf(__int_as_float(*left_square)) + vanished;
    const float right = 1.01f * sqrtf(__int_as_float(*right_square)) + vanished;
    const float rounding = left * LONGEST + (LONGEST + left) * right;
    return 1.001f * (rounding + accumulation * (LONGEST + left) * (LONGEST + right)) + 1.0f / (1 << 22);
}

// The product from which on a candidate may be the nearest, or a match; scores end at 0 and 1.
__device__ __forceinline__ float least_of(unsigned highest, float error, float match) {
    return fminf(fmaxf(fminf(__int_as_float(highest) - error, 1.0f), 0.0f), match) - error;
}

// --- proposals --------------------------------------------------------------------------------------------------

#define SIDE 128                       // queries and candidates of a tile
#define STEP 32                        // columns of a stage
#define STAGES 3                       // one is multiplied while two are on their way
#define STAGE_BYTES (2 * SIDE * STEP * 2)
#define WARP_SIDE 64
#define THREADS 128

#if defined(SEMDEDUP_HOST) || __CUDA_ARCH__ >= 800

// Where a row's chunk of 8 halves lies in a stage: mixed, so that eight rows are read without a bank conflict.
__device__ __forceinline__ int place(int row, int chunk) { return row * STEP * 2 + ((chunk ^ ((row >> 1) & 3)) * 16); }

// Columns of a stage of the `n_rows` rows of a tile; beyond them the last row once more, which is ruled out later.
__device__ __forceinline__ void load(unsigned char *stage, const unsigned short *rows, int n_rows, int depth,
                                     int column) {
#pragma unroll
    for (int i = 0; i < SIDE * STEP / 8; i += THREADS) {
        const int row = (i + threadIdx.x) / (STEP / 8), chunk = threadIdx.x % (STEP / 8);
        copy_16(stage + place(row, chunk), rows + min(row, n_rows - 1) * depth + column + chunk * 8);
    }
}

// The products of a tile, into registers: of each 16 x 8 of its 64 x 64 a lane of a warp has rows lane / 4 and
// lane / 4 + 8, columns lane % 4 * 2 and the next.
__device__ __forceinline__ void multiply_tile(float sums[4][8][4], const unsigned short *queries, int n_queries,
                                              const unsigned short *candidates, int n_candidates, int depth) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_steps = depth / STEP;
    const int warp_query = warp % 2 * WARP_SIDE, warp_candidate = warp / 2 * WARP_SIDE;
    unsigned char *memory = shared_memory();
    auto load_step = [&](int step) {
        if (step < n_steps) {
            unsigned char *stage = memory + step % STAGES * STAGE_BYTES;
            load(stage, queries, n_queries, depth, step * STEP);
            load(stage + STAGE_BYTES / 2, candidates, n_candidates, depth, step * STEP);
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
            unsigned of_queries[4][4], of_candidates[4][4];  // of candidates 16 each
#pragma unroll
            for (int m = 0; m < 4; ++m)
                load_matrices(of_queries[m], left + place(warp_query + m * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                const int row = warp_candidate + n * 16 + lane / 16 * 8 + lane % 8;
                load_matrices(of_candidates[n], right + place(row, half * 2 + lane / 8 % 2));
            }
#pragma unroll
            for (int m = 0; m < 4; ++m)
#pragma unroll
                for (int n = 0; n < 8; ++n) multiply_add(sums[m][n], of_queries[m], of_candidates[n / 2] + n % 2 * 2);
        }
    }
}

// queries, candidates: halves of rows, `depth` columns, a multiple of STEP; products are scaled by `scale`.
// squares: first query and end, first candidate and end, of each `per_side` x `per_side` tiles.
// eligible: of query i the candidates [0, eligible[i]) rank better; it does not fall within a square.
// left_square to accumulation: see `error_of`. match: the least score of a match.
// highest: of each query the bits of the highest product, 0 at the beginning: bits of floats from 0 on are in their order.
// n_found: how many candidates were noted, those beyond `capacity` too, which are counted only.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    propose(const unsigned short *queries, const unsigned short *candidates, int depth, float scale, const int *squares,
            int per_side, const int *eligible, const unsigned *left_square, const unsigned *right_square,
            float vanished, float accumulation, float match, unsigned *highest, uint64 capacity, uint64 *n_found,
            int *found_queries, int *found_candidates, float *found_products) {
    const int n_tiles = per_side * per_side, tile = blockIdx.x % n_tiles;
    const int *square = squares + 4 * (int64)(blockIdx.x / n_tiles);
    const int first_query = square[0] + tile % per_side * SIDE, end_query = min(square[1], first_query + SIDE);
    const int first_candidate = square[2] + tile / per_side * SIDE;
    const int end_candidate = min(square[3], first_candidate + SIDE);
    if (first_query >= end_query || first_candidate >= min(end_candidate, eligible[end_query - 1])) return;
    float sums[4][8][4] = {};
    multiply_tile(sums, queries + (int64)first_query * depth, end_query - first_query,
                  candidates + (int64)first_candidate * depth, end_candidate - first_candidate, depth);

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int query_here = first_query + warp % 2 * WARP_SIDE + lane / 4;
    const int candidate_here = first_candidate + warp / 2 * WARP_SIDE + lane % 4 * 2;
    const float infinity = __int_as_float(0x7f800000);
    const float error = error_of(left_square, right_square, vanished, accumulation);
    float least[4][2];
    int n_mine = 0;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const int query = query_here + m * 16 + lower * 8;
            const bool is_query = query < end_query;
            const int end = is_query ? min(eligible[query], end_candidate) : 0;
            float best = 0;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                float &product = sums[m][i / 2][lower * 2 + i % 2];
                product = candidate_here + i / 2 * 8 + i % 2 < end ? product * scale : -infinity;
                best = product > best ? product : best;  // never -0, whose bits are large
            }
            best = fmaxf(best, __shfl_xor_sync(EVERY_LANE, best, 1));
            best = fmaxf(best, __shfl_xor_sync(EVERY_LANE, best, 2));
            unsigned now = 0;
            if (is_query && lane % 4 == 0) {
                const unsigned mine = __float_as_int(best);
                now = *(volatile unsigned *)(highest + query);
                if (mine > now) now = max(atomicMax(highest + query, mine), mine);
            }
            now = __shfl_sync(EVERY_LANE, now, lane - lane % 4);
            least[m][lower] = least_of(now, error, match);
#pragma unroll
            for (int i = 0; i < 16; ++i) n_mine += sums[m][i / 2][lower * 2 + i % 2] >= least[m][lower];
        }
    }
    if (!__ballot_sync(EVERY_LANE, n_mine > 0)) return;
    int through = n_mine;  // those of the lanes up to this one
    for (int apart = 1; apart < 32; apart *= 2) {
        const int before = __shfl_up_sync(EVERY_LANE, through, apart);
        if (lane >= apart) through += before;
    }
    uint64 at = 0;
    if (lane == 31) at = atomicAdd(n_found, (uint64)through);
    at = __shfl_sync(EVERY_LANE, at, 31) + through - n_mine;
#pragma unroll
    for (int i = 0; i < 128; ++i) {
        const int m = i / 32, lower = i / 16 % 2, j = i % 16;
        const float product = sums[m][j / 2][lower * 2 + j % 2];
        if (product >= least[m][lower]) {
            if (at < capacity) {
                found_queries[at] = query_here + m * 16 + lower * 8;
                found_candidates[at] = candidate_here + j / 2 * 8 + j % 2;
                found_products[at] = product;
            }
            ++at;
        }
    }
}

#endif

// --- scores -----------------------------------------------------------------------------------------------------

#define NEARLY_ONE (1.0f - 1.0f / (1 << 20))  // a score from which on two rows may be equal

// The scores of those of the first n candidates that may still be the nearest, or a match.
// scores: of each candidate its score, -1 of those left out; may be absent.
// best: of each query the bits of its highest score, and the complement of the first candidate that has it; 0 of none.
extern "C" __global__ void decide(const float *queries, const float *candidates, int dim, const int *leaves,
                                  int n_leaves, const unsigned *left_square, const unsigned *right_square,
                                  float vanished, float accumulation, float match, const unsigned *highest, int64 n,
                                  const int *found_queries, const int *found_candidates, const float *found_products,
                                  float *scores, uint64 *best) {
    const int64 mine = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    const int lane = threadIdx.x % 32;
    int query = 0, candidate = 0;
    bool near = false;
    if (mine < n) {
        query = found_queries[mine];
        candidate = found_candidates[mine];
        const float error = error_of(left_square, right_square, vanished, accumulation);
        near = found_products[mine] >= least_of(highest[query], error, match);
        if (scores) scores[mine] = -1;
    }
    __syncwarp();
    for (unsigned left = __ballot_sync(EVERY_LANE, near); left;) {  // lanes with a candidate; four of them at a time
        int from = -1;
        const int first = __ffs(left) - 1;
        for (int group = 0; group < 4; ++group) {
            if (group == lane / 8) from = __ffs(left) - 1;
            left &= left - 1;  // 0 stays 0
        }
        const int source = from < 0 ? first : from;
        const int q = __shfl_sync(EVERY_LANE, query, source), c = __shfl_sync(EVERY_LANE, candidate, source);
        const PairSum found =
            sum_of_pair(queries + (int64)q * dim, candidates + (int64)c * dim, leaves, n_leaves, false);
        float score = to_float(fmin(fmax(found.value, 0.0), 1.0));
        if (found.equal && score >= NEARLY_ONE) score = 1;
        if (from >= 0 && lane % 8 == 0) {
            if (scores) scores[mine - lane + from] = score;
            if (__float_as_int(score) > 0) atomicMax(best + q, (uint64)(unsigned)__float_as_int(score) << 32 | (0xffffffffu - c));
        }
    }
}

// Writes what `best` has, as of `decide`, where it has something.
extern "C" __global__ void place_best(const uint64 *best, int64 n, float *score, int64 *position) {
    const int64 query = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (query >= n || !best[query]) return;
    score[query] = __int_as_float((int)(best[query] >> 32));
    position[query] = 0xffffffffu - (unsigned)best[query];
}

// --- rows that occur more than once -----------------------------------------------------------------------------

// A number with all bits of another one mixed (the last step of SplitMix64).
__device__ __forceinline__ uint64 mixed(uint64 number) {
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9ull;
    number = (number ^ (number >> 27)) * 0x94d049bb133111ebull;
    return number ^ (number >> 31);
}

// A 64-bit hash of the bits of each row, and of its group, where there are groups; a warp a row.
extern "C" __global__ void hash_rows(const unsigned *rows, const int64 *groups, int64 n, int dim, uint64 *hashes) {
    const int64 row = (int64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= n) return;
    uint64 sum = groups && lane == 0 ? mixed(groups[row]) : 0;
    for (int column = lane; column < dim; column += 32) sum += rows[row * dim + column] * (mixed(column + 1) | 1);
    for (int apart = 1; apart < 32; apart *= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, apart);
    if (lane == 0) hashes[row] = mixed(sum);
}

// For each row the first one that has its bits and its group, where there are groups; a warp a row.
// order: positions of the rows by their hashes, of equal ones in their order. hashes: in this order.
extern "C" __global__ void first_alike(const unsigned *rows, const int64 *groups, int64 n, int dim, const int64 *order,
                                       const uint64 *hashes, int64 *same_as) {
    const int64 place = (int64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (place >= n) return;
    int64 low = 0, high = place;  // where equal hashes begin
    while (low < high) {
        const int64 middle = (low + high) / 2;
        if (hashes[middle] < hashes[place])
            low = middle + 1;
        else
            high = middle;
    }
    const int64 row = order[place];
    int64 found = row;
    for (; low < place; ++low) {
        const int64 other = order[low];
        bool differ = groups && groups[other] != groups[row];
        for (int column = lane; column < dim; column += 32) differ |= rows[other * dim + column] != rows[row * dim + column];
        if (!__ballot_sync(EVERY_LANE, differ)) {
            found = other;
            break;
        }
    }
    if (lane == 0) same_as[row] = found;
}

// --- seeds of k-means -------------------------------------------------------------------------------------------

#define MOST_DRAWN 1024
#define MOST_TRIALS 128

// Chooses seeds among rows drawn for them, one after the other, as `kmeans.seeds` says; one block.
// products: (n_drawn, m), twice the products of the rows drawn with all rows. share: of each row drawn, evenly distributed
//     below its square distance as it was drawn. squares, nearest: (m,) square length, and square distance to the nearest
//     seed, which goes down. chosen: the seeds. state: how many there are, and the sum of `nearest`.
extern "C" __global__ void choose(const int *products, const int64 *share, const int64 *drawn, int n_drawn, int64 m,
                                  int trials, int64 n_clusters, const int *squares, int *nearest, int64 *chosen,
                                  int64 *state) {
    __shared__ int waiting[MOST_DRAWN], n_waiting, best;
    __shared__ int64 sums[MOST_TRIALS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    int64 n_chosen = state[0];
    for (int i = threadIdx.x; i < n_drawn; i += blockDim.x) waiting[i] = i;
    if (threadIdx.x == 0) n_waiting = n_drawn;
    for (int tried = 0; n_chosen < n_clusters; tried = trials) {
        __syncthreads();
        if (warp == 0) {  // those of the rows not tried yet that are as far from the seeds as they must be
            int kept = 0;
            for (int first = tried; first < n_waiting; first += 32) {
                const int one = first + lane < n_waiting ? waiting[first + lane] : -1;
                const bool stays = one >= 0 && share[one] < nearest[drawn[one]];
                const unsigned lanes = __ballot_sync(EVERY_LANE, stays);
                if (stays) waiting[kept + __popc(lanes & ((1u << lane) - 1))] = one;
                kept += __popc(lanes);
            }
            __syncwarp();
            if (lane == 0) n_waiting = kept;
        }
        __syncthreads();
        if (n_waiting < trials) break;
        for (int trial = warp; trial < trials; trial += n_warps) {  // by how much each lowers the sum of `nearest`
            const int *product = products + waiting[trial] * m;
            const int own = squares[drawn[waiting[trial]]];
            int64 sum = 0;
            for (int64 i = lane; i < m; i += 32) sum += max(product[i] + nearest[i] - squares[i] - own, 0);
            for (int apart = 1; apart < 32; apart *= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, apart);
            if (lane == 0) sums[trial] = sum;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int most = 0;  // of equal ones the first
            for (int trial = 1; trial < trials; ++trial)
                if (sums[trial] > sums[most]) most = trial;
            best = waiting[most];
            chosen[n_chosen] = drawn[best];
        }
        __syncthreads();
        const int own = squares[drawn[best]];
        for (int64 i = threadIdx.x; i < m; i += blockDim.x)
            nearest[i] = min(nearest[i], squares[i] + own - products[best * m + i]);
        ++n_chosen;
    }
    __syncthreads();
    int64 total = 0;
    for (int64 i = threadIdx.x; i < m; i += blockDim.x) total += nearest[i];
    for (int apart = 1; apart < 32; apart *= 2) total += __shfl_xor_sync(EVERY_LANE, total, apart);
    if (lane == 0) sums[warp] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
        total = 0;
        for (int i = 0; i < n_warps; ++i) total += sums[i];
        state[0] = n_chosen;
        state[1] = total;
    }
}
