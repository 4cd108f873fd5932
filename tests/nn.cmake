lockstep_test(NAME buffer_test LIBS lockstep::nn)
lockstep_test(NAME kernels_test LIBS lockstep::nn)
lockstep_test(NAME product_test LIBS lockstep::nn)
lockstep_test(NAME zero_inputs_test LIBS lockstep::nn)
lockstep_test(NAME weight_shares_test LIBS lockstep::nn)
lockstep_test(NAME gradient_check_test LIBS lockstep::nn)
lockstep_test(NAME initializer_test LIBS lockstep::nn)
lockstep_test(NAME batch_norm_test LIBS lockstep::nn)
lockstep_test(NAME dropout_test LIBS lockstep::nn)
lockstep_test(NAME loss_test LIBS lockstep::nn)
lockstep_test(NAME network_test LIBS lockstep::nn)
lockstep_test(NAME optimizer_test LIBS lockstep::nn)
lockstep_test(NAME learning_rate_test LIBS lockstep::nn)
lockstep_test(NAME trust_ratios_test LIBS lockstep::nn)
lockstep_test(NAME lamb_test LIBS lockstep::nn)
lockstep_test(NAME tile_tree_test LIBS lockstep::nn hwy::hwy)
target_compile_definitions(tile_tree_test PRIVATE HWY_COMPILE_ONLY_STATIC)
# GCC does not see that a tree has leaves.
target_compile_options(tile_tree_test PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)

find_package(benchmark REQUIRED)

# Not a test: scripts/bench runs it. Its limits are those of the processor that it is built on.
add_executable(kernels_benchmark EXCLUDE_FROM_ALL kernels_benchmark.cpp)
set_target_properties(kernels_benchmark PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_compile_options(kernels_benchmark PRIVATE -march=native)
target_compile_definitions(kernels_benchmark PRIVATE HWY_COMPILE_ONLY_STATIC)
target_link_libraries(kernels_benchmark PRIVATE lockstep::nn hwy::hwy benchmark::benchmark
  lockstep_options)
