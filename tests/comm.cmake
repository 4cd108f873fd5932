lockstep_test(NAME leaf_tree_test LIBS lockstep::comm)
lockstep_test(NAME rounded_test LIBS lockstep::comm)
lockstep_test(NAME shards_test LIBS lockstep::comm)
lockstep_test(NAME tree_sum_test LIBS lockstep::comm)
lockstep_test(NAME communicator_test SOURCES comm_main.cpp LIBS lockstep::comm RANKS 1 2 3 4)
lockstep_test(NAME probe_test SOURCES comm_main.cpp LIBS lockstep::comm RANKS 1 2 3 4)
lockstep_test(NAME together_test SOURCES comm_main.cpp LIBS lockstep::comm RANKS 1 2 3)
lockstep_test(NAME leaf_sum_test SOURCES comm_main.cpp LIBS lockstep::comm RANKS 1 2 3 4)
lockstep_test(NAME parameter_exchange_test SOURCES comm_main.cpp LIBS lockstep::comm
  RANKS 1 2 3 4 5 6 7 8)

# How a run ends when a rank fails: each case is a program of its own, whose exit code and output
# say whether it ended as it should.
add_executable(session_faults session_faults.cpp)
set_target_properties(session_faults PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(session_faults PRIVATE lockstep::comm lockstep_options)
lockstep_test(NAME session_test LIBS lockstep::comm TIMEOUT 180)
add_dependencies(session_test session_faults)
target_compile_definitions(session_test PRIVATE
  MPIEXEC="${MPIEXEC_EXECUTABLE}" SESSION_FAULTS="$<TARGET_FILE:session_faults>")
set_tests_properties(session_test PROPERTIES PROCESSORS 2
  ENVIRONMENT "${LOCKSTEP_MPI_ENVIRONMENT}")

# Not a test: mpirun -np 2 build/tests/exchange_benchmark
add_executable(exchange_benchmark exchange_benchmark.cpp)
set_target_properties(exchange_benchmark PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(exchange_benchmark PRIVATE lockstep::comm MPI::MPI_C lockstep_options)

# The exchange between more nodes than there are, where SimGrid is installed (scripts/install simulate).
find_program(LOCKSTEP_SMPICXX smpicxx)
if(LOCKSTEP_SMPICXX)
  add_test(NAME simulate COMMAND ${PROJECT_SOURCE_DIR}/scripts/simulate --check)
  set_tests_properties(simulate PROPERTIES TIMEOUT 120 SKIP_RETURN_CODE 77)
else()
  message(STATUS "SimGrid is missing: the test 'simulate' is left out")
endif()
