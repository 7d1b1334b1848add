# Every build option of headway, and the one INTERFACE target that carries warnings and sanitizers.
option(HEADWAY_CUDA "Build the CUDA kernels and the GPU runtime" OFF)
option(HEADWAY_TESTS "Build the tests" ON)
option(HEADWAY_HEADER_TESTS "Compile every header alone as well; what CI does" OFF)
option(HEADWAY_WERROR "Treat warnings as errors" OFF)
option(HEADWAY_UNITY "Compile several files of a folder as one: a clean build in a third of the time" ON)
option(HEADWAY_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
option(HEADWAY_COVERAGE "Count which lines the tests run (gcov; scripts/coverage)" OFF)
set(HEADWAY_SANITIZE "" CACHE STRING "Sanitizers for every target, e.g. address,undefined")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
# NOTE: -g1 keeps usable backtraces at about half the compile time and disk of -g.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")

find_program(HEADWAY_CCACHE ccache)
if(HEADWAY_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${HEADWAY_CCACHE})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${HEADWAY_CCACHE})
endif()

# Parsing library headers is most of a host compile. Files of one folder share a translation unit, so names in
# their unnamed namespaces must differ.
set(CMAKE_UNITY_BUILD ${HEADWAY_UNITY})
set(CMAKE_UNITY_BUILD_BATCH_SIZE 10)

add_library(headway_options INTERFACE)
target_compile_options(headway_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Wno-missing-field-initializers>
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${HEADWAY_WERROR}>>:-Werror>)
# In a Debug build an index past the end of a vector, span or array ends the program.
target_compile_definitions(headway_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
target_include_directories(headway_options INTERFACE ${CMAKE_SOURCE_DIR})
if(HEADWAY_SANITIZE)
    target_compile_options(headway_options INTERFACE
        $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${HEADWAY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
    target_link_options(headway_options INTERFACE -fsanitize=${HEADWAY_SANITIZE})
endif()
if(HEADWAY_COVERAGE)
    # Of -O1 and inlining little is left, so that lines stay apart; threads count the same line.
    target_compile_options(headway_options INTERFACE
        $<$<COMPILE_LANGUAGE:CXX>:--coverage -fprofile-update=atomic -O1 -fno-inline>)
    target_link_options(headway_options INTERFACE --coverage)
endif()
if(HEADWAY_FUZZ)
    target_compile_options(headway_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
    target_link_options(headway_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# headway_library(name SOURCES... [LINK libs...]): a static library of one folder.
function(headway_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC headway_options ${ARG_LINK})
endfunction()
