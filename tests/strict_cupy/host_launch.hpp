// The kernels as functions of the host: grid, block and shared memory first. Included after the kernels.
extern "C" void run_fixed_order_sums(unsigned blocks, unsigned threads, unsigned shared, const LEFT *left,
                                     const RIGHT *right, const int64 *left_rows, const int64 *right_rows, int64 n_pairs,
                                     int dim, const int *leaves, int n_leaves, int squared, double *sums,
                                     unsigned char *equal) {
    launch(fixed_order_sums, blocks, threads, shared, left, right, left_rows, right_rows, n_pairs, dim, leaves,
           n_leaves, squared, sums, equal);
}

extern "C" void run_propose(unsigned blocks, unsigned threads, unsigned shared, const unsigned short *queries,
                            const unsigned short *candidates, int64 depth, float scale, const int *tiles,
                            const int *eligible, const float *error, float match, unsigned *highest, uint64 capacity,
                            uint64 *n_found, int *found_queries, int *found_candidates, float *found_products) {
    launch(propose, blocks, threads, shared, queries, candidates, depth, scale, tiles, eligible, error, match, highest,
           capacity, n_found, found_queries, found_candidates, found_products);
}
