# One folder, one target, one include directory: a layer that includes or calls what it does not
# declare does not compile or does not link. docs/architecture.md lists what each may depend on.

add_library(farcall_flags INTERFACE)
target_compile_features(farcall_flags INTERFACE cxx_std_20)
target_compile_options(farcall_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  -Wno-missing-field-initializers  # designated initialisers leave fields at their defaults on purpose
  $<$<BOOL:${FARCALL_WERROR}>:-Werror>)
if(FARCALL_SANITIZE)
  target_compile_options(farcall_flags INTERFACE -fsanitize=${FARCALL_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=undefined)
  target_link_options(farcall_flags INTERFACE -fsanitize=${FARCALL_SANITIZE})
endif()
if(FARCALL_COVERAGE)
  target_compile_options(farcall_flags INTERFACE --coverage)
  target_link_options(farcall_flags INTERFACE --coverage)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# farcall_layer(NAME SOURCES ... [DEPS ...] [PRIVATE_DEPS ...])
#   Makes the static library NAME (alias farcall::NAME) with <folder>/include as its only include
#   directory, and link_test.NAME: an empty program that links all of NAME against its declared
#   dependencies and nothing else.
function(farcall_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "farcall_layer(${name}): unknown arguments ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  add_library(farcall_${name} STATIC ${ARG_SOURCES})
  add_library(farcall::${name} ALIAS farcall_${name})
  set_target_properties(farcall_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(farcall_${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>)
  target_link_libraries(farcall_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS}
    $<BUILD_INTERFACE:farcall_flags>)
  if(FARCALL_TESTS AND NOT FARCALL_SANITIZE)  # a sanitizer has nothing to add to it
    farcall_link_test(${name})
  endif()
endfunction()

function(farcall_link_test name)
  set(main ${CMAKE_BINARY_DIR}/link_test/main.cpp)
  if(NOT EXISTS ${main})
    file(WRITE ${main} "int main() { return 0; }\n")
  endif()
  add_executable(link_test_${name} ${main})
  set_target_properties(link_test_${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/link_test)
  target_link_libraries(link_test_${name} PRIVATE farcall_flags
    $<LINK_LIBRARY:WHOLE_ARCHIVE,farcall_${name}>)
  add_test(NAME link_test.${name} COMMAND link_test_${name})
  set_tests_properties(link_test.${name} PROPERTIES LABELS unit)
endfunction()

# farcall_gtest(NAME LABEL label SOURCES ... [DEPS ...] [TIMEOUT seconds])
#   One GoogleTest program, registered with CTest as one test under that label.
#   Every *_test.cpp of the calling folder has to be in some SOURCES: farcall_all_tests_registered().
function(farcall_gtest name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT FARCALL_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} farcall_test_main GTest::gtest GTest::gmock farcall_flags)
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(FARCALL_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT})
  foreach(source ${ARG_SOURCES})
    get_filename_component(path ${source} ABSOLUTE)
    set_property(GLOBAL APPEND PROPERTY FARCALL_TEST_SOURCES ${path})
  endforeach()
endfunction()

# A test file that nobody runs is worse than none: configuring fails.
function(farcall_all_tests_registered)
  if(NOT FARCALL_TESTS)
    return()
  endif()
  file(GLOB_RECURSE files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cpp)
  get_property(known GLOBAL PROPERTY FARCALL_TEST_SOURCES)
  foreach(file ${files})
    if(NOT file IN_LIST known)
      message(FATAL_ERROR "${file} is in no farcall_gtest(): it would never run")
    endif()
  endforeach()
endfunction()
