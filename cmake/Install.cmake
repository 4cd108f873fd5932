# cmake --install: the program, the four libraries with their headers, and the CMake package `lockstep`
# with the targets lockstep::nn, lockstep::comm, lockstep::datasets and lockstep::trainer.

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lockstep)

install(TARGETS lockstep RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS lockstep_nn lockstep_comm lockstep_datasets lockstep_trainer
  EXPORT lockstepTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# The include root is include/lockstep, so that headers name one another as they do in the source tree.
# What is in detail/ or ends in -inl.hpp serves the sources alone, but for the one header named.
install(DIRECTORY nn comm datasets trainer
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lockstep
  FILES_MATCHING PATTERN "*.hpp"
  PATTERN "*-inl.hpp" EXCLUDE
  PATTERN "detail" EXCLUDE)
install(FILES comm/detail/aligned_floats.hpp
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lockstep/comm/detail)

install(EXPORT lockstepTargets NAMESPACE lockstep:: DESTINATION ${package_dir})
configure_package_config_file(cmake/lockstepConfig.cmake.in ${PROJECT_BINARY_DIR}/lockstepConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Until 1.0 a minor version may break its users.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/lockstepConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/lockstepConfig.cmake
  ${PROJECT_BINARY_DIR}/lockstepConfigVersion.cmake
  DESTINATION ${package_dir})
