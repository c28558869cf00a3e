# SPDX-License-Identifier: MIT
# The module crfseg._cuda: kernels by nvcc, bindings by the compiler of the rest. It carries the CUDA
# runtime in itself and links to no other library of CUDA, so that it loads where there is no driver.
# OFF as long as nothing in the package calls it.
set(CRFSEG_CUDA OFF CACHE STRING "build crfseg._cuda: ON, OFF, or AUTO where nvcc is found")

set(crfseg_has_nvcc OFF)
if(NOT CRFSEG_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(crfseg_has_nvcc ON)
  elseif(CRFSEG_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CRFSEG_CUDA=ON, but no CUDA compiler was found: put nvcc on PATH or name it in CUDACXX")
  else()
    message(STATUS "crfseg is built for CPUs alone: no CUDA compiler on PATH or in CUDACXX")
  endif()
endif()

if(crfseg_has_nvcc)
  # Those that nvcc 13 knows, and code that later devices compile for themselves.
  set(CRFSEG_CUDA_ARCHITECTURES
    "75-real;80-real;86-real;89-real;90-real;100-real;120-real;120-virtual" CACHE STRING
    "as CMAKE_CUDA_ARCHITECTURES")
  set(CMAKE_CUDA_ARCHITECTURES "${CRFSEG_CUDA_ARCHITECTURES}")
  enable_language(CUDA)
  pybind11_add_module(_cuda NO_EXTRAS
    csrc/bindings/cuda/arrays.cpp
    csrc/bindings/cuda/module.cpp
    csrc/bindings/cuda/lattice.cpp
    csrc/bindings/cuda/mean_field.cpp
    csrc/bindings/cuda/runtime.cpp
    csrc/cuda/convert.cu
    csrc/cuda/filter.cu
    csrc/cuda/lattice.cu
    csrc/cuda/mean_field.cu
    csrc/cuda/primitives.cu
    csrc/cuda/runtime.cu
    csrc/cuda/unary.cu
    csrc/cuda/values.cu
    csrc/math/key_ranges.cpp)
  target_include_directories(_cuda PRIVATE csrc)
  set_target_properties(_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
    CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
  # Both twins must find the same lattice, bit for bit: no multiply-add is contracted.
  target_compile_options(_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra $<$<BOOL:${CRFSEG_WERROR}>:-Werror>>)
  target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
  install(TARGETS _cuda DESTINATION crfseg)
endif()
