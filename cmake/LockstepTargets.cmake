# What every target of the project shares: warnings, sanitizers, include root.

add_library(lockstep_options INTERFACE)
target_compile_options(lockstep_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wnon-virtual-dtor
  # A product and a sum are fused only where the code says so: the contract's bits
  # may not depend on what a compiler finds to fuse.
  -ffp-contract=off
  $<$<BOOL:${LOCKSTEP_WERROR}>:-Werror>)
if(NOT LOCKSTEP_ARCH STREQUAL "portable")
  target_compile_options(lockstep_options INTERFACE -march=${LOCKSTEP_ARCH})
endif()
if(LOCKSTEP_SANITIZE)
  target_compile_options(lockstep_options INTERFACE
    -fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(lockstep_options INTERFACE -fsanitize=${LOCKSTEP_SANITIZE})
endif()

# lockstep_library(nn SOURCES … PUBLIC … PRIVATE …) makes liblockstep_nn.a, known as lockstep::nn.
# PUBLIC and PRIVATE name what its headers and its sources use.
function(lockstep_library name)
  cmake_parse_arguments(LIB "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(lockstep_${name} STATIC ${LIB_SOURCES})
  add_library(lockstep::${name} ALIAS lockstep_${name})
  set_target_properties(lockstep_${name} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  target_include_directories(lockstep_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/lockstep>)
  target_compile_features(lockstep_${name} PUBLIC cxx_std_20)
  target_link_libraries(lockstep_${name} PUBLIC ${LIB_PUBLIC} PRIVATE ${LIB_PRIVATE}
    $<BUILD_INTERFACE:lockstep_options>)
endfunction()
