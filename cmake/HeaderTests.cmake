# Every host header must compile alone: one generated translation unit per header.
file(GLOB_RECURSE HEADWAY_HEADERS RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/models/*.hpp ${CMAKE_SOURCE_DIR}/sim/*.hpp
    ${CMAKE_SOURCE_DIR}/runtime/*.hpp ${CMAKE_SOURCE_DIR}/cli/*.hpp)
if(NOT HEADWAY_CUDA)
    list(FILTER HEADWAY_HEADERS EXCLUDE REGEX "runtime/(cuda|nccl)/")
endif()
set(header_units)
foreach(header ${HEADWAY_HEADERS})
    string(REPLACE "/" "_" unit ${header})
    set(unit ${CMAKE_BINARY_DIR}/header_tests/${unit}.cpp)
    if(NOT EXISTS ${unit})
        file(WRITE ${unit} "#include \"${header}\"\n#include \"${header}\"  // include guard\n")
    endif()
    list(APPEND header_units ${unit})
endforeach()
if(header_units)
    add_library(headway_header_tests OBJECT ${header_units})
    target_link_libraries(headway_header_tests PRIVATE headway_options Eigen3::Eigen fmt::fmt ${HEADWAY_YAML}
        Boost::program_options nlohmann_json::nlohmann_json)
    target_compile_options(headway_header_tests PRIVATE -O0 -g0)
    set_target_properties(headway_header_tests PROPERTIES UNITY_BUILD OFF)
endif()
