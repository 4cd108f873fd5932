foreach(name IN ITEMS atomic_file dataset describe hdf5 sample_order scaling sha256 writer)
  lockstep_test(NAME ${name}_test LIBS lockstep::datasets)
endforeach()
# The tests write files that only the C libraries know how to make.
target_link_libraries(hdf5_test PRIVATE HDF5::HDF5)
lockstep_test(NAME idx_test LIBS lockstep::datasets ZLIB::ZLIB)
# It asks Highway for one instruction set after the other.
target_link_libraries(scaling_test PRIVATE hwy::hwy)
