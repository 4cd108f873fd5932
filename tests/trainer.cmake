
# Tests that run the program, alone and under mpirun.
foreach(name IN ITEMS contract norm_contract share_contract bad_input commands)
  lockstep_test(NAME ${name}_test LIBS lockstep::datasets nlohmann_json::nlohmann_json TIMEOUT 400)
  add_dependencies(${name}_test lockstep)
  target_compile_definitions(${name}_test PRIVATE
    MPIEXEC="${MPIEXEC_EXECUTABLE}" LOCKSTEP_PROGRAM="$<TARGET_FILE:lockstep>")
  set_tests_properties(${name}_test PROPERTIES PROCESSORS 2
    ENVIRONMENT "${LOCKSTEP_MPI_ENVIRONMENT}")
endforeach()
# They ask which instruction sets there are.
target_link_libraries(contract_test PRIVATE lockstep::nn)
target_link_libraries(norm_contract_test PRIVATE lockstep::nn)
target_link_libraries(share_contract_test PRIVATE lockstep::nn)
foreach(name IN ITEMS checkpoint config progress run_directory stop_signal)
  lockstep_test(NAME ${name}_test LIBS lockstep::trainer)
endforeach()

lockstep_test(NAME reference_test LIBS lockstep::nn lockstep::datasets)
target_compile_definitions(reference_test PRIVATE
  REFERENCE_FILE="${CMAKE_CURRENT_SOURCE_DIR}/reference.h5")
foreach(name IN ITEMS background batch cpu_quota doctor epoch_order input leaves placement rates)
  lockstep_test(NAME ${name}_test LIBS lockstep::trainer)
endforeach()
lockstep_test(NAME evaluation_test SOURCES comm_main.cpp LIBS lockstep::trainer RANKS 1 2 3)
lockstep_test(NAME pace_test SOURCES comm_main.cpp LIBS lockstep::trainer RANKS 1 2 3)
lockstep_test(NAME replica_test SOURCES comm_main.cpp LIBS lockstep::trainer RANKS 1 2 3)
lockstep_test(NAME share_gather_test SOURCES comm_main.cpp LIBS lockstep::trainer RANKS 1 2 3 4)
# It flips bits of its own memory, and is run by replica_faults_test.
add_executable(replica_faults replica_faults.cpp)
set_target_properties(replica_faults PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(replica_faults PRIVATE lockstep::trainer GTest::gtest lockstep_options)
lockstep_test(NAME replica_faults_test LIBS lockstep::datasets)
add_dependencies(replica_faults_test replica_faults)
target_compile_definitions(replica_faults_test PRIVATE MPIEXEC="${MPIEXEC_EXECUTABLE}"
  REPLICA_FAULTS="$<TARGET_FILE:replica_faults>" LOCKSTEP_PROGRAM="$<TARGET_FILE:lockstep>")
set_tests_properties(replica_faults_test PROPERTIES PROCESSORS 2
  ENVIRONMENT "${LOCKSTEP_MPI_ENVIRONMENT}")
lockstep_test(NAME training_test SOURCES comm_main.cpp LIBS lockstep::trainer RANKS 1 2 3)

# It puts its own malloc in the place of the C library's, which the sanitizers do as well.
if(NOT LOCKSTEP_SANITIZE AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  lockstep_test(NAME step_calls_test LIBS lockstep::trainer)
  set_tests_properties(step_calls_test PROPERTIES PROCESSORS 2
    ENVIRONMENT "${LOCKSTEP_MPI_ENVIRONMENT}"
    # Where the system does not let a process be traced, this is said instead of "Passed".
    SKIP_REGULAR_EXPRESSION "were NOT counted")
endif()

# Scripts that make a cluster of this machine, where it lets them; else they say in a line why not.
# They measure how long a run takes to end, and so run by themselves.
if(NOT LOCKSTEP_SANITIZE AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  foreach(name IN ITEMS multihost slurm)
    add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/${name} $<TARGET_FILE:lockstep>)
    set_tests_properties(${name} PROPERTIES TIMEOUT 400 RUN_SERIAL TRUE SKIP_RETURN_CODE 77)
  endforeach()
endif()
