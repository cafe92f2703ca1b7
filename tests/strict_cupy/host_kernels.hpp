// What the CUDA kernels of the package need, on a processor: the threads of a block are fibers that go on in turns, and
// wait for each other where a warp or a block does. Included before the kernels. Blocks run one after the other.
#define SEMDEDUP_HOST
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

using std::max;
using std::min;

struct Index {
    unsigned x;
};
static Index blockIdx, blockDim, threadIdx;

struct Barrier {
    unsigned arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    unsigned long long given[32], seen[32];          // what each lane tells the others
    unsigned left[32][4], right[32][2];              // what each lane gives to be multiplied
    float sums[32][4];
};

struct Fiber {
    jmp_buf place;
    std::vector<char> stack;
    bool begun = false, done = false;
};

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static std::vector<unsigned char> memory;
static Barrier of_block;
static jmp_buf scheduler;
static const std::function<void()> *body;

static void go_on() {
    const unsigned mine = threadIdx.x;
    if (!_setjmp(fibers[mine].place)) _longjmp(scheduler, 1);
    threadIdx.x = mine;
}

// Waits for n threads; the last one does something for all of them first.
template <typename Action>
static void arrive(Barrier &barrier, unsigned n, Action action) {
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == n) {
        action();
        barrier.arrived = 0;
        ++barrier.generation;
    }
    while (barrier.generation == generation) go_on();
}

static void enter() {
    (*body)();
    fibers[threadIdx.x].done = true;
    _longjmp(scheduler, 1);
}

static void run_block(unsigned threads) {
    static ucontext_t start, back;
    warps.assign((threads + 31) / 32, Warp());
    of_block = Barrier();
    for (Fiber &fiber : fibers) fiber.begun = fiber.done = false;
    for (bool any = true; any;) {
        any = false;
        for (volatile unsigned i = 0; i < threads; ++i) {
            Fiber &fiber = fibers[i];
            if (fiber.done) continue;
            any = true;
            threadIdx.x = i;
            if (_setjmp(scheduler)) continue;
            if (fiber.begun) _longjmp(fiber.place, 1);
            fiber.begun = true;
            getcontext(&start);
            start.uc_stack.ss_sp = fiber.stack.data();
            start.uc_stack.ss_size = fiber.stack.size();
            start.uc_link = nullptr;
            makecontext(&start, enter, 0);
            swapcontext(&back, &start);
        }
    }
}

static void run_blocks(unsigned blocks, unsigned threads, unsigned shared, const std::function<void()> &call) {
    body = &call;
    blockDim.x = threads;
    fibers.resize(threads);
    for (Fiber &fiber : fibers) fiber.stack.resize(1 << 16);
    for (unsigned block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        memory.assign(shared, 0xff);  // not a number, where a half is read that nobody wrote
        run_block(threads);
    }
}

template <typename... Arguments, size_t... At>
static void launch(void (*kernel)(Arguments...), unsigned blocks, unsigned threads, unsigned shared, void **given,
                   std::index_sequence<At...>) {
    run_blocks(blocks, threads, shared, [&] { kernel(*(Arguments *)given[At]...); });
}

// A kernel as a function of the host: grid, block, shared memory and the addresses of its arguments. After the kernels.
template <typename... Arguments>
static void launch(void (*kernel)(Arguments...), unsigned blocks, unsigned threads, unsigned shared, void **given) {
    launch(kernel, blocks, threads, shared, given, std::index_sequence_for<Arguments...>());
}
#define HOST_KERNEL(NAME)                                                                              \
    extern "C" void run_##NAME(unsigned blocks, unsigned threads, unsigned shared, void **given) {     \
        launch(NAME, blocks, threads, shared, given);                                                  \
    }

static Warp &warp_here() { return warps[threadIdx.x / 32]; }
static unsigned lane_here() { return threadIdx.x % 32; }

static void __syncthreads() {
    arrive(of_block, blockDim.x, [] {});
}
static unsigned char *shared_memory() { return memory.data(); }

// What all lanes give is in `seen` of the warp afterwards.
template <typename T>
static Warp &exchange(T value) {
    Warp &warp = warp_here();
    memcpy(&warp.given[lane_here()], &value, sizeof value);
    arrive(warp.barrier, 32, [&] { memcpy(warp.seen, warp.given, sizeof warp.seen); });
    return warp;
}

template <typename T>
static T from_lane(T value, unsigned source) {
    T found;
    memcpy(&found, &exchange(value).seen[source], sizeof found);
    return found;
}

template <typename T>
static T __shfl_sync(unsigned, T value, int source) {
    return from_lane(value, source);
}
template <typename T>
static T __shfl_xor_sync(unsigned, T value, int mask) {
    return from_lane(value, lane_here() ^ mask);
}
template <typename T>
static T __shfl_up_sync(unsigned, T value, int apart) {
    return from_lane(value, (int)lane_here() < apart ? lane_here() : lane_here() - apart);
}
static unsigned __ballot_sync(unsigned, int holds) {
    const Warp &warp = exchange<unsigned long long>(holds != 0);
    unsigned lanes = 0;
    for (int i = 0; i < 32; ++i) lanes |= (unsigned)warp.seen[i] << i;
    return lanes;
}
static void __syncwarp() { exchange(0); }
static int __popc(unsigned bits) { return __builtin_popcount(bits); }
static int __ffs(unsigned bits) { return __builtin_ffs((int)bits); }

template <typename T>
static T atomicMax(T *place, T value) {
    const T before = *place;
    *place = max(before, value);
    return before;
}
template <typename T>
static T atomicAdd(T *place, T value) {
    const T before = *place;
    *place += value;
    return before;
}

template <typename To, typename From>
static To bits_of(From value) {
    To bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static int __float_as_int(float value) { return bits_of<int>(value); }
static float __int_as_float(int bits) { return bits_of<float>(bits); }

static double add(double a, double b) { return a + b; }
static double subtract(double a, double b) { return a - b; }
static double multiply(double a, double b) { return a * b; }
static double to_double(double value) { return value; }
static float to_float(double value) { return (float)value; }

static unsigned short to_half(float value) { return bits_of<unsigned short>((_Float16)value); }
static float of_half(unsigned short bits) { return bits_of<_Float16>(bits); }

static void copy_16(void *shared, const void *global) { memcpy(shared, global, 16); }
static void end_of_stage() {}
template <int pending>
static void wait_for_stage() {}

static void load_matrices(unsigned matrices[4], const void *row) {
    const Warp &warp = exchange((unsigned long long)row);
    const unsigned lane = lane_here();
    for (int i = 0; i < 4; ++i) memcpy(&matrices[i], (const char *)warp.seen[i * 8 + lane / 4] + lane % 4 * 4, 4);
}

// The float that a number is cut off to, as tensor cores do, which do not round to nearest.
static float cut_off(double value) {
    const float rounded = (float)value;
    return std::fabs((double)rounded) > std::fabs(value) ? std::nextafterf(rounded, 0.0f) : rounded;
}

static void multiply_warp(Warp &warp) {
    float left[16][16], right[8][16];
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 8; ++i) {
            const int k = lane % 4 * 2 + i % 2 + i / 4 * 8;
            left[lane / 4 + i / 2 % 2 * 8][k] = of_half(warp.left[lane][i / 2] >> i % 2 * 16);
            if (i < 4) right[lane / 4][lane % 4 * 2 + i % 2 + i / 2 * 8] = of_half(warp.right[lane][i / 2] >> i % 2 * 16);
        }
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 8; ++column) {
            float &sum = warp.sums[row % 8 * 4 + column / 2][row / 8 * 2 + column % 2];
            for (int first = 0; first < 16; first += 8) {  // eight products at a time, as on Ampere
                double products = 0;
                for (int k = first; k < first + 8; ++k) products += (double)left[row][k] * right[column][k];
                sum = cut_off(sum + products);
            }
        }
}

static void multiply_add(float sums[4], const unsigned left[4], const unsigned right[2]) {
    Warp &warp = warp_here();
    const unsigned lane = lane_here();
    memcpy(warp.left[lane], left, 16);
    memcpy(warp.right[lane], right, 8);
    memcpy(warp.sums[lane], sums, 16);
    arrive(warp.barrier, 32, [&] { multiply_warp(warp); });
    memcpy(sums, warp.sums[lane], 16);
}
