# Third-party packages, found in one place. scripts/install_dependencies names the Debian packages.
find_package(Eigen3 3.3 REQUIRED NO_MODULE)
find_package(yaml-cpp REQUIRED)
find_package(fmt REQUIRED)
find_package(Boost 1.74 REQUIRED COMPONENTS program_options)
find_package(nlohmann_json 3.9 REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB)  # without it, traces of training jobs are read unpacked only
if(HEADWAY_TESTS)
    find_package(GTest REQUIRED)
    include(GoogleTest)
endif()
# yaml-cpp renamed its target in 0.8.
if(TARGET yaml-cpp::yaml-cpp)
    set(HEADWAY_YAML yaml-cpp::yaml-cpp)
else()
    set(HEADWAY_YAML yaml-cpp)
endif()
