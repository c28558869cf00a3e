# SPDX-License-Identifier: MIT
# The module crfseg._cuda: kernels by nvcc, bindings by the compiler of the rest. It carries the CUDA
# runtime in itself and links to no other library of CUDA, so that it loads where there is no driver.
set(CRFSEG_CUDA AUTO CACHE STRING "build crfseg._cuda: ON, OFF, or AUTO where nvcc is found")

if(NOT CRFSEG_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CRFSEG_CUDA is ${CRFSEG_CUDA}; expected ON, OFF or AUTO")
endif()

set(crfseg_has_nvcc OFF)
if(NOT CRFSEG_CUDA STREQUAL "OFF")
  if(CMAKE_CUDA_COMPILER MATCHES "NOTFOUND$")
    unset(CMAKE_CUDA_COMPILER CACHE)  # it may be there by now
  endif()
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

set(CRFSEG_CUDA_ARCHITECTURES "" CACHE STRING "as CMAKE_CUDA_ARCHITECTURES; empty: all that there are")
if(crfseg_has_nvcc)
  set(CMAKE_CUDA_ARCHITECTURES 75)  # the least, until the compiler's version is known
  enable_language(CUDA)
  # All that this nvcc knows, and code that later devices compile for themselves.
  set(crfseg_architectures 75-real 80-real 86-real 89-real)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND crfseg_architectures 90-real 100-real 120-real 120-virtual)
  else()
    list(APPEND crfseg_architectures 90-real 90-virtual)
  endif()
  if(CRFSEG_CUDA_ARCHITECTURES)
    set(crfseg_architectures ${CRFSEG_CUDA_ARCHITECTURES})
  endif()
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
    set(crfseg_has_nvcc OFF)
    set(message "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 11.8, the first that knows all that is used")
    if(CRFSEG_CUDA STREQUAL "ON")
      message(FATAL_ERROR "CRFSEG_CUDA=ON, but ${message}")
    endif()
    message(STATUS "crfseg is built for CPUs alone: ${message}")
  endif()
endif()

if(crfseg_has_nvcc)
  message(STATUS "crfseg is built for CUDA ${CMAKE_CUDA_COMPILER_VERSION}: ${crfseg_architectures}")
  pybind11_add_module(_cuda NO_EXTRAS
    csrc/bindings/cuda/arrays.cpp
    csrc/bindings/cuda/module.cpp
    csrc/bindings/cuda/gradients.cpp
    csrc/bindings/cuda/lattice.cpp
    csrc/bindings/cuda/mean_field.cpp
    csrc/bindings/cuda/runtime.cpp
    csrc/cuda/convert.cu
    csrc/cuda/coupled_term.cu
    csrc/cuda/filter.cu
    csrc/cuda/gradients.cu
    csrc/cuda/gradients_back.cu
    csrc/cuda/gradients_features.cu
    csrc/cuda/lattice.cu
    csrc/cuda/mean_field.cu
    csrc/cuda/moments.cu
    csrc/cuda/primitives.cu
    csrc/cuda/runtime.cu
    csrc/cuda/self_response.cu
    csrc/cuda/unary.cu
    csrc/cuda/values.cu
    csrc/math/key_ranges.cpp)
  target_include_directories(_cuda PRIVATE csrc)
  set_target_properties(_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
    CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
    CUDA_ARCHITECTURES "${crfseg_architectures}")
  # Both twins must find the same lattice, bit for bit: no multiply-add is contracted.
  target_compile_options(_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra $<$<BOOL:${CRFSEG_WERROR}>:-Werror>>)
  target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
  install(TARGETS _cuda DESTINATION crfseg)
endif()
