// What the CUDA kernels of the package need, on a processor: the threads of a block are fibers that go on in turns, and
// wait for each other where a warp or a block does. Included before the kernels.
#define SEMDEDUP_HOST
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

typedef long long int64;
typedef unsigned long long uint64;
using std::max;
using std::min;

#define EVERY_LANE 0xffffffffu

struct Index {
    unsigned x;
};
static Index blockIdx, blockDim, threadIdx;

struct Barrier {
    unsigned arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    uint64 value[32];
    unsigned registers[32][6];
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

static void arrive(Barrier &barrier, unsigned n) {
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == n) {
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

template <typename... Arguments>
static void launch(void (*kernel)(Arguments...), unsigned blocks, unsigned threads, unsigned shared, Arguments... given) {
    const std::function<void()> call = [&] { kernel(given...); };
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

static Warp &warp_here() { return warps[threadIdx.x / 32]; }
static unsigned lane_here() { return threadIdx.x % 32; }
static void arrive_warp() { arrive(warp_here().barrier, 32); }

static void __syncthreads() { arrive(of_block, blockDim.x); }
static unsigned char *shared_memory() { return memory.data(); }

template <typename T>
static T from_lane(T value, unsigned source) {
    Warp &warp = warp_here();
    memcpy(&warp.value[lane_here()], &value, sizeof value);
    arrive_warp();
    T found;
    memcpy(&found, &warp.value[source], sizeof found);
    arrive_warp();
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

static unsigned atomicMax(unsigned *place, unsigned value) {
    const unsigned before = *place;
    *place = max(before, value);
    return before;
}
static uint64 atomicAdd(uint64 *place, uint64 value) {
    const uint64 before = *place;
    *place += value;
    return before;
}
static int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, 4);
    return bits;
}
static float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static double add(double a, double b) { return a + b; }
static double subtract(double a, double b) { return a - b; }
static double multiply(double a, double b) { return a * b; }

static void copy_16(void *shared, const void *global) { memcpy(shared, global, 16); }
static void end_of_stage() {}
template <int pending>
static void wait_for_stage() {}

static void load_matrices(unsigned matrices[4], const void *row) {
    Warp &warp = warp_here();
    const unsigned lane = lane_here();
    warp.value[lane] = (uint64)row;
    arrive_warp();
    for (int i = 0; i < 4; ++i) memcpy(&matrices[i], (const char *)warp.value[i * 8 + lane / 4] + lane % 4 * 4, 4);
    arrive_warp();
}

static float of_half(unsigned bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
    return exponent == 31 ? NAN : bits >> 15 ? -size : size;
}

static void multiply_add(float sums[4], const unsigned left[4], const unsigned right[2]) {
    Warp &warp = warp_here();
    const unsigned lane = lane_here();
    memcpy(warp.registers[lane], left, 16);
    memcpy(warp.registers[lane] + 4, right, 8);
    arrive_warp();
    for (int i = 0; i < 4; ++i) {
        const int lower = i / 2, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            const unsigned a = warp.registers[lane / 4 * 4 + k % 8 / 2][k / 8 * 2 + lower];
            const unsigned b = warp.registers[column * 4 + k % 8 / 2][4 + k / 8];
            sums[i] += of_half(a >> k % 2 * 16 & 0xffff) * of_half(b >> k % 2 * 16 & 0xffff);
        }
    }
    arrive_warp();
}
